//! Handshakes that come to nothing, with bytes that no library sends.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use lb_front::{Limits, tls::Tls};
use rustls::{
    ClientConnection,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

use super::{connect, eventually_rejected, front, rejected, tls};
use crate::{
    kit::{Backend, Client, GET, eventually},
    tlskit::{builder, certificate, config, try_connect},
};

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
fn a_client_that_does_not_trust_us_is_counted() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    assert!(try_connect(front.tls(), &config(), "stranger.example").is_err());
    eventually_rejected(&front, "tls_alert");
}
