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
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let head = format!(
        "GET /api/v1/stream?services={services} HTTP/1.1\r\nHost: {}\r\n\r\n",
        agent.host()
    );
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
