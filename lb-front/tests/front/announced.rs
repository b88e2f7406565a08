//! Clients that a proxy announces by the PROXY protocol, and who is not believed.

use std::{
    fs,
    io::Write,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use lb_front::{
    Forwarding, Limits, Settings,
    log::{LogFormat, LogSettings},
    routes::{RouteAccess, RoutesChange},
    tls::Tls,
};
use socket2::{Domain, Socket, Type};

use crate::{
    kit::{Backend, Client, GET, TestFront, eventually, routes},
    tlskit::{certificate, config, over, try_connect},
};

/// A front that takes the word of 127.0.0.1 alone.
fn front(limits: Limits, routes: &RoutesChange, log: LogSettings) -> TestFront {
    let front = TestFront::start(limits, 1);
    let settings = Settings {
        forwarding: Forwarding {
            proxy_protocol: vec!["127.0.0.1/32".parse().unwrap()],
            ..Forwarding::default()
        },
        log,
        ..Settings::default()
    };
    front.front.publish(routes, &settings);
    front
}

fn of(backend: &Backend) -> TestFront {
    let routes = routes(&[backend.address]);
    front(Limits::default(), &routes, LogSettings::default())
}

/// A connection from `source`.
fn from(source: [u8; 4], front: &TestFront) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&front.address.into()).unwrap();
    Client::over(socket.into())
}

fn line(client: &str) -> String {
    format!("PROXY TCP4 {client} 198.51.100.1 5000 80\r\n")
}

fn binary(command: u8, kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [
        &b"\r\n\r\n\0\r\nQUIT\n"[..],
        &[command, kind],
        &length[..],
        content,
    ]
    .concat()
}

/// Every kind of header, and who the client is then.
fn headers() -> Vec<(Vec<u8>, &'static str)> {
    let four = [192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 0, 80];
    let mut six = [0; 36];
    (six[0], six[1], six[15]) = (0x20, 1, 7);
    // Something of a load balancer's own.
    let more = [&four[..], &[0xea, 0, 3, 1, 2, 3]].concat();
    vec![
        (line("192.0.2.7").into(), "192.0.2.7"),
        (b"PROXY TCP6 2001::7 ::1 1 2\r\n".to_vec(), "2001::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (binary(0x21, 0x11, &four), "192.0.2.7"),
        (binary(0x21, 0x11, &more), "192.0.2.7"),
        (binary(0x21, 0x21, &six), "2001::7"),
        (binary(0x20, 0, b""), "127.0.0.1"),
    ]
}

#[test]
fn the_client_is_whom_the_header_names_for_as_long_as_the_connection_lives() {
    let backend = Backend::named("a");
    let front = of(&backend);
    for (header, client) in headers() {
        let mut connection = front.client();
        connection.send([&header[..], GET.as_bytes()].concat());
        assert_eq!(connection.answer().status, 200, "{header:?}");
        connection.send(GET);
        assert_eq!(connection.answer().status, 200);
        for seen in backend.seen().iter().rev().take(2) {
            assert_eq!(seen.field("x-forwarded-for"), Some(client), "{header:?}");
        }
    }
}

#[test]
fn a_header_may_come_byte_by_byte_and_long_before_the_request() {
    let backend = Backend::named("a");
    let front = of(&backend);
    for (header, client) in headers() {
        let mut connection = front.client();
        connection.stream.set_nodelay(true).unwrap();
        let (last, bytes) = header.split_last().unwrap();
        for byte in bytes {
            connection.send([*byte]);
        }
        // The front has it, and waits.
        let known = front.stats().accepted;
        connection.send([*last]);
        eventually("the header is read", || {
            (front.stats().accepted > known).then_some(())
        });
        connection.send(GET);
        assert_eq!(connection.answer().body, "a");
        let seen = backend.seen().pop().unwrap();
        assert_eq!(seen.field("x-forwarded-for"), Some(client), "{header:?}");
    }
}

#[test]
fn who_is_not_believed_is_not_read() {
    let backend = Backend::named("a");
    let front = of(&backend);
    let mut other = from([127, 0, 0, 2], &front);
    assert_eq!(other.send(GET).answer().status, 200);
    let seen = backend.seen().pop().unwrap();
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.2"));
    for (header, _) in headers() {
        let mut other = from([127, 0, 0, 2], &front);
        other.send([&header[..], GET.as_bytes()].concat());
        // An empty line before the request is legal, and all that hyper sees of some.
        let status = other.head();
        assert!(status.starts_with("HTTP/1.1 400 "), "{status}");
    }
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn access_and_the_bound_for_one_client_go_by_who_is_announced() {
    let backend = Backend::named("a");
    let mut routes = routes(&[backend.address]);
    let service = routes.services[0].1.as_mut().unwrap();
    Arc::make_mut(service).access = Some(RouteAccess {
        host: false,
        allow: vec!["192.0.2.0/24".parse().unwrap()],
        deny: Vec::new(),
    });
    let limits = Limits {
        connections_per_client: 2,
        ..Limits::default()
    };
    let front = front(limits, &routes, LogSettings::default());
    let client = |address: &str, status| {
        let mut client = front.client();
        client.send(line(address)).send(GET);
        assert_eq!(client.answer().status, status, "{address}");
        client
    };
    let _held = [
        client("192.0.2.7", 200),
        client("192.0.2.7", 200),
        client("192.0.2.8", 200),
        client("192.0.3.7", 403),
    ];
    let mut third = front.client();
    third.send(line("192.0.2.7"));
    assert_eq!(third.rest(), b"");
    assert_eq!(front.stats().rejected["client_connections"], 1);
}

#[test]
fn what_is_no_header_is_refused_and_told_and_a_look_at_the_port_is_not() {
    let backend = Backend::named("a");
    let limits = Limits {
        first_byte: Duration::from_millis(300),
        ..Limits::default()
    };
    let log = LogSettings {
        format: Some(LogFormat::Common),
        ..LogSettings::default()
    };
    let front = front(limits, &routes(&[backend.address]), log);
    let name = format!("lb-front-announced-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    front.front.log().write_to(fs::File::create(&path).unwrap());
    let refused = || front.stats().rejected.get("bad_proxy_header").copied();
    drop(front.client());
    // Nothing comes.
    assert_eq!(front.client().rest(), b"");
    assert_eq!(refused(), None);
    let wrong: [&[u8]; 4] = [
        GET.as_bytes(),
        b"PROXY TCP4 192.0.2.7\r\n",
        &binary(0x21, 0x11, &[0; 5000]),
        // No more comes.
        b"PROXY TC",
    ];
    for (count, bytes) in (1..).zip(wrong) {
        let mut client = front.client();
        client.send(bytes);
        eventually("it is counted", || (refused() == Some(count)).then_some(()));
        // The end, or a reset where bytes were left.
        let mut piece = [0; 8];
        let read = std::io::Read::read(&mut client.stream, &mut piece);
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let lines = eventually("the lines are there", || {
        let text = fs::read_to_string(&path).unwrap();
        (text.lines().count() == 4).then_some(text)
    });
    for line in lines.lines() {
        assert!(line.starts_with("127.0.0.1 "), "{line}");
        let told = r#""-" - 0 bad_request:bad_proxy_header PR "#;
        assert!(line.contains(told), "{line}");
    }
    fs::remove_file(path).unwrap();
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn http_2_may_follow() {
    let backend = Backend::named("a");
    let front = of(&backend);
    crate::h2::within(async {
        let mut stream = tokio::net::TcpStream::connect(front.address).await.unwrap();
        let header = line("192.0.2.7");
        let header = header.as_bytes();
        tokio::io::AsyncWriteExt::write_all(&mut stream, header)
            .await
            .unwrap();
        let mut connection = crate::h2::over(stream, &h2::client::Builder::new()).await;
        let answer = connection.ask(crate::h2::get("web")).await.unwrap();
        assert_eq!(answer.body, b"a");
    });
    let seen = backend.seen().pop().unwrap();
    let client: IpAddr = seen.field("x-forwarded-for").unwrap().parse().unwrap();
    assert_eq!(client, IpAddr::from([192, 0, 2, 7]));
}

#[test]
fn tls_may_follow_and_its_client_is_the_one_in_the_header() {
    let backend = Backend::named("a");
    let front = TestFront::with_tls(Limits::default(), &[&backend]);
    let tls = Tls {
        certificates: vec![certificate(&["web"])],
        ..Tls::default()
    };
    front.front.present(&tls).unwrap();
    let settings = Settings {
        forwarding: Forwarding {
            proxy_protocol: vec!["127.0.0.1/32".parse().unwrap()],
            ..Forwarding::default()
        },
        ..Settings::default()
    };
    front.front.publish(&routes(&[backend.address]), &settings);
    for (header, client) in headers() {
        let mut socket = TcpStream::connect(front.tls()).unwrap();
        socket.write_all(&header).unwrap();
        let mut connection = over(socket, &config(), "web").unwrap();
        for _ in 0..2 {
            assert_eq!(connection.send(GET).answer().body, "a");
            let seen = backend.seen().pop().unwrap();
            assert_eq!(seen.field("x-forwarded-for"), Some(client), "{header:?}");
            assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
        }
    }
    // Without a header there is no handshake; behind TLS it is no header.
    assert!(try_connect(front.tls(), &config(), "web").is_err());
    let refused = front.stats().rejected["bad_proxy_header"];
    assert_eq!(refused, 1);
    let mut socket = TcpStream::connect(front.tls()).unwrap();
    socket.write_all(line("192.0.2.7").as_bytes()).unwrap();
    let mut connection = over(socket, &config(), "web").unwrap();
    connection.send(line("192.0.2.8")).send(GET);
    assert!(connection.head().starts_with("HTTP/1.1 400 "));
    assert_eq!(backend.seen().len(), 2 * headers().len());
}
