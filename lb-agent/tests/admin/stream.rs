//! The page's live data, read as a browser reads it.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    agent::{Agent, status},
    values::{key, snapshot},
};
use lb_agent::snapshot::{Service, ServiceName};

/// Reads until `text` has come; all that came.
async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = String::new();
    let read = async {
        let mut piece = [0; 4096];
        while !all.contains(text) {
            let n = stream.read(&mut piece).await.unwrap();
            assert_ne!(n, 0, "the stream ended before {text:?}: {all}");
            all.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    };
    let late = timeout(Duration::from_secs(20), read).await;
    assert!(late.is_ok(), "no {text:?}: {all}");
    all
}

async fn listen(agent: &Agent, services: &str) -> TcpStream {
    listen_at(agent, services, &agent.host(), "").await
}

async fn listen_at(agent: &Agent, services: &str, host: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let head =
        format!("GET /api/v1/stream?services={services} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn texts_come_first_and_word_of_changed_rows_later() {
    let agent = Agent::start().await;
    let mut stream = listen(&agent, "www_hello%0Anobody").await;
    let start = until(&mut stream, "\"www_hello|active\":\"3\"").await;
    status(&start, 200);
    assert!(start.contains("content-type: text/event-stream"), "{start}");
    assert!(start.contains("event: hello"), "{start}");
    assert!(
        start.contains("\"www_hello|file/a|active\":\"3\""),
        "{start}"
    );
    // Nobody asked for the other service.
    assert!(!start.contains("alert(1)|active"), "{start}");
    let mut next = snapshot();
    let name = ServiceName::whole("www_hello");
    let mut service = Service::clone(&next.services[&name]);
    let one = service.backends[&key("a")].clone();
    service.backends.insert(key("b"), one);
    next.services.insert(name, service.into());
    next.number = 2;
    agent.snapshots.send_replace(Some(Arc::new(next)));
    let more = until(&mut stream, "event: resync").await;
    assert!(more.contains("www_hello|file/b|active"), "{more}");
    agent.end().await;
}

#[tokio::test]
async fn a_stream_does_not_hold_up_the_stop() {
    let agent = Agent::start().await;
    let mut stream = listen(&agent, "").await;
    until(&mut stream, "event: texts").await;
    let asked = std::time::Instant::now();
    agent.end().await;
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn more_streams_than_there_are_places_are_told_so() {
    let agent = Agent::start().await;
    let mut open = Vec::new();
    for _ in 0..32 {
        let mut stream = listen(&agent, "").await;
        until(&mut stream, "event: hello").await;
        open.push(stream);
    }
    let host = agent.host();
    let refused = agent
        .send("GET /api/v1/stream HTTP/1.1", &host, "", "")
        .await;
    status(&refused, 503);
    status(&agent.get("/healthz").await, 200);
    agent.end().await;
}

#[tokio::test]
async fn what_changed_between_the_page_and_its_stream_is_told_first() {
    let agent = Agent::start().await;
    let page = agent.get("/").await;
    let (_, seen) = page.split_once("data-seen=\"").unwrap();
    let seen = seen.split('"').next().unwrap();
    let services = format!("www_hello&seen={seen}");
    // As long as nothing has changed, the first texts are not followed by that word.
    let mut calm = listen(&agent, &services).await;
    let start = until(&mut calm, "\"www_hello|active\":\"3\"").await;
    assert!(!start.contains("event: resync"), "{start}");

    let mut next = snapshot();
    let name = ServiceName::whole("www_hello");
    let mut service = Service::clone(&next.services[&name]);
    // A row that is another one, and nothing that every page shows.
    for backend in service.backends.values_mut() {
        backend.weight = 7;
    }
    next.services.insert(name, service.into());
    next.number = 2;
    agent.snapshots.send_replace(Some(Arc::new(next)));
    // The task that makes the texts has seen it before anybody listens with what the page showed.
    until(&mut calm, "event: resync").await;
    let mut late = listen(&agent, &services).await;
    until(&mut late, "event: resync").await;
    agent.end().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_session_that_opened_it() {
    let agent = Agent::start().await;
    let rules = "Content-Type: application/json\r\nX-LB-Action: 1\r\n";
    let order = format!("{{\"token\":\"{}\"}}", agent.token);
    for host in ["lb.example", &agent.host()] {
        let line = "POST /api/v1/session HTTP/1.1";
        let answer = agent.send(line, host, rules, &order).await;
        status(&answer, 200);
        let cookie = answer.split_once("set-cookie: ").unwrap().1;
        let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
        let mut mine = listen_at(&agent, "", host, &cookie).await;
        until(&mut mine, "event: texts").await;
        let mut other = listen(&agent, "").await;
        until(&mut other, "event: texts").await;
        let line = "DELETE /api/v1/session HTTP/1.1";
        let headers = format!("{rules}{cookie}");
        status(&agent.send(line, host, &headers, "").await, 200);
        let mut rest = until(&mut mine, "event: over").await.into_bytes();
        let ended = timeout(Duration::from_secs(5), async {
            // The end of the last chunk: the connection may go on.
            while !rest.ends_with(b"0\r\n\r\n") {
                assert_ne!(mine.read_buf(&mut rest).await.unwrap(), 0);
            }
        });
        ended.await.unwrap();
        // One without a session goes on.
        let mut next = snapshot();
        next.number = 2;
        next.problems = vec![lb_agent::catalog::Problem::new("name x", host)];
        agent.snapshots.send_replace(Some(Arc::new(next)));
        until(&mut other, "event: resync").await;
    }
    agent.end().await;
}
