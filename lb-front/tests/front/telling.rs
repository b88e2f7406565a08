//! Backends that are told by the PROXY protocol which client a connection is for, and that carries requests of no other.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use lb_front::{
    Forwarding, Limits, Settings,
    routes::RoutesChange,
    rules::{ProxyProtocol, Rules},
};

use crate::kit::{Backend, Client, GET, PATIENCE, Reply, Seen, TestFront, eventually, ok, routes};

/// What a header says: its version, and both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    how: ProxyProtocol,
    client: SocketAddr,
    own: SocketAddr,
}

/// A backend that takes a header from each connection that has one.
struct Teller {
    backend: Backend,
    /// By connection.
    told: Arc<Mutex<BTreeMap<usize, Told>>>,
}

impl Teller {
    fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let told: Arc<Mutex<BTreeMap<usize, Told>>> = Arc::default();
        let known = told.clone();
        let first = move |connection, stream: &mut TcpStream| {
            if let Some(header) = header(stream) {
                known.lock().unwrap().insert(connection, header);
            }
        };
        let backend = Backend::start_after(first, reply);
        Self { backend, told }
    }

    fn named(name: &'static str) -> Self {
        Self::start(move |_| Reply::Keep(ok(name)))
    }

    /// What the connection of the last request began with.
    fn last(&self) -> Option<Told> {
        let seen = self.backend.seen();
        self.of(seen.last().unwrap())
    }

    fn of(&self, seen: &Seen) -> Option<Told> {
        self.told.lock().unwrap().get(&seen.connection).copied()
    }

    /// How many of its connections began with a header.
    fn headers(&self) -> usize {
        self.told.lock().unwrap().len()
    }
}

/// Takes what stands before the first request.
fn header(stream: &mut TcpStream) -> Option<Told> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut begin = [0; 6];
    while stream.peek(&mut begin).unwrap_or(0) < begin.len() {
        if stream.peek(&mut begin).unwrap_or(0) == 0 {
            return None;
        }
    }
    let mut take = |length| {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    };
    match &begin {
        b"PROXY " => {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(take(1));
            }
            let line = String::from_utf8(line).unwrap();
            let words: Vec<_> = line.trim_end().split(' ').collect();
            let [_, family, client, own, of_client, of_own] = words[..] else {
                panic!("{line}");
            };
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().unwrap();
                assert_eq!(family, if ip.is_ipv4() { "TCP4" } else { "TCP6" });
                SocketAddr::new(ip, port.parse().unwrap())
            };
            Some(Told {
                how: ProxyProtocol::V1,
                client: address(client, of_client),
                own: address(own, of_own),
            })
        }
        b"\r\n\r\n\0\r" => {
            assert_eq!(take(12), b"\r\n\r\n\0\r\nQUIT\n");
            let kind = take(4);
            let ip = match kind[..] {
                [0x21, 0x11, 0, 12] => {
                    |bytes: Vec<u8>| -> IpAddr { <[u8; 4]>::try_from(bytes).unwrap().into() }
                }
                [0x21, 0x21, 0, 36] => {
                    |bytes: Vec<u8>| -> IpAddr { <[u8; 16]>::try_from(bytes).unwrap().into() }
                }
                _ => panic!("{kind:x?}"),
            };
            let length = if kind[1] == 0x11 { 4 } else { 16 };
            let (client, own) = (ip(take(length)), ip(take(length)));
            let mut port = || u16::from_be_bytes(take(2).try_into().unwrap());
            let (of_client, of_own) = (port(), port());
            Some(Told {
                how: ProxyProtocol::V2,
                client: SocketAddr::new(client, of_client),
                own: SocketAddr::new(own, of_own),
            })
        }
        _ => None,
    }
}

fn telling(how: ProxyProtocol, addresses: &[SocketAddr]) -> RoutesChange {
    let mut routes = routes(addresses);
    let web = routes.services[0].1.as_mut().unwrap();
    Arc::make_mut(web).rules = Some(Arc::new(Rules {
        proxy_protocol: Some(how),
        ..Rules::default()
    }));
    routes
}

fn front(how: ProxyProtocol, limits: Limits, backend: &Teller) -> TestFront {
    let front = TestFront::start(limits, 1);
    let routes = telling(how, &[backend.backend.address]);
    front.front.publish(&routes, &Settings::default());
    front
}

/// What a backend is to be told of `client`.
fn of(how: ProxyProtocol, client: &Client) -> Told {
    Told {
        how,
        client: client.stream.local_addr().unwrap(),
        own: client.stream.peer_addr().unwrap(),
    }
}

const HOW: [ProxyProtocol; 2] = [ProxyProtocol::V1, ProxyProtocol::V2];

#[test]
fn a_connection_begins_with_its_client_and_is_kept_for_it_alone() {
    for how in HOW {
        let backend = Teller::named("a");
        let front = front(how, Limits::default(), &backend);
        let mut clients = [(); 3].map(|()| front.client());
        for _ in 0..3 {
            for client in &mut clients {
                assert_eq!(client.send(GET).answer().body, "a");
                let told = backend.last();
                assert_eq!(told, Some(of(how, client)));
            }
        }
        let stats = front.stats();
        assert_eq!((stats.connects, stats.reused), (3, 6));
        assert_eq!(backend.headers(), 3);
    }
}

#[test]
fn clients_of_ipv6_and_of_a_listener_for_both_families_are_named_as_they_come() {
    for how in HOW {
        let backend = Teller::named("a");
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let front = TestFront::on(listener, Limits::default(), 1, PATIENCE);
        let routes = telling(how, &[backend.backend.address]);
        front.front.publish(&routes, &Settings::default());
        for host in ["[::1]", "127.0.0.1"] {
            let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
            let mut client = Client::connect(address);
            assert_eq!(client.send(GET).answer().body, "a");
            let told = of(how, &client);
            assert_eq!(told.own, address);
            assert_eq!(backend.last(), Some(told));
        }
    }
}

#[test]
fn who_is_announced_to_us_is_announced_in_turn_and_who_is_forwarded_is_not() {
    for how in HOW {
        let backend = Teller::named("a");
        let front = TestFront::start(Limits::default(), 1);
        let settings = Settings {
            forwarding: Forwarding {
                trusted_proxies: vec!["192.0.2.0/24".parse().unwrap()],
                proxy_protocol: vec!["127.0.0.1/32".parse().unwrap()],
                ..Forwarding::default()
            },
            ..Settings::default()
        };
        let routes = telling(how, &[backend.backend.address]);
        front.front.publish(&routes, &settings);
        for (family, client, own) in [
            ("TCP4", "192.0.2.7", "198.51.100.1"),
            ("TCP6", "2001:db8::7", "2001:db8::1"),
        ] {
            let mut connection = front.client();
            connection.send(format!("PROXY {family} {client} {own} 5000 443\r\n"));
            connection.send("GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
            assert_eq!(connection.answer().body, "a");
            let told = Told {
                how,
                client: SocketAddr::new(client.parse().unwrap(), 5000),
                own: SocketAddr::new(own.parse().unwrap(), 443),
            };
            assert_eq!(backend.last(), Some(told));
        }
        let seen = backend.backend.seen();
        let forwarded = seen[0].field("x-forwarded-for");
        assert_eq!(forwarded, Some("203.0.113.9, 192.0.2.7"));
        // The proxy speaks for itself.
        let mut connection = front.client();
        connection.send("PROXY UNKNOWN\r\n").send(GET);
        assert_eq!(connection.answer().body, "a");
        assert_eq!(backend.last(), Some(of(how, &connection)));
    }
}

#[test]
fn requests_of_one_client_over_http_2_are_all_announced_as_its() {
    let backend = Teller::named("a");
    let front = front(ProxyProtocol::V2, Limits::default(), &backend);
    let client = crate::h2::within(async {
        let stream = tokio::net::TcpStream::connect(front.address).await.unwrap();
        let client = stream.local_addr().unwrap();
        let mut connection = crate::h2::over(stream, &h2::client::Builder::new()).await;
        let mut answers = Vec::new();
        for _ in 0..4 {
            let mut ready = connection.requests.clone().ready().await.unwrap();
            let request = crate::h2::get("web");
            answers.push(ready.send_request(request, true).unwrap().0);
        }
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
        let answer = connection.ask(crate::h2::get("web")).await.unwrap();
        assert_eq!(answer.body, b"a");
        client
    });
    let seen = backend.backend.seen();
    assert_eq!(seen.len(), 5);
    for seen in &seen {
        assert_eq!(backend.of(seen).unwrap().client, client);
    }
    assert!(front.stats().reused > 0);
}

#[test]
fn a_tunnel_begins_with_the_header_too() {
    let backend = Teller::start(|_| {
        let switched =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        Reply::Echo(switched.into())
    });
    for how in HOW {
        let front = front(how, Limits::default(), &backend);
        let mut client = front.client();
        client.send(
            "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        client.send("hello");
        assert_eq!(client.bytes(5), b"hello");
        assert_eq!(backend.last(), Some(of(how, &client)));
    }
}

#[test]
fn what_a_client_leaves_behind_is_closed_and_makes_room_for_others_before() {
    let backend = Teller::named("a");
    let limits = Limits {
        backend_connections: 1,
        ..Limits::default()
    };
    let front = front(ProxyProtocol::V1, limits, &backend);
    let mut clients = [(); 2].map(|()| front.client());
    for _ in 0..2 {
        for client in &mut clients {
            assert_eq!(client.send(GET).answer().body, "a");
            assert_eq!(backend.last(), Some(of(ProxyProtocol::V1, client)));
        }
    }
    assert_eq!(front.stats().connects, 4);
    drop(clients);
    // Long before it is too old.
    eventually("none is left", || {
        (backend.backend.open() == 0).then_some(())
    });
}

#[test]
fn a_connection_without_a_header_and_one_with_it_never_take_each_others_place() {
    let backend = Teller::named("a");
    let front = front(ProxyProtocol::V1, Limits::default(), &backend);
    let mut client = front.client();
    let address = [backend.backend.address];
    let v2 = telling(ProxyProtocol::V2, &address);
    let v1 = telling(ProxyProtocol::V1, &address);
    for (routes, how) in [
        (&routes(&address), None),
        (&v1, Some(ProxyProtocol::V1)),
        (&v2, Some(ProxyProtocol::V2)),
        (&routes(&address), None),
        (&v1, Some(ProxyProtocol::V1)),
    ] {
        front.front.publish(routes, &Settings::default());
        assert_eq!(client.send(GET).answer().body, "a");
        let told = how.map(|how| of(how, &client));
        assert_eq!(backend.last(), told);
    }
    let stats = front.stats();
    assert_eq!((stats.connects, stats.reused), (3, 2));
}

#[test]
fn a_request_that_is_tried_again_begins_with_the_header_again() {
    let backend = Teller::start(|_| Reply::Close(ok("a")));
    let front = TestFront::start(Limits::default(), 1);
    let addresses = [crate::kit::refusing(), backend.backend.address];
    let routes = telling(ProxyProtocol::V1, &addresses);
    front.front.publish(&routes, &Settings::default());
    let mut client = front.client();
    for _ in 0..4 {
        assert_eq!(client.send(GET).answer().body, "a");
        assert_eq!(backend.last(), Some(of(ProxyProtocol::V1, &client)));
    }
    assert_eq!(backend.headers(), 4);
    assert!(front.stats().retries > 0);
}
