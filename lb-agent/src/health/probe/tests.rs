use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};

use lb_front::rules::ProxyProtocol;

use super::{Outcome, probe};
use crate::options::CheckKind;

/// A server that reads one request, gives one answer and returns what it read.
async fn server(answer: Vec<u8>) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        // A header in binary has such an end within it.
        while !(request.ends_with(b"\r\n\r\n") && request.len() > 4)
            && stream.read_buf(&mut request).await.unwrap() > 0
        {}
        // The probe may hang up in the middle of a long answer.
        let _ = stream.write_all(&answer).await;
        String::from_utf8(request).unwrap()
    });
    (address, served)
}

async fn ask_http(answer: &[u8]) -> (Outcome, String) {
    ask(CheckKind::Http("/a?b=c".to_owned()), answer).await
}

async fn ask(check: CheckKind, answer: &[u8]) -> (Outcome, String) {
    let (address, served) = server(answer.to_vec()).await;
    let outcome = probe(&(address, check), LIMIT).await;
    (outcome, served.await.unwrap())
}

#[track_caller]
fn failed(outcome: &Outcome, part: &str) {
    match outcome {
        Outcome::Failed(why) => assert!(why.contains(part), "{why} lacks {part}"),
        other => panic!("{other:?}"),
    }
}

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_listener_passes_and_sees_a_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let outcome = probe(&(address, CheckKind::Tcp), LIMIT).await;
    assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
    let (mut stream, _) = listener.accept().await.unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    // Bound and not listening: nobody else can take the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let outcome = probe(&(address, CheckKind::Tcp), LIMIT).await;
    assert_eq!(outcome, Outcome::Failed("connection refused".to_owned()));
}

#[tokio::test]
async fn a_server_that_is_told_of_clients_learns_that_there_is_none() {
    for (how, header) in [
        (ProxyProtocol::V1, "PROXY UNKNOWN\r\n"),
        (ProxyProtocol::V2, "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let check = CheckKind::HttpAfter(how, "/health".to_owned());
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let (outcome, request) = ask(check, answer).await;
        assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
        let request = request.strip_prefix(header).unwrap();
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
    }
}

#[tokio::test]
async fn successes_and_redirections_pass() {
    for status in ["200 OK", "204 No Content", "302 Found"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let (outcome, request) = ask_http(answer.as_bytes()).await;
        assert!(
            matches!(outcome, Outcome::Passed(_)),
            "{status}: {outcome:?}"
        );
        assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
        assert!(
            request.to_ascii_lowercase().contains("host: 127.0.0.1:"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn every_other_status_fails() {
    for status in ["404", "429", "502"] {
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
        let (outcome, _) = ask_http(answer.as_bytes()).await;
        failed(&outcome, &format!("HTTP status {status}"));
    }
}

#[tokio::test]
async fn an_endless_body_is_not_read() {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n".to_vec();
    answer.resize(100_000_000, b'x');
    let (outcome, _) = ask_http(&answer).await;
    assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
}

#[tokio::test]
async fn what_is_not_http_fails() {
    let (outcome, _) = ask_http(b"SSH-2.0-x\r\n").await;
    failed(&outcome, "no HTTP answer");
    let (outcome, _) = ask_http(b"").await;
    failed(&outcome, "no HTTP answer");
    let mut endless_head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
    endless_head.resize(1_000_000, b'x');
    let (outcome, _) = ask_http(&endless_head).await;
    failed(&outcome, "no HTTP answer");
}

#[tokio::test]
async fn a_silent_application_fails_in_time() {
    // The kernel accepts, nobody answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = (address, CheckKind::Http("/".to_owned()));
    let outcome = probe(&target, Duration::from_millis(50)).await;
    failed(&outcome, "no answer within 50ms");
}
