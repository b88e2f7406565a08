use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    catalog::{InstanceKey, Reach},
    options::access::Rule,
};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A container on these networks, at `172.<network>.0.<n>:80`.
fn container(n: u8, networks: &[(&str, u8)], published: Option<&str>) -> Backend {
    let networks = networks.iter().map(|&(name, network)| {
        let address = SocketAddr::from(([172, network, 0, n], 80));
        (name.to_owned(), address)
    });
    let reach = Reach {
        networks: networks.collect(),
        published: published.map(at),
        ..Reach::default()
    };
    let own = reach.networks.values().next().copied();
    Backend {
        reach: reach.shared(),
        ..Backend::usable(own.unwrap())
    }
}

fn service(backends: Vec<Backend>, access: Access) -> Service {
    let key = |n: usize| InstanceKey::new("n", n.to_string());
    Service {
        vip: Some(Ipv4Addr::new(198, 18, 0, 7)),
        options: Options {
            access,
            ..Options::default()
        },
        aliases: BTreeSet::new(),
        backends: backends
            .into_iter()
            .enumerate()
            .map(|(n, backend)| (key(n), backend))
            .collect(),
    }
}

fn view(networks: &[&str], outside: bool) -> View {
    View {
        networks: networks.iter().map(|&name| name.to_owned()).collect(),
        outside,
        ranges: BTreeSet::new(),
    }
}

/// Views with the numbers 16, 17, …
fn views(all: &[View]) -> Views {
    Views {
        views: (16..).zip(all.iter().cloned()).collect(),
        clients: BTreeMap::new(),
    }
}

/// What a client of each view is given: its slots and flags, by the fallbacks that the programs know.
fn seen(service: &Service, views: &Views) -> BTreeMap<u32, (Vec<SocketAddr>, u32)> {
    let name = ServiceName::whole("s");
    let pools = Pools::default();
    let asked = Asked::new(&name, service, views, pools).unwrap();
    let find = |number: u32| {
        let mut found = asked.endpoints.iter();
        found.find(|(key, _)| key.view == number && key.family == 0)
    };
    let host = find(HOST_VIEW).unwrap().1;
    let all = views.views.iter().map(|(&number, view)| {
        let otherwise = if view.outside {
            OUTSIDE_VIEW
        } else {
            INTERNAL_VIEW
        };
        let own = find(number).or_else(|| find(otherwise));
        let found = match own {
            Some((_, found)) => {
                assert_ne!(host.flags & flag::VIEWS, 0, "nobody would look for it");
                found
            }
            None => host,
        };
        (number, (found.slots.clone(), found.flags & !flag::VIEWS))
    });
    let all: BTreeMap<_, _> = all.collect();
    let mut all = all;
    all.insert(HOST_VIEW, (host.slots.clone(), host.flags & !flag::VIEWS));
    all
}

#[test]
fn each_view_gets_the_addresses_that_it_reaches() {
    let service = service(
        vec![
            container(2, &[("web", 18)], Some("10.1.1.1:8002")),
            container(3, &[("web", 18)], None),
        ],
        Access::default(),
    );
    let views = views(&[
        view(&["web"], true),
        view(&["db"], true),
        view(&["db"], false),
        view(&["web"], false),
    ]);
    let own = vec![at("172.18.0.2:80"), at("172.18.0.3:80")];
    let seen = seen(&service, &views);
    assert_eq!(seen[&HOST_VIEW], (own.clone(), 0));
    assert_eq!(seen[&16], (own.clone(), 0));
    assert_eq!(seen[&17], (vec![at("10.1.1.1:8002")], 0));
    assert_eq!(seen[&18], (vec![], flag::NO_PATH));
    assert_eq!(seen[&19], (own, 0));
}

#[test]
fn from_an_internal_network_another_host_is_not_reached() {
    let mut remote = Backend::usable(at("10.2.2.2:80"));
    remote.local = false;
    let service = service(vec![remote], Access::default());
    let views = views(&[view(&["web"], true), view(&["web"], false)]);
    let seen = seen(&service, &views);
    assert_eq!(seen[&16], (vec![at("10.2.2.2:80")], 0));
    assert_eq!(seen[&17], (vec![], flag::NO_PATH));
}

#[test]
fn without_clients_a_service_takes_one_endpoint() {
    let backends = vec![container(2, &[("web", 18)], None)];
    let service = service(backends, Access::default());
    let name = ServiceName::whole("s");
    let pools = Pools::default();
    let asked = Asked::new(&name, &service, &Views::default(), pools).unwrap();
    assert_eq!(asked.endpoints.len(), 1);
}

#[test]
fn who_is_not_let_in_is_told_so_and_the_others_are_served() {
    let access = Access {
        allow: Vec::new(),
        deny: vec![Rule::Network("db".to_owned())],
    };
    let service = service(vec![Backend::usable(at("10.2.2.2:80"))], access);
    let views = views(&[view(&["db"], true), view(&["web"], true)]);
    let seen = seen(&service, &views);
    assert_eq!(seen[&HOST_VIEW], (vec![at("10.2.2.2:80")], 0));
    assert_eq!(seen[&16], (vec![], flag::DENIED));
    assert_eq!(seen[&17], (vec![at("10.2.2.2:80")], 0));
}

#[test]
fn ipv6_sockets_get_all_and_others_what_they_can_reach() {
    let backends = ["10.2.2.2:80", "[fd00::2]:80"].map(|it| Backend::usable(at(it)));
    let service = service(backends.to_vec(), Access::default());
    let name = ServiceName::whole("s");
    let pools = Pools::default();
    let asked = Asked::new(&name, &service, &Views::default(), pools).unwrap();
    let by_family = |family| {
        let mut all = asked.endpoints.iter();
        all.find(|(key, _)| key.family == family).unwrap().1
    };
    assert_eq!(by_family(0).slots, [at("10.2.2.2:80")]);
    assert_eq!(by_family(0).flags, flag::V6);
    assert_eq!(by_family(6).slots, [at("10.2.2.2:80"), at("[fd00::2]:80")]);
}

#[test]
fn a_clients_backend_is_kept_and_datagrams_have_endpoints_of_their_own() {
    let mut service = service(vec![Backend::usable(at("10.2.2.2:53"))], Access::default());
    service.options.affinity = Duration::from_secs(90);
    service.options.proto = options::Proto::Udp;
    service.options.ports = BTreeSet::from([53]);
    let name = ServiceName::whole("s");
    let pools = Pools::default();
    let asked = Asked::new(&name, &Arc::new(service), &Views::default(), pools).unwrap();
    let (key, endpoint) = asked.endpoints.first_key_value().unwrap();
    assert_eq!((key.proto, key.port.host()), (PROTO_UDP, 53));
    assert_eq!(endpoint.affinity_seconds, 90);
}

#[test]
fn flows_to_all_addresses_of_an_instance_count_at_the_one_that_the_host_uses() {
    let backends = vec![container(
        2,
        &[("db", 19), ("web", 18)],
        Some("10.1.1.1:8002"),
    )];
    let service = service(backends, Access::default());
    let views = views(&[view(&["web"], true), view(&["other"], true)]);
    let name = ServiceName::whole("s");
    let pools = Pools::default();
    let asked = Asked::new(&name, &service, &views, pools).unwrap();
    let own = at("172.19.0.2:80");
    let addresses: BTreeSet<_> = asked.backends.iter().map(|(it, _)| *it).collect();
    assert_eq!(
        addresses,
        BTreeSet::from([own, at("172.18.0.2:80"), at("10.1.1.1:8002")])
    );
    assert!(asked.backends.iter().all(|(_, it)| it.counted_at == own));
}

/// The backends of `tags` at port 53 of 10.0.0.1, 10.0.0.2 and so on.
fn dns(tags: &[&[&str]]) -> Service {
    let backend = |(last, tags): (u8, &&[&str])| {
        let address = SocketAddr::from(([10, 0, 0, last], 53));
        let key = InstanceKey::new("n", format!("{last}-{}", tags.len()));
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        let tags = Arc::new(tags);
        (
            key,
            Backend {
                tags,
                ..Backend::usable(address)
            },
        )
    };
    Service {
        vip: Some(Ipv4Addr::new(198, 18, 0, 7)),
        options: Options::default(),
        aliases: BTreeSet::new(),
        backends: (1..).zip(tags).map(backend).collect(),
    }
}

/// The slots of each endpoint, by protocol and port.
fn slots(service: &Service) -> BTreeMap<(u8, u16), Vec<String>> {
    let pools = Pools::default();
    let name = ServiceName::whole("dns");
    let asked = Asked::new(&name, service, &Views::default(), pools).unwrap();
    assert_eq!(asked.problems, []);
    let of = |(key, it): (ServiceKey, Endpoint)| {
        let slots = it.slots.iter().map(ToString::to_string).collect();
        ((key.proto, key.port.host()), slots)
    };
    asked.endpoints.into_iter().map(of).collect()
}

#[test]
fn one_vip_leads_to_udp_instances_over_udp_and_to_the_others_over_tcp() {
    let mut service = dns(&[&[], &["udp"], &["udp"]]);
    service.options.udp_by_tag = true;
    let (one, two) = (
        vec!["10.0.0.1:53".to_owned()],
        ["10.0.0.2:53", "10.0.0.3:53"],
    );
    let two = two.map(str::to_owned).to_vec();
    let any = BTreeMap::from([((PROTO_TCP, 0), one.clone()), ((PROTO_UDP, 0), two.clone())]);
    assert_eq!(slots(&service), any);
    service.options.ports.insert(5353);
    let named = BTreeMap::from([((PROTO_TCP, 5353), one), ((PROTO_UDP, 5353), two)]);
    assert_eq!(slots(&service), named);
}

#[test]
fn without_that_option_the_tag_has_no_meaning_here() {
    let mut service = dns(&[&[], &["udp"]]);
    let both = ["10.0.0.1:53", "10.0.0.2:53"].map(str::to_owned).to_vec();
    assert_eq!(
        slots(&service),
        BTreeMap::from([((PROTO_TCP, 0), both.clone())])
    );
    service.options.proto = options::Proto::Udp;
    assert_eq!(slots(&service), BTreeMap::from([((PROTO_UDP, 0), both)]));
}

#[test]
fn what_listens_on_the_loopback_of_the_host_is_not_there_for_containers() {
    for address in ["127.0.0.1:80", "[::ffff:127.0.0.1]:80"] {
        let service = service(vec![Backend::usable(at(address))], Access::default());
        let seen = seen(&service, &views(&[view(&["web"], true)]));
        assert_eq!(seen[&HOST_VIEW], (vec![at(address)], 0));
        assert_eq!(seen[&16], (vec![], flag::NO_PATH));
    }
}

#[test]
fn a_service_whose_instances_take_no_flows_has_no_slots_and_is_not_out_of_reach() {
    let idle = Backend {
        weight: 0,
        ..Backend::usable(at("10.2.2.2:80"))
    };
    let mut down = Backend::usable(at("127.0.0.1:80"));
    down.probe.state = ProbeState::Down;
    for backend in [idle, down] {
        let service = service(vec![backend], Access::default());
        let seen = seen(&service, &views(&[view(&["web"], true)]));
        assert_eq!(
            (&seen[&HOST_VIEW], &seen[&16]),
            (&(vec![], 0), &(vec![], 0))
        );
    }
}

#[test]
fn a_hash_has_a_table_of_its_own_and_the_others_a_slot_for_each_instance() {
    let backends = ["10.2.2.2:80", "10.2.2.3:80"].map(|it| Backend::usable(at(it)));
    let mut service = service(backends.to_vec(), Access::default());
    for (balance, kind) in [
        (options::Balance::LeastConn, Balance::LeastConn),
        (options::Balance::RoundRobin, Balance::RoundRobin),
        (options::Balance::Random, Balance::Random),
        (options::Balance::Maglev, Balance::Maglev),
    ] {
        service.options.balance = balance;
        let name = ServiceName::whole("s");
        let asked = Asked::new(&name, &service, &Views::default(), Pools::default()).unwrap();
        let (_, endpoint) = asked.endpoints.first_key_value().unwrap();
        assert_eq!(endpoint.balance, kind);
        let members = ["10.2.2.2:80", "10.2.2.3:80"].map(|it| (at(it), 1));
        let slots = match kind {
            Balance::Maglev => by_hash(&members),
            _ => members.map(|(address, _)| address).to_vec(),
        };
        assert_eq!(endpoint.slots, slots);
    }
}

/// What is told of a service of so many instances that take flows, beside some that do not.
fn told(many: u16) -> Vec<String> {
    let usable = (0..many).map(|n| {
        let [high, low] = n.to_be_bytes();
        Backend::usable(SocketAddr::from(([10, 0, high, low], 80)))
    });
    let mut down = Backend::usable(at("10.1.0.1:80"));
    down.probe.state = ProbeState::Down;
    let idle = Backend {
        weight: 0,
        ..Backend::usable(at("10.1.0.2:80"))
    };
    let service = service(usable.chain([down, idle]).collect(), Access::default());
    let name = ServiceName::whole("s");
    let asked = Asked::new(&name, &service, &Views::default(), Pools::default()).unwrap();
    let problems = asked.problems.iter();
    problems.map(ToString::to_string).collect()
}

#[test]
fn more_instances_than_slots_are_told() {
    assert_eq!(told(1023), [""; 0]);
    assert_eq!(told(1024), [""; 0]);
    let expected = "service s: only 1024 of its 1025 usable instances take flows; register fewer";
    assert_eq!(told(1025), [expected]);
}

#[test]
fn an_instance_without_a_port_or_in_the_pool_is_told_with_the_remedy() {
    let pools = Pools::default();
    for (address, remedy) in [
        ("10.2.2.2:0", "has no port; register one"),
        ("198.18.7.7:80", "register the instance's own address"),
        (
            "[::ffff:198.18.7.7]:80",
            "register the instance's own address",
        ),
    ] {
        let told = fit(at(address), pools).unwrap_err();
        assert!(told.contains(remedy), "{told}");
        let service = service(vec![Backend::usable(at(address))], Access::default());
        let name = ServiceName::whole("s");
        let asked = Asked::new(&name, &service, &Views::default(), pools).unwrap();
        let [problem] = &asked.problems[..] else {
            panic!("{:?}", asked.problems);
        };
        assert_eq!(problem.subject, "instance n/0 of s");
        assert_eq!(problem.message, told);
        assert!(asked.backends.is_empty());
    }
    assert_eq!(fit(at("10.2.2.2:80"), pools), Ok(()));
}
