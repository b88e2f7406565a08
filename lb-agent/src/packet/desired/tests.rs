use lb_front::rules::Rules;
use lb_packet::Place;

use super::*;
use crate::{
    catalog::{InstanceKey, Reach, SourceHealth},
    options::{Options, Rule},
};

const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn remote(address: &str) -> Backend {
    Backend {
        local: false,
        ..Backend::usable(at(address))
    }
}

fn service<const N: usize>(backends: [Backend; N]) -> Service {
    let backends = backends.into_iter().enumerate();
    Service {
        vip: Some(VIP),
        options: Options {
            ports: [80].into(),
            ..Options::default()
        },
        aliases: BTreeSet::new(),
        backends: backends
            .map(|(n, it)| (InstanceKey::new("n", n.to_string()), it))
            .collect(),
    }
}

fn standpoint() -> Standpoint {
    Standpoint {
        pools: Pools {
            v6: Some(Default::default()),
            ..Pools::default()
        },
        own: ["192.0.2.1".parse().unwrap()].into(),
        inside: vec!["172.17.0.0/16".parse().unwrap()],
        cards: true,
        ..Standpoint::default()
    }
}

fn wish(service: Service, standpoint: &Standpoint) -> Wish {
    let mut snapshot = Snapshot::default();
    let name = ServiceName::whole("s");
    snapshot.services.insert(name, service.into());
    Wish::new(&snapshot, standpoint)
}

fn key(scope: u8) -> EndpointKey {
    EndpointKey {
        vip: Be32::from_host(VIP.into()),
        port: Be16::from_host(80),
        proto: PROTO_TCP,
        scope,
    }
}

fn only(wish: &Wish) -> &[Member] {
    &wish.desired.endpoints[&key(0)].members
}

#[test]
fn an_endpoint_has_a_scope_for_each_family_and_place_of_its_backends() {
    for (backends, scopes) in [
        (vec!["10.0.0.1:80"], vec![0]),
        (vec!["192.0.2.1:80"], vec![0, scope::LOCAL]),
        (vec!["10.0.0.1:80", "[2001:db8::1]:80"], vec![0, scope::V6]),
        (vec!["172.17.0.2:80"], vec![0, scope::LOCAL]),
        // Everything that has no backend is refused by IPv4.
        (vec!["[2001:db8::1]:80"], vec![0, scope::V6]),
        (vec![], vec![0]),
    ] {
        let mut service = service([]);
        for (n, address) in backends.iter().enumerate() {
            let key = InstanceKey::new("n", n.to_string());
            service.backends.insert(key, remote(address));
        }
        let found = wish(service, &standpoint());
        let found: Vec<u8> = found.desired.endpoints.keys().map(|it| it.scope).collect();
        assert_eq!(found, scopes, "{backends:?}");
    }
    // Without a card nothing comes from other hosts.
    let clients = Standpoint {
        cards: false,
        ..standpoint()
    };
    let found = wish(service([Backend::usable(at("192.0.2.1:80"))]), &clients);
    assert_eq!(found.desired.endpoints.len(), 1);
}

#[test]
fn each_port_and_protocol_is_an_endpoint_of_its_service() {
    let mut both = service([remote("10.0.0.1:53"), remote("10.0.0.2:53")]);
    both.options.ports = [53, 54].into();
    both.options.udp_by_tag = true;
    let udp = both.backends.values_mut().next().unwrap();
    udp.tags = Arc::new(["udp".to_owned()].into());
    let found = wish(both, &standpoint());
    let all: Vec<_> = found.desired.endpoints.iter().collect();
    assert_eq!(all.len(), 4);
    for (key, wanted) in all {
        let address = match key.proto {
            PROTO_UDP => at("10.0.0.1:53"),
            _ => at("10.0.0.2:53"),
        };
        assert_eq!(wanted.members.len(), 1);
        assert_eq!(wanted.members[0].address, address);
        assert_eq!(found.owners[key], ServiceName::whole("s"));
    }
    let mut every = service([remote("10.0.0.1:80")]);
    every.options.ports.clear();
    let found = wish(every, &standpoint());
    let ports: Vec<_> = found.desired.endpoints.keys().map(|it| it.port).collect();
    assert_eq!(ports, [ANY_PORT]);
}

#[test]
fn a_backend_is_reached_where_this_host_reaches_it() {
    let container = |local, published: Option<&str>| Backend {
        local,
        reach: Reach {
            networks: [("web".to_owned(), at("172.18.0.2:80"))].into(),
            published: published.map(at),
            host: "192.0.2.8".parse().ok(),
        }
        .shared(),
        ..Backend::usable(at("172.18.0.2:80"))
    };
    for (backend, address, local, host) in [
        (container(true, None), "172.18.0.2:80", true, "192.0.2.8"),
        (
            container(false, Some("192.0.2.8:8080")),
            "192.0.2.8:8080",
            false,
            "192.0.2.8",
        ),
        // Through a tunnel alone.
        (container(false, None), "172.18.0.2:80", false, "192.0.2.8"),
        (remote("192.0.2.9:80"), "192.0.2.9:80", false, "192.0.2.9"),
        (
            Backend::usable(at("192.0.2.1:80")),
            "192.0.2.1:80",
            true,
            "192.0.2.1",
        ),
    ] {
        let found = wish(service([backend]), &standpoint());
        let (address, weight) = (at(address), 1);
        assert_eq!(only(&found), [Member { address, weight }]);
        let place = Place {
            host: host.parse().ok(),
            local,
        };
        assert_eq!(found.desired.places, [(address, place)].into());
        let hosts = if local {
            vec![]
        } else {
            vec![host.parse().unwrap()]
        };
        assert_eq!(found.desired.hosts, hosts.into_iter().collect());
    }
}

#[test]
fn the_host_of_another_family_is_no_end_of_a_tunnel() {
    let backend = Backend {
        reach: Reach {
            host: "192.0.2.8".parse().ok(),
            ..Reach::default()
        }
        .shared(),
        ..remote("[2001:db8::9]:80")
    };
    let found = wish(service([backend]), &standpoint());
    let place = found.desired.place(at("[2001:db8::9]:80"));
    assert_eq!(place.host, "2001:db8::9".parse().ok());
}

/// The map of backends has each once: who leads packets of one service to the stack needs an endpoint there for all.
#[test]
fn where_a_backend_is_one_registration_tells_for_all() {
    let address = at("172.18.0.2:80");
    let container = Backend {
        local: true,
        reach: Reach {
            networks: [("web".to_owned(), address)].into(),
            ..Reach::default()
        }
        .shared(),
        ..Backend::usable(address)
    };
    let mut snapshot = Snapshot::default();
    let second = VIP.to_bits() + 1;
    for (name, backend, vip) in [
        ("a", remote("172.18.0.2:80"), VIP),
        ("b", container, second.into()),
    ] {
        let service = Service {
            vip: Some(vip),
            ..service([backend])
        };
        let name = ServiceName::whole(name);
        snapshot.services.insert(name, service.into());
    }
    let found = Wish::new(&snapshot, &standpoint());
    let both = [VIP.to_bits(), second].map(|vip| EndpointKey {
        vip: Be32::from_host(vip),
        ..key(scope::LOCAL)
    });
    for key in both {
        assert!(found.desired.serves(&key, address));
        assert!(found.desired.endpoints.contains_key(&key), "{key:?}");
    }
}

#[test]
fn who_takes_no_new_flows_keeps_those_that_it_has_until_their_time_is_over() {
    let mut down = remote("10.0.0.1:80");
    down.source = SourceHealth::Critical;
    let mut drained = remote("10.0.0.2:80");
    drained.source = SourceHealth::Maintenance;
    let backends = || [down.clone(), drained.clone(), remote("10.0.0.3:80")];
    let weights = |wish: &Wish| -> Vec<u16> { only(wish).iter().map(|it| it.weight).collect() };
    let target = |text: &str| Target {
        vip: VIP,
        address: at(text),
    };
    let during = Standpoint {
        out: [
            (target("10.0.0.2:80"), true),
            (target("10.0.0.77:80"), true),
        ]
        .into(),
        ..standpoint()
    };
    let found = wish(service(backends()), &during);
    assert_eq!(weights(&found), [0, 0, 1]);
    let kept = [at("10.0.0.2:80"), at("10.0.0.77:80")];
    assert_eq!(found.desired.kept, kept.into());
    let after = Standpoint {
        out: [
            (target("10.0.0.2:80"), false),
            (target("10.0.0.77:80"), false),
            // Somebody else took it over before.
            (target("10.0.0.3:80"), false),
        ]
        .into(),
        ..standpoint()
    };
    let found = wish(service(backends()), &after);
    assert_eq!(weights(&found), [0, 1]);
    assert_eq!(found.desired.kept, BTreeSet::new());
}

#[test]
fn what_cannot_be_served_as_it_is_meant_is_refused_and_told() {
    let mut off = service([remote("10.0.0.1:80")]);
    off.options.packet = Packet::Off;
    let found = wish(off, &standpoint());
    assert!(found.desired.endpoints.is_empty() && found.desired.vips.is_empty());
    assert_eq!(found.problems, []);

    let mut closed = service([remote("10.0.0.1:80")]);
    closed.options.access.deny = vec![Rule::Nobody];
    let found = wish(closed, &standpoint());
    assert!(found.desired.endpoints.is_empty() && found.desired.vips.is_empty());
    assert!(found.problems[0].message.contains("`lb_allow`"));

    let found = wish(
        service([Backend::usable(at("127.0.0.1:80"))]),
        &standpoint(),
    );
    assert!(found.problems[0].message.contains("loopback"));
    assert_eq!(only(&found), []);
    // A part of the front's alone changes nothing here.
    let mut front = service([remote("10.0.0.1:80")]);
    front.options.front = Some(Arc::new(Rules::default()));
    assert_eq!(wish(front, &standpoint()).problems, []);
}

#[test]
fn tunnels_and_traces_are_those_that_are_asked_for() {
    let mut far = service([remote("10.0.0.1:80")]);
    far.options.packet = Packet::Tunnel;
    let asked = Standpoint {
        traced: [ServiceName::whole("s")].into(),
        hosts: ["192.0.2.77".parse().unwrap()].into(),
        ..standpoint()
    };
    let found = wish(far, &asked);
    let wanted = &found.desired.endpoints[&key(0)];
    assert!(wanted.tunnel && wanted.trace);
    assert_eq!(found.desired.settings.traced, 1);
    assert_eq!(found.desired.hosts.len(), 2);
    let found = wish(service([remote("10.0.0.1:80")]), &standpoint());
    let wanted = &found.desired.endpoints[&key(0)];
    assert!(!wanted.tunnel && !wanted.trace);
    assert_eq!(found.desired.settings.traced, 0);
    assert_eq!(found.desired.vips, [VIP].into());
}

#[test]
fn an_instance_that_is_registered_twice_is_one_member() {
    let mut double = remote("[::ffff:10.0.0.1]:80");
    double.weight = 7;
    let found = wish(service([remote("10.0.0.1:80"), double]), &standpoint());
    assert_eq!(only(&found).len(), 1);
    assert_eq!(only(&found)[0].weight, 7);
}
