//! What reading tells, and the rules that hold for every path.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lb_agent::{
    admin::events::{Happened, Kind},
    clients::{Clients, Standing},
    trace::{Decision, Told, TraceRequest},
};
use lb_common::{Be16, PROTO_TCP, Trace};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt as _},
    net::UnixStream,
    sync::{broadcast, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{Api, RULES, SOON, bearer, body, published};
use crate::{
    agent::{Agent, status},
    values::{registered, snapshot},
};

/// The rules that hold for every path.
pub(super) async fn whatever_is_asked(api: &mut Api, agent: &Agent) {
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

pub(super) fn standing() -> Clients {
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
pub(super) async fn points(agent: &Agent) {
    awaited(async || {
        let past: Value = serde_json::from_str(body(&agent.get("/api/v1/history").await)).unwrap();
        let flows = past["services"][1]["flows"].as_array().unwrap();
        let known = flows.iter().filter(|it| !it.is_null()).count();
        (known > 3).then_some(()).ok_or(past.to_string())
    })
    .await;
}

/// Looks until there is what is looked for.
pub(super) async fn awaited<T>(mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
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
pub(super) async fn reads(api: &mut Api, agent: &mut Agent) {
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

pub(super) fn front() -> lb_front::FrontStats {
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

pub(super) async fn trace(api: &mut Api, agent: &mut Agent) {
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

pub(super) fn decision() -> Decision {
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

pub(super) async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
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
