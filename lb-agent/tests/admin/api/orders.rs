//! Changes and streams, and who is let in to them.

use std::collections::BTreeMap;

use lb_agent::{
    order::{Mode, Order, OrderOutcome, OrderRequest},
    vip::{self, Entry, How},
};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UnixStream},
    sync::mpsc,
};

use super::{
    Api, RULES, bearer,
    reads::{awaited, read_until},
};
use crate::{
    agent::{Agent, status},
    values::key,
};

pub(super) async fn flush(agent: &Agent, order: &str) -> String {
    let headers = format!("{}{RULES}", bearer(agent));
    let line = "POST /api/v1/packet/flush HTTP/1.1";
    agent.send(line, &agent.host(), &headers, order).await
}

/// What is asked of the packet path, and of one that does not answer any more.
pub(super) async fn packets(api: &mut Api, agent: &mut Agent) {
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

pub(super) async fn sessions(api: &mut Api, agent: &Agent) {
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
pub(super) async fn changes(api: &mut Api, agent: &mut Agent) {
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

pub(super) async fn streams(api: &mut Api, agent: &Agent) {
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

pub(super) async fn nothing_known(api: &mut Api, agent: &Agent) {
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
pub(super) async fn crowded(api: &mut Api, agent: &Agent) {
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
