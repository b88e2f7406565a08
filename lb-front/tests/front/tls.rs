//! TLS towards clients, with a real client of the same library.

mod certificates;
mod handshake;
mod https;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use lb_front::{
    Limits,
    tls::{Certificate, Tls},
};
use rustls::version::{TLS12, TLS13};

use crate::{
    kit::{Backend, Client, GET, TestFront, eventually},
    tlskit::{Stream, builder, certificate, config, try_connect},
};

fn tls(certificates: &[&Certificate]) -> Tls {
    Tls {
        certificates: certificates.iter().map(|&it| it.clone()).collect(),
        ..Tls::default()
    }
}

fn front(limits: Limits, backends: &[&Backend]) -> TestFront {
    let front = TestFront::with_tls(limits, backends);
    front
        .front
        .present(&tls(&[&certificate(&["web"])]))
        .unwrap();
    front
}

#[track_caller]
fn connect(front: &TestFront) -> Client<Stream> {
    try_connect(front.tls(), &config(), "web").unwrap()
}

fn rejected(front: &TestFront, reason: &str) -> u64 {
    front
        .stats()
        .rejected
        .get(reason)
        .copied()
        .unwrap_or_default()
}

#[track_caller]
fn eventually_rejected(front: &TestFront, reason: &str) {
    eventually(reason, || (rejected(front, reason) == 1).then_some(()));
}

#[test]
fn a_request_over_tls_is_served_and_told_to_be_secure() {
    let backend = Backend::named("a");
    let front = front(Limits::default(), &[&backend]);
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let config = Arc::new(builder(versions));
        let mut client = try_connect(front.tls(), &config, "web").unwrap();
        for _ in 0..3 {
            let answer = client.send(GET).answer();
            assert_eq!((answer.status, &*answer.body), (200, "a"));
            assert_eq!(answer.field("strict-transport-security"), None);
        }
    }
    let seen = &backend.seen()[0];
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.field("x-forwarded-port"), Some("443"));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(front.ask(GET).status, 200);
    let plain = backend.seen().pop().unwrap();
    assert_eq!(plain.field("x-forwarded-proto"), Some("http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_offers_it_speaks_http_2() {
    let backend = Backend::named("a");
    let front = front(Limits::default(), &[&backend]);
    let mut config = builder(&[&TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = tokio::net::TcpStream::connect(front.tls()).await.unwrap();
    let stream = connector
        .connect("web".try_into().unwrap(), socket)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut requests: h2::client::SendRequest<Bytes> = requests.ready().await.unwrap();
    let request = hyper::Request::get("https://web/a").body(()).unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let seen = &backend.seen()[0];
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
    assert!(
        seen.head.starts_with("GET /a HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    drop(requests);
    driver.await.unwrap().unwrap();
    tokio::task::spawn_blocking(move || drop(front))
        .await
        .unwrap();
}
