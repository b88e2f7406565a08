//! TLS towards clients, with a real client of the same library, and with bytes that no library sends.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use lb_front::{
    HttpsSettings, Limits, Settings,
    rules::{Redirect, Target},
    tls::{Certificate, Tls},
};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ED25519};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore,
    crypto::ring,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

use crate::{
    kit::{Backend, Client, GET, Reply, TestFront, eventually, ok, routes},
    tlskit::{
        Stream, anybody, authority, builder, certificate, certificate_with, config, leaf, shown,
        try_connect,
    },
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

#[test]
fn the_name_that_a_client_asks_for_decides_which_certificate_it_gets() {
    let backend = Backend::named("a");
    let front = TestFront::with_tls(Limits::default(), &[&backend]);
    let first = certificate(&["first.example"]);
    let wild = certificate(&["*.apps.example"]);
    let exact = certificate(&["www.apps.example", "other.example"]);
    front.front.present(&tls(&[&first, &wild, &exact])).unwrap();
    // A stranger's certificate is what the test asks for, too.
    let config = Arc::new(anybody());
    for (name, expected) in [
        ("first.example", &first),
        ("any.apps.example", &wild),
        ("WWW.apps.example", &exact),
        ("other.example", &exact),
        // One label, and no fewer.
        ("a.b.apps.example", &first),
        ("apps.example", &first),
        ("stranger.example", &first),
        // An address is not asked for.
        ("127.0.0.1", &first),
    ] {
        let client = try_connect(front.tls(), &config, name).unwrap();
        assert_eq!(shown(&client), leaf(expected), "{name}");
    }
    // Which certificate it was does not decide who answers.
    let mut client = try_connect(front.tls(), &config, "stranger.example").unwrap();
    assert_eq!(client.send(GET).answer().body, "a");
}

#[test]
fn of_two_certificates_for_a_name_the_client_gets_one_that_it_can_read() {
    let front = TestFront::with_tls(Limits::default(), &[&Backend::named("a")]);
    let modern = certificate_with(&["web"], &PKCS_ED25519);
    let usual = certificate(&["web"]);
    front.front.present(&tls(&[&modern, &usual])).unwrap();
    let mut provider = ring::default_provider();
    let client = try_connect(front.tls(), &config(), "web").unwrap();
    assert_eq!(shown(&client), leaf(&modern));
    // This one knows nothing of Ed25519.
    static ONLY: OnceLock<rustls::crypto::WebPkiSupportedAlgorithms> = OnceLock::new();
    let known = provider.signature_verification_algorithms;
    let only = ONLY.get_or_init(|| {
        let ecdsa = |it: &&(rustls::SignatureScheme, _)| {
            it.0 == rustls::SignatureScheme::ECDSA_NISTP256_SHA256
        };
        let mapping: Vec<_> = known.mapping.iter().filter(ecdsa).copied().collect();
        rustls::crypto::WebPkiSupportedAlgorithms {
            all: known.all,
            mapping: Vec::leak(mapping),
        }
    });
    provider.signature_verification_algorithms = *only;
    let mut roots = RootCertStore::empty();
    roots.add(authority().certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = try_connect(front.tls(), &Arc::new(config), "web").unwrap();
    assert_eq!(shown(&client), leaf(&usual));
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

#[test]
fn who_offers_http_1_gets_it_and_who_offers_neither_is_refused() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let mut old = builder(&[&TLS13]);
    old.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut client = try_connect(front.tls(), &Arc::new(old), "web").unwrap();
    assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(client.send(GET).answer().status, 200);
    let mut other = builder(&[&TLS13]);
    other.alpn_protocols = vec![b"imap".to_vec()];
    assert!(try_connect(front.tls(), &Arc::new(other), "web").is_err());
    eventually_rejected(&front, "tls_no_agreement");
}

#[test]
fn old_versions_are_refused_with_an_alert() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    for version in [1, 2] {
        let mut client = Client::connect(front.tls());
        let alert = client.send(old_hello(version)).rest();
        // A fatal alert: of the handshake, for what every hello since TLS 1.2 has, or of the version.
        assert_eq!((alert[0], alert[5]), (0x15, 2), "{version}");
        assert!([40, 70].contains(&alert[6]), "{alert:?}");
    }
    eventually("both are counted", || {
        (rejected(&front, "tls_no_agreement") == 2).then_some(())
    });
    let newest = Tls {
        only_1_3: true,
        ..tls(&[&certificate(&["web"])])
    };
    front.front.present(&newest).unwrap();
    assert!(try_connect(front.tls(), &Arc::new(builder(&[&TLS12])), "web").is_err());
    assert!(try_connect(front.tls(), &Arc::new(builder(&[&TLS13])), "web").is_ok());
}

/// A ClientHello of TLS 1.0 or 1.1: without extensions, and with a cipher that was known then.
fn old_hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    handshake(1, &hello)
}

/// A handshake message in one record.
fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut message = vec![kind];
    message.extend(&length[1..]);
    message.extend(body);
    record(&message)
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let mut record = vec![0x16, 3, 1];
    record.extend(length);
    record.extend(bytes);
    record
}

#[test]
fn plain_http_is_told_that_it_needs_tls() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let answer = Client::connect(front.tls()).send(GET).answer();
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.body,
        "bad_request: this port speaks TLS; ask with https:\n"
    );
    assert_eq!(answer.field("connection"), Some("close"));
    eventually_rejected(&front, "tls_plain_http");
    // And the other way round.
    let mut client = front.client();
    let answer = client.send(old_hello(3)).answer();
    assert_eq!(answer.status, 400);
}

#[test]
fn garbage_and_hellos_without_an_end_are_refused() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    // No type of a record, and a first record of another type.
    for garbage in [
        &[0x80; 64][..],
        b"\x17\x03\x03\x00\x04abcd",
        b"\x16\x03\x01\xff\xff",
    ] {
        let alert = Client::connect(front.tls()).send(garbage).rest();
        assert_eq!(alert[0], 0x15, "{garbage:?}");
    }
    // A message of 16 MB, as far as it announces. It is not waited for, nor kept.
    let mut client = Client::connect(front.tls());
    let mut message = vec![1, 0xff, 0xff, 0xff];
    message.resize(16 * 1024, 0);
    for _ in 0..64 {
        client.send(record(&message));
        message.fill(0);
    }
    let mut rest = Vec::new();
    // We send on while it closes: a reset is an end, too.
    let _ = client.stream.read_to_end(&mut rest);
    eventually("all are counted", || {
        (rejected(&front, "tls_malformed") == 4).then_some(())
    });
    let mut client = connect(&front);
    assert_eq!(client.send(GET).answer().status, 200);
}

#[test]
fn who_begins_and_does_not_go_on_is_left_in_time() {
    let limits = Limits {
        first_byte: Duration::from_millis(300),
        head: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = front(limits, &[&Backend::named("a")]);
    assert_eq!(Client::connect(front.tls()).rest(), b"");
    // A client that only connects is no failure.
    assert_eq!(front.stats().rejected.len(), 0);
    let hello = hello();
    let mut slow = Client::connect(front.tls());
    let pause = Duration::from_millis(20);
    slow.stream.set_read_timeout(Some(pause)).unwrap();
    // A byte now and then does not help.
    let mut bytes = hello.iter();
    loop {
        slow.send([*bytes.next().expect("an end before that of the hello")]);
        match slow.stream.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
    eventually_rejected(&front, "tls_timeout");
    // Silence behind the hello.
    let mut silent = Client::connect(front.tls());
    silent.send(&hello[..100]);
    let mut rest = Vec::new();
    let _ = silent.stream.read_to_end(&mut rest);
    eventually("it is counted, too", || {
        (rejected(&front, "tls_timeout") == 2).then_some(())
    });
}

/// What a client begins with.
fn hello() -> Vec<u8> {
    let name = ServerName::try_from("web").unwrap();
    let mut client = ClientConnection::new(config(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn without_a_certificate_nobody_is_served() {
    let backend = Backend::named("a");
    let front = TestFront::with_tls(Limits::default(), &[&backend]);
    assert!(try_connect(front.tls(), &config(), "web").is_err());
    eventually_rejected(&front, "tls_no_certificate");
    front.front.present(&Tls::default()).unwrap();
    assert!(try_connect(front.tls(), &config(), "web").is_err());
    eventually("both are counted", || {
        (rejected(&front, "tls_no_certificate") == 2).then_some(())
    });
    assert_eq!(front.ask(GET).body, "a");
}

#[test]
fn an_authority_is_shown_the_proof_for_the_name_it_asks_for_and_nobody_else_is() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let mut params = CertificateParams::new(["shop.example".to_owned()]).unwrap();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&[7; 32])];
    let key = KeyPair::generate().unwrap();
    let proof = Certificate {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    };
    let usual = certificate(&["web"]);
    let mut shown_from_now_on = tls(&[&usual]);
    shown_from_now_on.proofs = vec![("Shop.example".into(), proof.clone())];
    front.front.present(&shown_from_now_on).unwrap();
    let mut looking = anybody();
    looking.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let looking = Arc::new(looking);
    let client = try_connect(front.tls(), &looking, "shop.example").unwrap();
    assert_eq!(shown(&client), leaf(&proof));
    assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    assert!(try_connect(front.tls(), &looking, "web").is_err());
    let anybody = Arc::new(anybody());
    let client = try_connect(front.tls(), &anybody, "shop.example").unwrap();
    assert_eq!(shown(&client), leaf(&usual));
}

#[test]
fn a_client_that_does_not_trust_us_is_counted() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    assert!(try_connect(front.tls(), &config(), "stranger.example").is_err());
    eventually_rejected(&front, "tls_alert");
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_those_before() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let mut broken = certificate(&["web"]);
    broken.key = certificate(&["web"]).key;
    front.front.present(&tls(&[&broken])).unwrap_err();
    assert_eq!(connect(&front).send(GET).answer().status, 200);
}

#[test]
fn nothing_takes_the_place_of_a_certificate_that_is_shown() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    front.front.present(&Tls::default()).unwrap();
    assert_eq!(connect(&front).send(GET).answer().status, 200);
}

#[test]
fn the_last_bytes_are_followed_by_the_notice_that_they_are() {
    let limits = Limits {
        keep_alive: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = front(limits, &[&Backend::named("a")]);
    // `rest` takes no end without the notice.
    let mut client = connect(&front);
    let answer = client
        .send("GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        .answer();
    assert_eq!((&*answer.body, client.rest()), ("a", Vec::new()));
    let mut idle = connect(&front);
    assert_eq!(idle.send(GET).answer().body, "a");
    assert_eq!(idle.rest(), b"");
    let mut refused = connect(&front);
    assert_eq!(refused.send("GET / HTTP/1.1\n\n").answer().status, 400);
    assert_eq!(refused.rest(), b"");
    let long = format!("GET /{} HTTP/1.1\r\nHost: web\r\n\r\n", "a".repeat(40_000));
    let mut refused = connect(&front);
    assert_eq!(refused.send(long).answer().status, 414);
    assert_eq!(refused.rest(), b"");
}

#[test]
fn a_silent_connection_ends_with_the_notice_too() {
    let limits = Limits {
        keep_alive: Duration::from_millis(1500),
        ..Limits::default()
    };
    let front = front(limits, &[&Backend::named("a")]);
    let mut client = connect(&front);
    for _ in 0..2 {
        assert_eq!(client.send(GET).answer().body, "a");
        // Until hyper was given up, and is there again.
        thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(client.rest(), b"");
}

#[test]
fn who_has_closed_its_half_still_gets_the_answer() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let mut client = connect(&front);
    client.send(GET);
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.answer().body, "a");
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_body_that_is_cut_off_is_no_body() {
    let backend = Backend::start(|seen| Reply::Keep(ok(&format!("{}", seen.body.len()))));
    let front = front(Limits::default(), &[&backend]);
    for with_notice in [false, true] {
        let mut client = connect(&front);
        client.send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc");
        if with_notice {
            client.stream.conn.send_close_notify();
            client.stream.flush().unwrap();
        }
        client.stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = client.stream.sock.read_to_end(&mut rest);
    }
    eventually("the backend is rid of both", || {
        (backend.open() == 0).then_some(())
    });
    let complete = backend
        .seen()
        .into_iter()
        .filter(|seen| seen.body.ends_with(b"0\r\n\r\n"));
    assert_eq!(complete.count(), 0);
}

#[test]
fn a_large_body_passes_both_ways() {
    let backend = Backend::start(|seen| Reply::Keep(ok(&String::from_utf8_lossy(&seen.body))));
    let front = front(Limits::default(), &[&backend]);
    let body = "0123456789".repeat(200_000);
    let mut client = connect(&front);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(client.answer().body == body);
}

#[test]
fn what_a_client_takes_late_has_not_been_lost_meanwhile() {
    let body = "0123456789".repeat(800_000);
    let length = body.len();
    let backend = Backend::start(move |_| Reply::Keep(ok(&body)));
    let front = front(Limits::default(), &[&backend]);
    let mut client = connect(&front);
    client.send(GET);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut left = length;
    // So that the last bytes, which TLS keeps back, wait for longer than a silent client has hyper.
    while left > 0 {
        if left == 100_000 {
            thread::sleep(Duration::from_millis(1500));
        }
        let piece = if left > 100_000 {
            (left - 100_000).min(50_000)
        } else {
            left.min(1000)
        };
        left -= client.bytes(piece).len();
    }
    assert_eq!(client.send(GET).head().split(' ').nth(1), Some("200"));
}

#[test]
fn who_takes_nothing_is_left_in_time() {
    let backend = Backend::start(|_| Reply::Keep(ok(&"0123456789".repeat(1_000_000))));
    let limits = Limits {
        write_stall: Duration::from_millis(500),
        ..Limits::default()
    };
    let front = front(limits, &[&backend]);
    let mut client = connect(&front);
    client.send(GET);
    eventually("the connection is over", || {
        (front.stats().open == 0).then_some(())
    });
    drop(client);
}

#[test]
fn a_tunnel_goes_through_tls() {
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let backend = Backend::start(move |_| Reply::Echo(switched.into()));
    let front = front(Limits::default(), &[&backend]);
    let mut client = connect(&front);
    let asked = "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(client.send(asked).head().starts_with("HTTP/1.1 101 "));
    for message in ["one", "another"] {
        assert_eq!(
            client.send(message).bytes(message.len()),
            message.as_bytes()
        );
    }
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.rest(), b"");
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn a_client_that_comes_again_need_not_be_shown_everything_again() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let config = config();
    let kinds = || {
        let mut client = try_connect(front.tls(), &config, "web").unwrap();
        // The tickets come with the answer.
        assert_eq!(client.send(GET).answer().status, 200);
        client.stream.conn.handshake_kind().unwrap()
    };
    assert_eq!(kinds(), HandshakeKind::Full);
    assert_eq!(kinds(), HandshakeKind::Resumed);
    front
        .front
        .present(&tls(&[&certificate(&["web"])]))
        .unwrap();
    assert_eq!(kinds(), HandshakeKind::Resumed);
}

#[test]
fn certificates_change_under_load_without_a_failed_request() {
    let backend = Backend::named("a");
    let front = front(Limits::default(), &[&backend]);
    let (one, other) = (certificate(&["web"]), certificate(&["web"]));
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut kept = connect(&front);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut client = connect(&front);
                    for _ in 0..3 {
                        assert_eq!(client.send(GET).answer().status, 200);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for change in 0..40 {
            let next = if change % 2 == 0 { &one } else { &other };
            front.front.present(&tls(&[next])).unwrap();
            assert_eq!(shown(&connect(&front)), leaf(next));
            assert_eq!(kept.send(GET).answer().status, 200);
            let so_far = served.load(Ordering::Relaxed);
            eventually("requests go on", || {
                (served.load(Ordering::Relaxed) > so_far).then_some(())
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(front.stats().rejected.len(), 0);
}

#[test]
fn plain_http_is_sent_to_https_and_told_to_stay_there() {
    let backend = Backend::named("a");
    let front = front(Limits::default(), &[&backend]);
    let https = HttpsSettings {
        redirect: Some(Redirect {
            status: 308,
            to: Target::Https(Some(8443)),
        }),
        hsts: Some("max-age=600".into()),
    };
    let mut settings = Settings {
        https,
        ..Settings::default()
    };
    let routes = routes(&[backend.address]);
    front.front.publish(&routes, &settings);
    let answer = front.ask("GET /a?b HTTP/1.1\r\nHost: web:8080\r\n\r\n");
    assert_eq!(answer.status, 308);
    assert_eq!(answer.field("location"), Some("https://web:8443/a?b"));
    // Whoever listens in could have written it (RFC 6797 section 7.2).
    assert_eq!(answer.field("strict-transport-security"), None);
    // No name, no place to go.
    assert_eq!(
        front.ask("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").status,
        503
    );
    assert_eq!(backend.seen().len(), 0);
    let mut client = connect(&front);
    let answer = client.send(GET).answer();
    assert_eq!((answer.status, &*answer.body), (200, "a"));
    assert_eq!(
        answer.field("strict-transport-security"),
        Some("max-age=600")
    );
    let refused = client
        .send("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n")
        .answer();
    assert_eq!(
        refused.field("strict-transport-security"),
        Some("max-age=600")
    );
    // Behind a proxy that is believed.
    settings.forwarding.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    front.front.publish(&routes, &settings);
    let told = "GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert_eq!(front.ask(told).status, 200);
    let told = "GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-Proto: http\r\n\r\n";
    assert_eq!(connect(&front).send(told).answer().status, 308);
}

#[test]
fn a_service_that_says_more_itself_is_left_to_it() {
    let own =
        "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n";
    let backend = Backend::start(move |_| Reply::Keep(own.into()));
    let front = front(Limits::default(), &[&backend]);
    let mut settings = Settings::default();
    settings.https.hsts = Some("max-age=600".into());
    front.front.publish(&routes(&[backend.address]), &settings);
    let answer = connect(&front).send(GET).answer();
    let all = answer.head.matches("trict-").count();
    assert_eq!(
        (answer.field("strict-transport-security"), all),
        (Some("max-age=1"), 1)
    );
}

#[test]
fn a_front_that_drains_ends_idle_connections_with_the_notice() {
    let mut front = front(Limits::default(), &[&Backend::named("a")]);
    let mut client = connect(&front);
    assert_eq!(client.send(GET).answer().status, 200);
    let drained = front.drain();
    assert_eq!(client.rest(), b"");
    drained.join().unwrap();
}
