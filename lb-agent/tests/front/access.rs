//! Which clients a service lets in, in a namespace whose addresses are those of a host and of others.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
};

use lb_agent::{
    options::{Access, Rule},
    routes::{Follower, RouteConfig},
    snapshot::{ServiceName, Snapshot},
};
use lb_front::{Front, Limits, Reason, Settings};
use lb_testkit::Netns;

use crate::{
    kit::{Backend, Client, GET, PATIENCE, TestFront},
    snapshots::snapshot,
};

/// Of the host.
const OWN: &str = "10.9.0.1";
const NEAR: &str = "10.9.1.2";
const WORLD: &str = "203.0.113.7";
const LOOPBACK: &str = "127.0.0.1";

fn net(text: &str) -> Rule {
    Rule::Net(text.parse().unwrap())
}

/// The service `web` at `backend` with these rules.
fn ruled(backend: &Backend, allow: &[Rule], deny: &[Rule]) -> Snapshot {
    let mut snapshot = snapshot(&[backend.address]);
    let name = ServiceName::whole("web");
    let mut web = snapshot.services.remove(&name).unwrap();
    Arc::make_mut(&mut web).options.access = Access {
        allow: allow.to_vec(),
        deny: deny.to_vec(),
    };
    snapshot.services.insert(name, web);
    snapshot
}

/// What a client at `from` is answered at `to`.
fn ask(from: &str, to: SocketAddr, request: &str) -> (u16, String) {
    let kind = socket2::Domain::IPV4;
    let socket = socket2::Socket::new(kind, socket2::Type::STREAM, None).unwrap();
    let from: IpAddr = from.parse().unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut client = Client::over(socket.into());
    let answer = client.send(request).answer();
    (answer.status, answer.body)
}

#[test]
fn rules_hold_for_the_address_that_a_client_comes_from() {
    let netns = Netns::new("front-access").unwrap();
    for address in [OWN, NEAR, WORLD] {
        netns.ip(&format!("addr add {address}/32 dev lo")).unwrap();
    }
    let judged = netns.enter(|| {
        let backend = Backend::named("a");
        let front = TestFront::on(
            TcpListener::bind("0.0.0.0:0").unwrap(),
            Limits::default(),
            1,
            PATIENCE,
        );
        let to = SocketAddr::from(([127, 0, 0, 1], front.address.port()));
        let mut follower = Follower::new(RouteConfig::default());
        let own = [OWN.parse().unwrap()].into();
        let mut before = Snapshot::default();
        let mut follow = |front: &Front, after: Snapshot| {
            let change = follower.follow(&before, &after, &own);
            match before.services.is_empty() {
                true => front.publish(&change, &Settings::default()),
                false => front.change(&change),
            }
            before = after;
        };
        let none: &[Rule] = &[];
        for (allow, deny, let_in) in [
            (none, none, &[OWN, NEAR, WORLD, LOOPBACK][..]),
            (none, &[net("10.9.0.0/16")], &[WORLD, LOOPBACK]),
            (&[net("10.9.0.0/16")], none, &[NEAR]),
            (
                &[net("10.9.0.0/16"), Rule::Host],
                none,
                &[OWN, NEAR, LOOPBACK],
            ),
            (none, &[Rule::Host], &[NEAR, WORLD]),
            (none, &[Rule::Network("x".to_owned())], &[OWN, LOOPBACK]),
            (&[Rule::Network("x".to_owned())], none, &[]),
        ] {
            // Nothing but an option changes.
            follow(&front.front, ruled(&backend, allow, deny));
            for from in [OWN, NEAR, WORLD, LOOPBACK] {
                let (status, body) = ask(from, to, GET);
                let expected = if let_in.contains(&from) { 200 } else { 403 };
                assert_eq!(status, expected, "{from} {allow:?} {deny:?}");
                if status == 403 {
                    assert!(body.starts_with("denied"), "{body}");
                }
            }
        }
        // Who is kept out reaches no backend, whoever the client says it is; and another name has its own rules.
        let seen = backend.seen().len();
        follow(&front.front, ruled(&backend, &[net("10.9.1.2/32")], none));
        let forged = format!("GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: {NEAR}\r\n\r\n");
        assert_eq!(ask(WORLD, to, &forged).0, 403);
        assert_eq!(backend.seen().len(), seen);
        assert_eq!(ask(WORLD, to, &GET.replace("web", "down")).0, 503);
        assert_eq!(ask(NEAR, to, &forged).0, 200);
        front.stats().ended(Reason::Denied)
    });
    assert_eq!(judged.unwrap(), 2 + 3 + 1 + 2 + 2 + 4 + 1);
}

#[test]
fn a_client_that_is_kept_out_keeps_its_connection() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let change = Follower::new(RouteConfig::default()).follow(
        &Snapshot::default(),
        &ruled(&backend, &[], &[Rule::Host]),
        &[].into(),
    );
    front.front.publish(&change, &Settings::default());
    let mut client = front.client();
    assert_eq!(client.send(GET).answer().status, 403);
    assert_eq!(client.send(GET).answer().status, 403);
    let upload = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\n";
    let refused = client.send(upload).answer();
    assert_eq!(refused.status, 403);
    assert_eq!(refused.field("connection"), Some("close"));
    assert!(backend.seen().is_empty());
}
