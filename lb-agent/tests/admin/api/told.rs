//! What single answers say.

use std::sync::Arc;

use lb_agent::{
    admin::{
        self,
        events::{Happened, Kind},
    },
    order::Mode,
    snapshot::{Service, ServiceName},
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    bearer, body, published,
    reads::{awaited, points, standing},
    start,
};
use crate::{
    agent::{Agent, Around, no_sockets, status},
    values::{figures, key, registered, snapshot},
};

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
