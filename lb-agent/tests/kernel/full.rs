//! Maps that are full: what fits works, and what does not is told and comes when there is room.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use lb_agent::desired::{Desired, Share};
use lb_common::{
    ANY_PORT, Balance, Be32, Client, FIRST_OWN_VIEW, HOST_VIEW, OUTSIDE_VIEW, PROTO_TCP,
    ServiceKey, flag,
};

use super::world::{VIP, World, endpoint};

/// One more than the maps of the test's world have room for.
const TOO_MANY: u8 = 65;

fn vip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 8, n)
}

/// A service for each of these, each with a backend.
fn services(of: impl Iterator<Item = (u8, SocketAddr)>) -> Desired {
    let mut desired = Desired {
        complete: true,
        ..Desired::default()
    };
    for (n, backend) in of {
        let vip = Be32::from_host(vip(n).into());
        let key = ServiceKey::new(vip, ANY_PORT, PROTO_TCP, HOST_VIEW);
        let served = endpoint(Balance::LeastConn, &[backend]);
        desired.services.insert(key, served);
        let share = Share {
            weight: 1,
            counted_at: backend,
        };
        desired.backends.insert(backend, share);
    }
    desired
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// The VIPs that refuse.
fn refusing(world: &World) -> Vec<u8> {
    let refused = |n: &u8| match world.connect(vip(*n), 80) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            true
        }
    };
    (1..=TOO_MANY).filter(refused).collect()
}

#[test]
fn of_too_many_services_all_but_the_last_work_and_that_one_comes_when_another_goes() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    let all = services((1..=TOO_MANY).map(|n| (n, backend)));
    let problems = world.bring_to(&all, Instant::now());
    let [problem] = &problems[..] else {
        panic!("{problems:?}");
    };
    assert!(
        problem.to_string().contains("raise limits.services"),
        "{problem}"
    );
    let refused = refusing(&world);
    assert_eq!(refused.len(), 1, "{refused:?}");
    let other = refused[0] % TOO_MANY + 1;
    let fewer = services((1..=TOO_MANY).filter(|&n| n != other).map(|n| (n, backend)));
    // The place of the one that goes has to rest first.
    assert_eq!(world.bring_to(&fewer, Instant::now()).len(), 1);
    assert_eq!(world.bring_to(&fewer, later()), vec![]);
    assert_eq!(refusing(&world), [other]);
}

#[test]
fn of_too_many_backends_all_but_the_last_are_used_and_that_one_comes_when_another_goes() {
    let mut world = World::new();
    let (_listeners, backends): (Vec<_>, Vec<_>) =
        (1..=TOO_MANY).map(|n| world.listen([127, 0, 1, n])).unzip();
    let mut all = services((1..).zip(backends.iter().copied()).take(32));
    let rest = services((33..=TOO_MANY).zip(backends[32..].iter().copied()));
    // Half of them in services of their own, the others in one.
    let key = ServiceKey::new(
        Be32::from_host(vip(1).into()),
        ANY_PORT,
        PROTO_TCP,
        HOST_VIEW,
    );
    let shared = endpoint(Balance::RoundRobin, &backends[32..]);
    all.services.insert(key, shared);
    all.backends.extend(rest.backends);
    let problems = world.bring_to(&all, Instant::now());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].to_string().contains("raise limits.backends"),
        "{problems:?}"
    );
    for n in 1..=32 {
        world.connect(vip(n), 80).unwrap();
    }
    let left_out = *backends
        .iter()
        .find(|it| !world.installed.backends.contains_key(it))
        .unwrap();
    assert!(
        problems[0].to_string().contains(&left_out.to_string()),
        "{problems:?}"
    );
    // Those of the first service that are there take all its flows.
    for _ in 0..64 {
        world.connect(vip(1), 80).unwrap();
    }
    let fewer = services([(1, left_out)].into_iter());
    assert_eq!(world.bring_to(&fewer, later()).len(), 1);
    // What has rested is freed by one plan and given out by the next.
    let much_later = later() + Duration::from_secs(60);
    world.bring_to(&fewer, much_later);
    assert_eq!(world.bring_to(&fewer, much_later), vec![]);
    world.connect(vip(1), 80).unwrap();
    assert!(world.installed.backends.contains_key(&left_out));
}

#[test]
fn of_too_many_clients_those_that_fit_are_known_and_room_is_used_at_once() {
    let mut world = World::new();
    let (_listener, host) = world.listen([127, 0, 0, 2]);
    let key = ServiceKey::new(Be32::from_host(VIP.into()), ANY_PORT, PROTO_TCP, HOST_VIEW);
    let view = FIRST_OWN_VIEW + 1;
    let mut denied = endpoint(Balance::LeastConn, &[]);
    denied.flags = flag::DENIED;
    world.put(key.seen_from(view), denied);
    let mut open = endpoint(Balance::LeastConn, &[host]);
    open.flags = flag::VIEWS;
    world.put(key, open);

    let client = Client {
        view,
        otherwise: OUTSIDE_VIEW,
    };
    let own = world.cookie();
    // Cookies that no namespace will ever have; the own one is before them.
    let strangers = u64::MAX - 4096..u64::MAX;
    let mut told = BTreeMap::new();
    let mut clients: BTreeMap<_, _> = strangers.map(|cookie| (cookie, client)).collect();
    clients.insert(own, client);
    let error = world.maps.set_clients(&mut told, &clients).unwrap_err();
    assert_eq!(error.to_string(), "cannot write map CLIENTS");
    assert_eq!(told.len(), 4096);
    assert_eq!(world.maps.clients().unwrap(), told);
    world.connect(VIP, 80).unwrap_err();
    // Others come as some go: however many there were.
    let fewer = |it: u64| (it, client);
    let fewer: BTreeMap<_, _> = (1 << 60..(1 << 60) + 4095).map(fewer).collect();
    world.maps.set_clients(&mut told, &fewer).unwrap();
    assert_eq!(world.maps.clients().unwrap(), fewer);
    world.connect(VIP, 80).unwrap();
}

#[test]
fn a_flow_of_before_does_not_touch_the_backend_that_has_its_index_now() {
    let mut world = World::new();
    let (listener, old) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[old]);
    let mut sockets = vec![world.connect(VIP, 80).unwrap()];
    let refused = world.netns.enter(|| {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap()
    });
    let refused = refused.unwrap();
    let id = world.installed.backends[&old].id;
    // As long as the flow is open, nobody else gets the index.
    world.serve(VIP, Balance::LeastConn, &[]);
    world.settle_at(later());
    assert_eq!(world.installed.backends[&old].id, id);
    sockets.clear();
    drop(listener);
    // A socket that keeps its record for longer than its flow was counted.
    world.serve(VIP, Balance::LeastConn, &[old]);
    refused
        .connect(&SocketAddr::from((VIP, 80)).into())
        .unwrap_err();
    world.serve(VIP, Balance::LeastConn, &[]);
    world.await_active(old, 0);
    world.settle_at(later());
    assert!(!world.installed.backends.contains_key(&old));

    // Everybody else's turn first: the index that was freed last is given out last.
    let mut found = None;
    for port in 1..200 {
        let new = SocketAddr::from(([127, 0, 2, 1], port));
        let desired = services([(1, new)].into_iter());
        assert_eq!(world.bring_to(&desired, later()), vec![]);
        let its = world.installed.backends[&new].id;
        if its.index == id.index {
            found = Some((new, its));
            break;
        }
    }
    let (new, its) = found.expect("the index is given out again");
    assert_eq!(its.generation, id.generation + 1);
    assert!(!world.suspected(new), "the suspicion was the old one's");
    let key = ServiceKey::new(
        Be32::from_host(vip(1).into()),
        ANY_PORT,
        PROTO_TCP,
        HOST_VIEW,
    );
    let table = world.table(&key);
    // Nobody listens there; the count of what is open goes up and down by its own flows alone.
    world.connect(vip(1), 80).unwrap_err();
    drop(refused);
    world.await_active(new, 0);
    assert_eq!(world.maps.counters(table).unwrap().failed, 1);
}
