//! The document of the API holds: a live agent is asked for every path, method and status that it names, and each answer is
//! as it says, without a field more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use lb_agent::{
    admin::{
        self,
        events::{Happened, Kind},
    },
    clients::{Clients, Standing},
    order::{Mode, Order, OrderOutcome, OrderRequest},
    snapshot::{Service, ServiceName},
    trace::{Decision, Told, TraceRequest},
    vip::{self, Entry, How},
};
use lb_common::{Be16, PROTO_TCP, Trace};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::{broadcast, mpsc},
    time::{Instant, sleep, timeout},
};

use crate::{
    agent::{Agent, Around, no_sockets, status},
    values::{figures, key, registered, snapshot, sockets},
};

const RULES: &str = "Content-Type: application/json\r\nX-LB-Action: 1\r\n";

/// Path, method and status.
type Case = (String, String, u16);

/// The document, and what of it was seen to hold.
struct Api {
    document: Value,
    seen: BTreeSet<Case>,
}

impl Api {
    async fn of(agent: &Agent) -> Self {
        let answer = agent.get("/api/v1/openapi.json").await;
        Self {
            document: serde_json::from_str(body(&answer)).unwrap(),
            seen: BTreeSet::new(),
        }
    }

    fn operations(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap();
        let all = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| (path.clone(), method.clone()))
        });
        all.collect()
    }

    fn documented(&self) -> BTreeSet<Case> {
        let operations = self.operations().into_iter();
        let all = operations.flat_map(|(path, method)| {
            let answers = self.document["paths"][&path][&method]["responses"].as_object();
            let answers: Vec<u16> = answers
                .unwrap()
                .keys()
                .map(|it| it.parse().unwrap())
                .collect();
            answers
                .into_iter()
                .map(move |status| (path.clone(), method.clone(), status))
        });
        all.collect()
    }

    /// Compares an answer with what is said of this path, method and status.
    #[track_caller]
    fn holds(&mut self, path: &str, method: &str, expect: u16, answer: &str) {
        status(answer, expect);
        let mut said = &self.document["paths"][path][method]["responses"][expect.to_string()];
        if let Some(place) = said["$ref"].as_str() {
            said = self.document.pointer(&place[1..]).unwrap();
        }
        assert!(said.is_object(), "{method} {path} does not say {expect}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let kind = head
            .lines()
            .find_map(|it| it.strip_prefix("content-type: "));
        let kind = kind.unwrap().split(';').next().unwrap();
        let schema = &said["content"][kind]["schema"];
        assert!(schema.is_object(), "{method} {path} says nothing of {kind}");
        let value = match kind {
            "application/json" => serde_json::from_str(body).unwrap(),
            // Of one chunk.
            "application/x-ndjson" => {
                let line = body.lines().find(|it| it.starts_with('{')).unwrap();
                serde_json::from_str(line).unwrap()
            }
            _ => Value::from(body),
        };
        let wrong = self.wrong(schema, &value);
        assert!(
            wrong.is_empty(),
            "{method} {path} {expect}: {wrong:#?} in {value:#}"
        );
        self.seen
            .insert((path.to_owned(), method.to_owned(), expect));
    }

    /// What of `value` is not as the schema says.
    fn wrong(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut whole = schema.clone();
        whole["components"] = self.document["components"].clone();
        strict(&mut whole);
        let validator = jsonschema::draft202012::new(&whole).unwrap();
        let errors = validator.iter_errors(value);
        errors
            .map(|it| format!("{}: {it}", it.instance_path()))
            .collect()
    }
}

/// Fields may be added to the API: so the document allows others. Here there must be none that it does not name.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(strict);
            if fields.contains_key("properties") && fields.contains_key("type") {
                fields.entry("additionalProperties").or_insert(false.into());
            }
        }
        Value::Array(all) => all.iter_mut().for_each(strict),
        _ => {}
    }
}

#[track_caller]
fn body(answer: &str) -> &str {
    status(answer, 200);
    answer.split_once("\r\n\r\n").unwrap().1
}

fn bearer(agent: &Agent) -> String {
    format!("Authorization: Bearer {}\r\n", agent.token)
}

/// The answer to who shows the token where the page is published.
async fn published(agent: &Agent, path: &str) -> String {
    let line = format!("GET {path} HTTP/1.1");
    agent.send(&line, "lb.example", &bearer(agent), "").await
}

async fn start(registers: bool) -> Agent {
    let around = Around {
        sockets: sockets(),
        registers,
        packets: registers,
        otlp: None,
    };
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Agent::start_among(around, tcp, snapshot(), Duration::from_millis(50), figures).await
}

#[tokio::test]
async fn every_documented_answer_is_given_and_is_as_documented() {
    let mut agent = start(true).await;
    let mut api = Api::of(&agent).await;
    whatever_is_asked(&mut api, &agent).await;
    reads(&mut api, &mut agent).await;
    changes(&mut api, &mut agent).await;
    // The wrong tokens that are shown here make those that crowd wait for seconds.
    sessions(&mut api, &agent).await;
    streams(&mut api, &agent).await;
    packets(&mut api, &mut agent).await;
    nothing_known(&mut api, &agent).await;
    crowded(&mut api, &agent).await;
    agent.end().await;
    let none = start(false).await;
    let path = "/api/v1/registrar";
    api.holds(path, "get", 404, &none.get(path).await);
    let path = "/api/v1/packet/explain";
    let asked = format!("{path}?client=192.0.2.9:40000&vip=198.18.12.7:80");
    api.holds(path, "get", 409, &none.get(&asked).await);
    let path = "/api/v1/packet/trace";
    api.holds(path, "get", 409, &none.get_there(path).await);
    let path = "/api/v1/packet/flush";
    api.holds(path, "post", 409, &flush(&none, "{}").await);
    none.end().await;
    let missing: Vec<_> = api.documented().difference(&api.seen).cloned().collect();
    assert!(missing.is_empty(), "documented and not seen: {missing:?}");
}

/// The rules that hold for every path.
async fn whatever_is_asked(api: &mut Api, agent: &Agent) {
    let two = format!("{}\r\nHost: {}", agent.host(), agent.host());
    for (path, method) in api.operations() {
        let line = format!("{} {path} HTTP/1.1", method.to_uppercase());
        let send = async |host: &str, headers: &str, body: &str| {
            agent.send(&line, host, headers, body).await
        };
        api.holds(&path, &method, 400, &send(&two, RULES, "").await);
        api.holds(&path, &method, 421, &send("evil.example", RULES, "").await);
        let documented = api.documented();
        let says = |status| documented.contains(&(path.clone(), method.clone(), status));
        let host = agent.host();
        let with_token = format!("{}{RULES}", bearer(agent));
        if method == "get" && says(401) && !path.ends_with("/session") {
            api.holds(&path, &method, 401, &send("lb.example", "", "").await);
        }
        if method != "get" {
            let form = "Content-Type: application/x-www-form-urlencoded\r\n";
            api.holds(&path, &method, 415, &send(&host, form, "{}").await);
            let json = "Content-Type: application/json\r\n";
            api.holds(&path, &method, 403, &send(&host, json, "{}").await);
            if !path.ends_with("/session") {
                api.holds(&path, &method, 401, &send(&host, RULES, "{}").await);
            }
        }
        if says(413) {
            let long = " ".repeat(17 * 1024);
            api.holds(&path, &method, 413, &send(&host, &with_token, &long).await);
            let other = r#"{"nobody knows this":1}"#;
            api.holds(&path, &method, 422, &send(&host, &with_token, other).await);
            api.holds(&path, &method, 400, &send(&host, &with_token, "{").await);
        }
        // There is no other method: the answer to one names those that there are.
        let other = format!("PATCH {path} HTTP/1.1");
        let answer = agent.send(&other, &host, &with_token, "{}").await;
        // Probes take no token, so there is none for a change of them.
        status(&answer, if says(401) { 405 } else { 401 });
        let allowed = answer.lines().find_map(|it| it.strip_prefix("allow: "));
        let allowed = allowed
            .unwrap()
            .split(',')
            .map(|it| it.trim().to_lowercase());
        let allowed: BTreeSet<String> = allowed.collect();
        let methods = api.document["paths"][&path].as_object().unwrap().keys();
        let mut expect: BTreeSet<String> = methods.cloned().collect();
        if expect.contains("get") {
            expect.insert("head".to_owned());
        }
        assert_eq!(allowed, expect, "{path}");
    }
}

fn standing() -> Clients {
    let standing = Standing {
        container: "c0ffee".to_owned(),
        name: "web".to_owned(),
        networks: ["front".to_owned()].into(),
        addresses: [[172, 18, 0, 2].into()].into(),
        outside: true,
    };
    Clients {
        by_cookie: [(4107, standing)].into(),
    }
}

/// Waits until the graphs have points.
async fn points(agent: &Agent) {
    awaited(async || {
        let past: Value = serde_json::from_str(body(&agent.get("/api/v1/history").await)).unwrap();
        let flows = past["services"][1]["flows"].as_array().unwrap();
        let known = flows.iter().filter(|it| !it.is_null()).count();
        (known > 3).then_some(()).ok_or(past.to_string())
    })
    .await;
}

/// Looks until there is what is looked for.
async fn awaited<T>(mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + SOON;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(late) => assert!(Instant::now() < end, "{late}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// What reading tells, with as much as can be known.
async fn reads(api: &mut Api, agent: &mut Agent) {
    let unready = agent.get("/ready").await;
    api.holds("/ready", "get", 503, &unready);
    agent.readiness.set("maps");
    agent.readiness.set("listeners");
    for path in ["/healthz", "/ready", "/metrics"] {
        api.holds(path, "get", 200, &agent.get(path).await);
    }
    let open = "Accept: application/openmetrics-text\r\n";
    let line = "GET /metrics HTTP/1.1";
    let answer = agent.send(line, &agent.host(), open, "").await;
    api.holds("/metrics", "get", 200, &answer);

    let clients = "/api/v1/clients";
    api.holds(clients, "get", 503, &agent.get(clients).await);
    agent.clients.send_replace(Some(Arc::new(standing())));
    agent.registrar.send_replace(registered());
    agent.front.send_replace(Some(front()));
    let mut known = snapshot();
    known.problems = vec![lb_agent::catalog::Problem::new(
        "name x",
        "is odd; change it",
    )];
    agent.snapshots.send_replace(Some(Arc::new(known)));
    agent.events.add(Happened {
        kind: Kind::Backend,
        subject: "instance n/a of service www_hello".to_owned(),
        from: None,
        to: Some("l4_down".to_owned()),
        cause: None,
        actor: None,
    });
    points(agent).await;
    for path in [
        "/api/v1/openapi.json",
        "/api/v1/snapshot",
        "/api/v1/status",
        "/api/v1/wrong",
        "/api/v1/history",
        "/api/v1/events",
        clients,
        "/api/v1/registrar",
        "/api/v1/configuration",
    ] {
        api.holds(path, "get", 200, &agent.get(path).await);
    }
    for path in ["/api/v1/history?nonsense=1", "/api/v1/events?after=x"] {
        let of = path.split('?').next().unwrap();
        api.holds(of, "get", 400, &agent.get(path).await);
    }
    for path in [
        "/api/v1/configuration",
        clients,
        "/api/v1/registrar",
        "/api/v1/explain?client=web&service=www_hello",
    ] {
        let of = path.split('?').next().unwrap();
        api.holds(of, "get", 403, &published(agent, path).await);
    }

    let path = "/api/v1/explain";
    for (query, expect) in [
        ("?client=host&service=www_hello", 200),
        ("?client=web&service=www_hello", 200),
        ("?client=host", 400),
        ("?client=17&service=www_hello", 403),
        ("?client=host&service=nobody", 404),
        (
            "?client=host&service=%3Cscript%3Ealert(1)%3C/script%3E",
            409,
        ),
    ] {
        let answer = agent.get(&format!("{path}{query}")).await;
        api.holds(path, "get", expect, &answer);
    }
    let path = "/api/v1/flows";
    api.holds(path, "get", 200, &agent.get_there(path).await);
    api.holds(path, "get", 403, &agent.get(path).await);
    let nobody = format!("{path}?service=nobody");
    api.holds(path, "get", 404, &agent.get_there(&nobody).await);
    let odd = format!("{path}?odd=1");
    api.holds(path, "get", 400, &agent.get_there(&odd).await);
    let none = format!("{path}?client=10.9.9.9");
    let none = agent.get_there(&none).await;
    api.holds(path, "get", 200, &none);
    assert!(none.contains(r#""flows":[]"#), "{none}");
    let path = "/api/v1/log";
    api.holds(path, "get", 200, &agent.get_there(path).await);
    api.holds(path, "get", 403, &agent.get(path).await);

    trace(api, agent).await;
}

async fn flush(agent: &Agent, order: &str) -> String {
    let headers = format!("{}{RULES}", bearer(agent));
    let line = "POST /api/v1/packet/flush HTTP/1.1";
    agent.send(line, &agent.host(), &headers, order).await
}

/// What is asked of the packet path, and of one that does not answer any more.
async fn packets(api: &mut Api, agent: &mut Agent) {
    let explain = "/api/v1/packet/explain";
    let ask = |client: &str, vip: &str| format!("{explain}?client={client}&vip={vip}");
    let good = ask("192.0.2.9:40000", "198.18.12.7:80&protocol=udp");
    api.holds(explain, "get", 200, &agent.get(&good).await);
    let nobody = ask("[2001:db8::9]:40000", "[fd00::9]:80");
    api.holds(explain, "get", 404, &agent.get(&nobody).await);
    let two = ask("192.0.2.9:40000", "[fd00::9]:80");
    status(&agent.get(&two).await, 422);
    api.holds(explain, "get", 400, &agent.get(&ask("x", "y")).await);

    let trace = "/api/v1/packet/trace";
    let all = format!("{trace}?service=www_hello");
    let nobody = format!("{trace}?service=nobody");
    api.holds(trace, "get", 403, &agent.get(&all).await);
    api.holds(trace, "get", 404, &agent.get_there(&nobody).await);
    let mut stream = UnixStream::connect(&agent.socket).await.unwrap();
    let head = format!("GET {all} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "}\n").await;
    api.holds(trace, "get", 200, &answer);

    let path = "/api/v1/packet/flush";
    let of = |service: &str| json!({ "service": service }).to_string();
    api.holds(path, "post", 200, &flush(agent, &of("www_hello")).await);
    api.holds(path, "post", 404, &flush(agent, &of("nobody")).await);
    agent.packets.take().unwrap().abort();
    api.holds(path, "post", 503, &flush(agent, "{}").await);
    api.holds(explain, "get", 503, &agent.get(&good).await);
    api.holds(trace, "get", 503, &agent.get_there(&all).await);
}

fn front() -> lb_front::FrontStats {
    lb_front::FrontStats {
        terminations: vec![lb_front::TerminationCount {
            service: "www_hello".to_owned(),
            class: "2xx".to_owned(),
            reason: lb_front::Reason::Ok,
            count: 7,
        }],
        backends: vec![lb_front::BackendStats {
            address: "10.0.0.1:80".parse().unwrap(),
            in_flight: 1,
            open: 3,
            idle: 2,
            failures: 1,
            retries: 0,
            requests: 7,
            errors: 0,
            buckets: vec![7],
            micros: 70_000,
            received: 1_000,
            sent: 9_000,
        }],
        ..lb_front::FrontStats::default()
    }
}

async fn trace(api: &mut Api, agent: &mut Agent) {
    let path = "/api/v1/trace";
    let mine = format!("{path}?service=www_hello");
    api.holds(path, "get", 403, &agent.get(&mine).await);
    api.holds(path, "get", 400, &agent.get_there(path).await);
    let nobody = format!("{path}?service=nobody");
    api.holds(path, "get", 404, &agent.get_there(&nobody).await);
    let mut traces = std::mem::replace(&mut agent.traces, mpsc::channel(1).1);
    for told in [Told::Decision(decision()), Told::Lost(3)] {
        let mut stream = UnixStream::connect(&agent.socket).await.unwrap();
        let head = format!("GET {mine} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let TraceRequest { reply, .. } = traces.recv().await.unwrap();
        let (out, hears) = broadcast::channel(2);
        reply.send(hears).unwrap();
        out.send(told).unwrap();
        let answer = read_until(&mut stream, "}\n").await;
        api.holds(path, "get", 200, &answer);
    }
}

fn decision() -> Decision {
    Decision {
        at: std::time::SystemTime::UNIX_EPOCH,
        trace: Trace {
            port: Be16::from_host(80),
            proto: PROTO_TCP,
            ..Trace::default()
        },
        view: Some(1),
        address: Some("10.0.0.1:80".parse().unwrap()),
    }
}

async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut all = String::new();
    let read = async {
        let mut piece = [0; 4096];
        while !all.contains(end) {
            let n = stream.read(&mut piece).await.unwrap();
            assert_ne!(n, 0, "it ended before {end:?}: {all}");
            all.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    };
    let late = timeout(SOON, read).await;
    assert!(late.is_ok(), "no {end:?}: {all}");
    all
}

async fn sessions(api: &mut Api, agent: &Agent) {
    let (path, host) = ("/api/v1/session", agent.host());
    let ask = async |method: &str, headers: &str, body: &str| {
        let line = format!("{method} {path} HTTP/1.1");
        agent.send(&line, &host, headers, body).await
    };
    api.holds(path, "get", 200, &ask("GET", "", "").await);
    let order = format!("{{\"token\":\"{}\"}}", agent.token);
    api.holds(path, "post", 200, &ask("POST", RULES, &order).await);
    api.holds(path, "delete", 200, &ask("DELETE", RULES, "").await);
    let wrong = format!("Authorization: Bearer 0000000000000000\r\n{RULES}");
    for method in ["get", "post", "delete"] {
        let answer = ask(&method.to_uppercase(), &wrong, "{}").await;
        api.holds(path, method, 401, &answer);
    }
}

/// Changes that are carried out, that take too long, that are refused, and that nobody answers.
async fn changes(api: &mut Api, agent: &mut Agent) {
    let host = agent.host();
    let headers = format!("{}{RULES}", bearer(agent));
    let mut orders = std::mem::replace(&mut agent.orders, mpsc::channel(1).1);
    let mut vips = std::mem::replace(&mut agent.vips, mpsc::channel(1).1);
    let in_force = agent.in_maps.borrow().unwrap();
    let played = tokio::spawn(async move {
        for outcome in [
            Ok(in_force),
            Ok(in_force + 1),
            Err("there is none".to_owned()),
        ] {
            let OrderRequest { reply, .. } = orders.recv().await.unwrap();
            let outcome = outcome.map(|snapshot| OrderOutcome {
                matched: vec![key("a")],
                order: Order {
                    mode: Mode::Drain,
                    until: None,
                },
                snapshot,
            });
            reply.send(outcome).unwrap();
        }
    });
    let post = async |path: &str, body: &Value| {
        let line = format!("POST {path} HTTP/1.1");
        agent.send(&line, &host, &headers, &body.to_string()).await
    };
    let path = "/api/v1/instances/state";
    let order = json!({ "service": "www_hello", "mode": "drain" });
    for expect in [200, 202, 422] {
        api.holds(path, "post", expect, &post(path, &order).await);
    }
    played.await.unwrap();
    // Its stage is gone.
    api.holds(path, "post", 503, &post(path, &order).await);

    let entry = |how| Entry {
        address: [198, 18, 12, 7].into(),
        service: Some("www_hello".to_owned()),
        how,
        in_use: true,
        since_unix: Some(1_700_000_000),
        until_unix: None,
    };
    let played = tokio::spawn(async move {
        let good = || Ok(vec![entry(How::Hash), entry(How::Quarantine)]);
        let bad = || Err("it is pinned to another".to_owned());
        for outcome in [good(), good(), bad(), good(), bad()] {
            let vip::Request { reply, .. } = vips.recv().await.unwrap();
            reply.send(outcome).unwrap();
        }
    });
    let list = "/api/v1/vips";
    api.holds(list, "get", 200, &agent.get(list).await);
    let orders = BTreeMap::from([
        (
            "/api/v1/vips/pin",
            json!({ "service": "www_hello", "address": "198.18.12.7" }),
        ),
        ("/api/v1/vips/release", json!({ "target": "www_hello" })),
    ]);
    for (path, order) in &orders {
        for expect in [200, 422] {
            api.holds(path, "post", expect, &post(path, order).await);
        }
    }
    played.await.unwrap();
    api.holds(list, "get", 503, &agent.get(list).await);
    for (path, order) in &orders {
        api.holds(path, "post", 503, &post(path, order).await);
    }
}

async fn streams(api: &mut Api, agent: &Agent) {
    let path = "/api/v1/stream";
    let mut open = Vec::new();
    for _ in 0..32 {
        let mut stream = TcpStream::connect(agent.address).await.unwrap();
        let head = format!(
            "GET {path}?services=www_hello HTTP/1.1\r\nHost: {}\r\n\r\n",
            agent.host()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "event: hello").await;
        api.holds(path, "get", 200, &answer);
        open.push(stream);
    }
    api.holds(path, "get", 503, &agent.get(path).await);
}

async fn nothing_known(api: &mut Api, agent: &Agent) {
    agent.snapshots.send_replace(None);
    let snapshot = agent.get("/api/v1/snapshot").await;
    api.holds("/api/v1/snapshot", "get", 200, &snapshot);
    for path in ["/api/v1/explain", "/api/v1/trace", "/api/v1/flows"] {
        let query = match path {
            "/api/v1/explain" => "?client=host&service=www_hello",
            _ => "?service=www_hello",
        };
        let answer = agent.get_there(&format!("{path}{query}")).await;
        api.holds(path, "get", 503, &answer);
    }
}

/// While many wrong tokens wait for their answers, none is looked at.
async fn crowded(api: &mut Api, agent: &Agent) {
    let host = agent.host();
    let wrong = format!("Authorization: Bearer 0000000000000000\r\n{RULES}");
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(agent.address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{wrong}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    let ask = async |method: &str, path: &str| {
        let line = format!("{} {path} HTTP/1.1", method.to_uppercase());
        let headers = format!("{}{RULES}", bearer(agent));
        agent.send(&line, &host, &headers, "").await
    };
    awaited(async || {
        let answer = ask("get", "/healthz").await;
        answer
            .starts_with("HTTP/1.1 429 ")
            .then_some(())
            .ok_or(answer)
    })
    .await;
    for (path, method) in api.operations() {
        api.holds(&path, &method, 429, &ask(&method, &path).await);
    }
}

#[tokio::test]
async fn a_field_that_is_not_documented_and_one_that_is_missing_are_noticed() {
    let agent = Agent::start().await;
    let api = Api::of(&agent).await;
    let path = &api.document["paths"]["/api/v1/snapshot"]["get"];
    let schema = &path["responses"]["200"]["content"]["application/json"]["schema"];
    let good: Value = serde_json::from_str(body(&agent.get("/api/v1/snapshot").await)).unwrap();
    assert_eq!(api.wrong(schema, &good), [""; 0]);
    for place in ["", "/services/0", "/services/0/backends/0", "/sources/file"] {
        let mut more = good.clone();
        more.pointer_mut(place).unwrap()["undocumented"] = 1.into();
        assert_eq!(api.wrong(schema, &more).len(), 1, "{place}");
        let mut less = good.clone();
        let fields = less.pointer_mut(place).unwrap().as_object_mut().unwrap();
        let first = fields.keys().next().unwrap().clone();
        fields.remove(&first);
        assert_eq!(api.wrong(schema, &less).len(), 1, "{place} without {first}");
    }
    agent.end().await;
}

#[tokio::test]
async fn the_history_is_what_the_graphs_of_the_page_show() {
    let agent = start(true).await;
    // By then the states are followed.
    points(&agent).await;
    let mut next = snapshot();
    let name = ServiceName::whole("www_hello");
    let mut service = Service::clone(&next.services[&name]);
    service.backends.get_mut(&key("a")).unwrap().order.mode = Mode::Drain;
    next.services.insert(name, service.into());
    next.number = 2;
    agent.snapshots.send_replace(Some(Arc::new(next)));
    let past = awaited(async || {
        let path = "/api/v1/history?services=www_hello%0Anobody";
        let past: Value = serde_json::from_str(body(&agent.get(path).await)).unwrap();
        let since = &past["services"][0]["backends"][0]["state_since_unix"];
        match since.is_u64() {
            true => Ok(past),
            false => Err(past.to_string()),
        }
    })
    .await;
    assert_eq!(past["step_seconds"], 0.05);
    let active = past["services"][0]["active"].as_array().unwrap();
    assert_eq!(active.last(), Some(&3.into()));
    assert_eq!(past["services"].as_array().unwrap().len(), 1);
    assert_eq!(past["services"][0]["label"], "www_hello");
    assert_eq!(past["services"][0]["backends"][0]["id"], "a");
    assert_eq!(past["all"]["active"], 3);
    assert_eq!(past["left_out"], 0);
    agent.end().await;
}

#[tokio::test]
async fn flows_are_told_to_who_has_the_token_newest_first_and_to_no_published_page() {
    let mut agent = start(true).await;
    // Nobody answers for the addresses.
    agent.vips = mpsc::channel(1).1;
    let line = "GET /api/v1/flows?client=c0ffee001122 HTTP/1.1";
    let all = "GET /api/v1/flows HTTP/1.1";
    let (host, token) = (agent.host(), bearer(&agent));
    let told = async |line: &str| -> Value {
        let answer = agent.send(line, &host, &token, "").await;
        serde_json::from_str(body(&answer)).unwrap()
    };
    let flows = told(all).await;
    assert_eq!(flows["flows"][0]["client"], "172.18.0.9:40002");
    assert_eq!(flows["flows"][1]["command"], "curl");
    let one = told(line).await;
    assert_eq!(one["flows"].as_array().unwrap().len(), 1);
    assert_eq!(one["flows"][0]["command"], "<script>");
    status(&agent.send(all, "lb.example", &token, "").await, 403);
    let page = async |host: &str, headers: &str| {
        let answer = agent.send("GET /flows HTTP/1.1", host, headers, "").await;
        status(&answer, 200);
        answer
    };
    assert!(page(&host, &token).await.contains("172.18.0.9:40002"));
    for (host, headers) in [(host.as_str(), ""), ("lb.example", token.as_str())] {
        let page = page(host, headers).await;
        assert!(!page.contains("172.18.0.9"), "{page}");
        assert!(!page.contains("4711"), "{page}");
        assert!(page.contains("file/a at 10.0.0.1:80"), "{page}");
    }
    agent.clients.send_replace(Some(Arc::new(standing())));
    agent.registrar.send_replace(registered());
    let explain = "/api/v1/explain?service=www_hello&client=";
    let [web, nobody, process, to_host] =
        ["web", "nobody", "17", "host"].map(|it| format!("{explain}{it}"));
    for (path, told) in [
        ("/configuration", "vip.pool"),
        ("/api/v1/configuration", "vip.pool"),
        ("/api/v1/clients", "c0ffee"),
        ("/api/v1/registrar", "172.18.0.2"),
        ("/registrar", "172.18.0.2"),
        (web.as_str(), "c0ffee"),
        // Nor whether there is one.
        (nobody.as_str(), "c0ffee"),
        (process.as_str(), "c0ffee"),
    ] {
        let answer = published(&agent, path).await;
        status(&answer, 403);
        assert!(answer.contains("through a published page"), "{answer}");
        assert!(!answer.contains(told), "{path}: {answer}");
        if path != nobody && path != process {
            let answer = agent.get(path).await;
            assert!(answer.contains(told), "{path}: {answer}");
        }
    }
    body(&published(&agent, &to_host).await);
    // The bar of pages offers what is shown there.
    let offers = |page: &str| {
        let links = [
            "/",
            "/vips",
            "/flows",
            "/registrar",
            "/events",
            "/configuration",
        ];
        links.map(|it| page.contains(&format!("<a href=\"{it}\"")))
    };
    for path in [
        "/",
        "/service/www_hello",
        "/vips",
        "/flows",
        "/events",
        "/registrar",
    ] {
        let there = offers(&published(&agent, path).await);
        assert_eq!(there, [true, true, true, false, true, false], "{path}");
        let here = agent.get(path).await;
        assert_eq!(offers(&here), [true; 6], "{path}");
    }
    agent.end().await;
    // Whoever cannot list them says so on the page, too.
    let around = Around {
        sockets: no_sockets(),
        registers: false,
        packets: false,
        otlp: None,
    };
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = Agent::start_among(around, tcp, snapshot(), admin::STEP, figures).await;
    let answer = agent
        .send("GET /flows HTTP/1.1", &agent.host(), &bearer(&agent), "")
        .await;
    assert!(
        answer.contains("the kernel does not list the sockets"),
        "{answer}"
    );
    assert!(
        agent
            .get("/registrar")
            .await
            .contains("[registrar] enabled")
    );
    agent.end().await;
}

#[tokio::test]
async fn a_published_page_names_neither_who_changed_something_nor_where_metrics_go() {
    let mut push = crate::otlp::config("http://127.0.0.1:9/elsewhere");
    push.headers_file = Some("/nowhere/headers".into());
    let agent = Agent::start_pushing(push).await;
    let why = agent.line_that(|line| line.contains("/nowhere")).await;
    assert!(why.contains("127.0.0.1:9/elsewhere"), "{why}");
    agent.events.add(Happened {
        kind: Kind::Change,
        subject: "instance n/a of service www_hello".to_owned(),
        from: Some("usable".to_owned()),
        to: Some("draining".to_owned()),
        cause: Some("drain from 192.0.2.77".to_owned()),
        actor: Some("session 4711".to_owned()),
    });
    for (path, told, secrets) in [
        ("/", "otlp", ["/nowhere", "127.0.0.1:9/"]),
        ("/api/v1/snapshot", "otlp", ["/nowhere", "127.0.0.1:9/"]),
        ("/api/v1/status", "otlp", ["/nowhere", "127.0.0.1:9/"]),
        ("/api/v1/wrong", "otlp", ["/nowhere", "127.0.0.1:9/"]),
        ("/events", "draining", ["192.0.2.77", "session 4711"]),
        ("/api/v1/events", "draining", ["192.0.2.77", "session 4711"]),
    ] {
        let (here, there) = (agent.get(path).await, published(&agent, path).await);
        assert!(body(&there).contains(told), "{path}: {there}");
        for secret in secrets {
            assert!(body(&here).contains(secret), "{path}: {here}");
            assert!(!there.contains(secret), "{path}: {there}");
        }
    }
    agent.end().await;
}

/// For what happens by itself.
const SOON: Duration = Duration::from_secs(20);
