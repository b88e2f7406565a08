use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
    time::timeout,
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

/// A server of HTTP/2 alone, which gives each request this status and a body without an end.
async fn server_of_http2(status: u16) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = asked.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let asked = format!("{} {}", request.method(), request.uri());
            log.lock().unwrap().push(asked);
            let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
            let answer = Response::builder().status(status).body(body);
            async move { answer }
        });
        // The probe hangs up.
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
        std::mem::take(&mut *asked.lock().unwrap())
    });
    (address, served)
}

#[tokio::test]
async fn a_server_of_http2_alone_is_asked_by_http2() {
    let check = || CheckKind::Http2("/a?b=c".to_owned());
    for (status, error) in [(200, None), (302, None), (415, Some("HTTP status 415"))] {
        let (address, served) = server_of_http2(status).await;
        let outcome = probe(&(address, check()), LIMIT).await;
        match error {
            None => assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}"),
            Some(why) => failed(&outcome, why),
        }
        // Its end is the end of the connection.
        let asked = timeout(LIMIT, served).await.unwrap().unwrap();
        assert_eq!(asked, [format!("GET http://{address}/a?b=c")]);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        // Whoever asked may have gone.
        let _ = stream.write_all(answer).await;
    });
    let outcome = probe(&(address, check()), LIMIT).await;
    failed(&outcome, "no HTTP/2 answer");
    other.await.unwrap();
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
