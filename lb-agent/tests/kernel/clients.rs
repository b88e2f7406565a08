//! What differs from client to client: views, affinity, Maglev; and what is told of each decision.

use std::net::{Ipv4Addr, SocketAddr};

use aya::maps::HashMap;
use lb_agent::desired::Endpoint;
use lb_common::{
    ANY_PORT, Affinity, AffinityKey, Balance, Be32, Client, FIRST_OWN_VIEW, HOST_VIEW,
    OUTSIDE_VIEW, PROTO_TCP, Refusal, ServiceKey, flag, map,
};

use super::world::{VIP, World, endpoint};

const KEY: ServiceKey = ServiceKey::new(
    Be32::from_host(u32::from_be_bytes(VIP.octets())),
    ANY_PORT,
    PROTO_TCP,
    HOST_VIEW,
);

/// A view of this test's.
const VIEW: u32 = FIRST_OWN_VIEW + 1;

fn with(flags: u32, backends: &[SocketAddr]) -> Endpoint {
    Endpoint {
        flags,
        ..endpoint(Balance::RoundRobin, backends)
    }
}

/// Says that the world's namespace is a client in [`VIEW`].
fn stand_elsewhere(world: &mut World) {
    let client = Client {
        view: VIEW,
        otherwise: OUTSIDE_VIEW,
    };
    let cookie = world.cookie();
    world.maps.set_client(cookie, Some(client)).unwrap();
}

#[test]
fn a_client_gets_what_its_view_sees_then_what_outsiders_see_then_what_the_host_sees() {
    let mut world = World::new();
    let (listeners, backends): (Vec<_>, Vec<_>) =
        (2..5).map(|n| world.listen([127, 0, 0, n])).unzip();
    let [own, outside, host] = backends[..] else {
        unreachable!("three of them")
    };
    stand_elsewhere(&mut world);
    world.put(KEY.seen_from(VIEW), with(0, &[own]));
    world.put(KEY.seen_from(OUTSIDE_VIEW), with(0, &[outside]));
    world.put(KEY, with(flag::VIEWS, &[host]));
    let first = world.connect(VIP, 80).unwrap();
    assert_eq!(world.active(own), 1);
    world.forget(KEY.seen_from(VIEW));
    let second = world.connect(VIP, 80).unwrap();
    assert_eq!(world.active(outside), 1);
    world.forget(KEY.seen_from(OUTSIDE_VIEW));
    let third = world.connect(VIP, 80).unwrap();
    assert_eq!(world.active(host), 1);
    // Who is not known stands on the host.
    world.put(KEY.seen_from(OUTSIDE_VIEW), with(0, &[outside]));
    let cookie = world.cookie();
    world.maps.set_client(cookie, None).unwrap();
    let fourth = world.connect(VIP, 80).unwrap();
    assert_eq!(world.active(host), 2);
    drop((first, second, third, fourth, listeners));
}

#[test]
fn without_a_path_or_a_permission_a_client_is_refused_and_the_reason_counted() {
    let mut world = World::new();
    let (_listener, host) = world.listen([127, 0, 0, 2]);
    stand_elsewhere(&mut world);
    world.put(KEY, with(flag::VIEWS, &[host]));
    for (reason, why) in [
        (flag::NO_PATH, Refusal::NoPath),
        (flag::DENIED, Refusal::Denied),
    ] {
        world.put(KEY.seen_from(VIEW), with(reason, &[]));
        let error = world.connect(VIP, 80).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        let table = world.installed.services[&KEY.seen_from(VIEW)].table;
        let counters = world.maps.counters(table).unwrap();
        assert_eq!(counters.refused[why as usize], 1, "{why:?}");
    }
    assert_eq!(world.active(host), 0);
}

#[test]
fn two_addresses_of_an_instance_share_one_count() {
    let mut world = World::new();
    let (_own, own) = world.listen([127, 0, 0, 2]);
    let (_published, published) = world.listen([127, 0, 0, 3]);
    world.counted_at.insert(published, own);
    world.counted_at.insert(own, own);
    world.put(KEY, with(0, &[published]));
    let client = world.connect(VIP, 80).unwrap();
    assert_eq!(world.active(own), 1);
    drop(client);
    world.await_active(own, 0);
}

#[test]
fn a_client_keeps_its_backend_as_long_as_that_is_there() {
    let mut world = World::new();
    let (listeners, backends): (Vec<_>, Vec<_>) =
        (2..6).map(|n| world.listen([127, 0, 0, n])).unzip();
    let sticky = |backends: &[SocketAddr]| Endpoint {
        affinity_seconds: 3600,
        ..endpoint(Balance::RoundRobin, backends)
    };
    world.put(KEY, sticky(&backends));
    let mut held: Vec<_> = (0..10).map(|_| world.connect(VIP, 80).unwrap()).collect();
    let chosen = |world: &World| -> Vec<u64> {
        backends
            .iter()
            .map(|&it| world.active_or_none(it))
            .collect()
    };
    let first = chosen(&world).iter().position(|&flows| flows == 10);
    let first = first.expect("one backend has all of them");
    // Others leave: it stays.
    let mut fewer = backends.clone();
    fewer.remove((first + 1) % 4);
    world.put(KEY, sticky(&fewer));
    held.push(world.connect(VIP, 80).unwrap());
    assert_eq!(chosen(&world)[first], 11);
    // It leaves: another one takes all.
    let rest: Vec<_> = backends
        .iter()
        .copied()
        .filter(|&it| it != backends[first])
        .collect();
    world.put(KEY, sticky(&rest));
    held.extend((0..5).map(|_| world.connect(VIP, 80).unwrap()));
    assert_eq!(chosen(&world)[first], 11);
    assert!(chosen(&world).contains(&5), "{:?}", chosen(&world));
    drop((held, listeners));
}

#[test]
fn a_client_that_was_away_for_longer_than_it_is_kept_gets_the_next_backend() {
    let mut world = World::new();
    let (listeners, backends): (Vec<_>, Vec<_>) =
        (2..6).map(|n| world.listen([127, 0, 0, n])).unzip();
    let kept = Endpoint {
        affinity_seconds: 60,
        ..endpoint(Balance::RoundRobin, &backends)
    };
    world.put(KEY, kept);
    let chosen = |world: &World| -> Vec<u64> {
        let _flow = world.connect(VIP, 80).unwrap();
        backends.iter().map(|&it| world.active(it)).collect()
    };
    // The last flow becomes one of long ago.
    let key = AffinityKey::new(world.cookie(), KEY.vip, ANY_PORT, PROTO_TCP);
    let age = |world: &World, seconds: u32| {
        let pinned = world.pinned(map::AFFINITY);
        let mut kept: HashMap<_, AffinityKey, Affinity> = pinned.try_into().unwrap();
        let mut last = kept.get(&key, 0).unwrap();
        last.last_seconds = last.last_seconds.wrapping_sub(seconds);
        kept.insert(key, last, 0).unwrap();
    };
    assert_eq!(chosen(&world), [1, 0, 0, 0]);
    for _ in 0..3 {
        // Each flow is the last one of those that follow.
        age(&world, 50);
        assert_eq!(chosen(&world), [1, 0, 0, 0]);
    }
    age(&world, 70);
    for _ in 0..3 {
        assert_eq!(chosen(&world), [0, 1, 0, 0]);
    }
    drop(listeners);
}

#[test]
fn maglev_gives_one_client_one_backend() {
    let mut world = World::new();
    let (listeners, backends): (Vec<_>, Vec<_>) =
        (2..6).map(|n| world.listen([127, 0, 0, n])).unzip();
    world.put(KEY, endpoint(Balance::Maglev, &backends));
    let clients: Vec<_> = (0..10).map(|_| world.connect(VIP, 80).unwrap()).collect();
    let active: Vec<_> = backends.iter().map(|&it| world.active(it)).collect();
    assert!(active.contains(&10), "{active:?}");
    drop((clients, listeners));
}

#[test]
fn each_decision_for_a_followed_service_is_told() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    world.put(KEY, with(0, &[backend]));
    world.connect(VIP, 80).unwrap();
    assert_eq!(world.traces.take(), None);
    world.put(KEY, with(flag::TRACE, &[backend]));
    world.connect(VIP, 81).unwrap();
    let trace = world.traces.take().expect("the kernel told of it");
    assert_eq!(trace.client, world.cookie());
    assert_eq!(Ipv4Addr::from(trace.vip.host()), VIP);
    assert_eq!((trace.port.host(), trace.proto), (81, PROTO_TCP));
    assert_eq!(trace.backend, world.installed.backends[&backend].id.index);
    assert_eq!(trace.process >> 32, u64::from(std::process::id()));
    assert_ne!(trace.command, [0; 16]);
    world.put(KEY, with(flag::TRACE, &[]));
    world.connect(VIP, 82).unwrap_err();
    let trace = world.traces.take().expect("the kernel told of it");
    assert_eq!(
        (trace.backend, trace.detail),
        (0, Refusal::NoBackend as u32)
    );
    assert_eq!(world.traces.take(), None);
}

#[test]
fn how_long_handshakes_take_is_counted_by_backend() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    world.put(KEY, with(0, &[backend]));
    let clients: Vec<_> = (0..20).map(|_| world.connect(VIP, 80).unwrap()).collect();
    let index = world.installed.backends[&backend].id.index;
    let latency = world.maps.latency(index).unwrap();
    assert_eq!(latency.buckets.iter().sum::<u32>(), 20);
    assert!(latency.micros > 0, "{latency:?}");
    assert_eq!(latency.failed, 0);
    drop(clients);
}
