//! What the maps should hold, from one snapshot to the next.

use super::*;
use crate::{catalog::InstanceKey, options::Options, snapshot::Backend, views::View};

const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A service at `vip` with one backend of this weight.
fn service(vip: Ipv4Addr, address: &str, weight: u16) -> Service {
    let backend = Backend {
        weight,
        ..Backend::usable(at(address))
    };
    Service {
        vip: Some(vip),
        options: Options::default(),
        aliases: BTreeSet::new(),
        backends: [(InstanceKey::new("n", "a"), backend)].into(),
    }
}

fn snapshot<const N: usize>(services: [(&str, Service); N]) -> Snapshot {
    let services = services.into_iter();
    Snapshot {
        services: services
            .map(|(name, it)| (ServiceName::whole(name), it.into()))
            .collect(),
        ..Snapshot::default()
    }
}

/// What is wanted of one snapshot after the other.
fn followed(snapshots: &[&Snapshot]) -> (Wanted, Todo) {
    let mut wanted = Wanted::new(Pools::default());
    let (mut before, mut todo) = (&Snapshot::default(), Todo::default());
    for after in snapshots {
        todo = wanted.follow(before, after);
        before = after;
    }
    (wanted, todo)
}

#[test]
fn a_traced_service_stays_so_through_changes_until_nobody_wants_it() {
    let name = ServiceName::whole("s");
    let with_ports = |ports: &[u16]| {
        let mut service = service(VIP, "127.0.0.1:80", 1);
        service.options.ports = ports.iter().copied().collect();
        snapshot([("s", service)])
    };
    let mut wanted = Wanted::new(Pools::default());
    let (first, second) = (with_ports(&[80, 443]), with_ports(&[81, 82]));
    wanted.follow(&Snapshot::default(), &first);
    let flags = |wanted: &Wanted| -> BTreeSet<u32> {
        let all = wanted.desired().services.values();
        all.map(|it| it.flags & flag::TRACE).collect()
    };
    assert_eq!(flags(&wanted), [0].into());
    let todo = wanted.trace(&name, true);
    // Every one of its endpoints is.
    assert_eq!(todo.services.len(), 2, "{todo:?}");
    assert_eq!(flags(&wanted), [flag::TRACE].into());
    wanted.follow(&first, &second);
    assert_eq!(flags(&wanted), [flag::TRACE].into());
    wanted.trace(&name, false);
    assert_eq!(flags(&wanted), [0].into());
}

#[test]
fn one_service_is_traced_and_no_other_and_what_else_is_flagged_stays() {
    let mut closed = service(VIP, "10.0.0.1:80", 1);
    closed.options.access.deny = vec![crate::options::Rule::Host];
    let other = service([198, 18, 0, 10].into(), "10.0.0.2:80", 1);
    let (mut wanted, _) = followed(&[&snapshot([("closed", closed), ("other", other)])]);
    let flags = |wanted: &Wanted| -> Vec<u32> {
        let all = wanted.desired().services.values();
        all.map(|it| it.flags).collect()
    };
    assert_eq!(flags(&wanted), [flag::DENIED, 0]);
    let name = ServiceName::whole("closed");
    // Twice is once.
    for _ in 0..2 {
        wanted.trace(&name, true);
        assert_eq!(flags(&wanted), [flag::DENIED | flag::TRACE, 0]);
    }
    for _ in 0..2 {
        wanted.trace(&name, false);
        assert_eq!(flags(&wanted), [flag::DENIED, 0]);
    }
}

#[test]
fn an_address_of_several_services_has_the_highest_weight_until_none_of_them_wants_it() {
    let ports = ["10.0.0.1:80", "10.0.0.2:80"];
    let with = |names: &[(&'static str, u16)]| {
        let services = names.iter().zip(1..);
        let services = services.map(|(&(name, weight), n)| {
            let service = service([198, 18, 0, n].into(), ports[0], weight);
            (ServiceName::whole(name), service.into())
        });
        // One that is none of theirs.
        let other = service([198, 18, 1, 1].into(), ports[1], 9);
        let other = (ServiceName::whole("other"), other.into());
        Snapshot {
            services: services.chain([other]).collect(),
            ..Snapshot::default()
        }
    };
    let (three, two, one) = (
        with(&[("a", 3), ("b", 3), ("c", 5)]),
        with(&[("a", 3), ("b", 3)]),
        with(&[("a", 3)]),
    );
    let none = with(&[]);
    let all = [&three, &two, &one, &none];
    for (many, weight) in [(1, Some(5)), (2, Some(3)), (3, Some(3)), (4, None)] {
        let (wanted, todo) = followed(&all[..many]);
        let found = &wanted.desired().backends;
        assert_eq!(found.get(&at(ports[0])).map(|it| it.weight), weight);
        assert_eq!(found[&at(ports[1])].weight, 9);
        assert!(todo.backends.contains(&at(ports[0])), "{todo:?}");
    }
}

#[test]
fn a_vip_that_one_service_hands_to_another_stays_and_one_that_nobody_has_goes() {
    let before = snapshot([("b", service(VIP, "10.0.0.1:80", 1))]);
    let after = snapshot([("a", service(VIP, "10.0.0.2:80", 1))]);
    for (name, snapshots) in [
        ("a", [&before, &after]),
        // In either order of their names.
        ("b", [&after, &before]),
    ] {
        let (wanted, todo) = followed(&snapshots);
        let (alone, _) = followed(&snapshots[1..]);
        assert_eq!(wanted.desired(), alone.desired());
        let endpoints = &wanted.desired().services;
        let names: Vec<_> = endpoints.values().map(|it| it.name.to_string()).collect();
        assert_eq!(names, [name]);
        assert!(todo.services.iter().eq(endpoints.keys()), "{todo:?}");
    }
    let (wanted, _) = followed(&[&before, &Snapshot::default()]);
    assert!(wanted.desired().services.is_empty() && wanted.desired().backends.is_empty());
}

#[test]
fn what_the_maps_cannot_hold_is_told_until_it_is_mended_or_leaves() {
    let wrong = snapshot([
        ("a", service(VIP, "198.18.7.7:80", 1)),
        ("b", service([198, 18, 0, 10].into(), "10.0.0.1:80", 1)),
    ]);
    let right = snapshot([("a", service(VIP, "10.0.0.7:80", 1))]);
    for (snapshots, told) in [
        (&[&wrong][..], 1),
        (&[&wrong, &right], 0),
        (&[&wrong, &Snapshot::default()], 0),
    ] {
        let (wanted, _) = followed(snapshots);
        let problems: Vec<_> = wanted.problems().collect();
        assert_eq!(problems.len(), told, "{problems:?}");
        assert!(problems.iter().all(|it| it.subject == "instance n/a of a"));
    }
}

#[test]
fn where_clients_stand_is_looked_at_once_and_again_when_they_stand_elsewhere() {
    let local = snapshot([("s", service(VIP, "127.0.0.1:80", 1))]);
    let (mut wanted, _) = followed(&[&local]);
    assert!(wanted.desired().unlocated);
    let nowhere = Arc::new(Views::default());
    // That nobody stands anywhere is to be known, too.
    assert_eq!(wanted.look(&local, &nowhere).services.len(), 1);
    assert!(!wanted.desired().unlocated);
    assert_eq!(wanted.look(&local, &nowhere), Todo::default());
    let somewhere = Arc::new(Views {
        views: [(
            16,
            View {
                outside: true,
                ..View::default()
            },
        )]
        .into(),
        ..Views::default()
    });
    // A container does not see what listens on the loopback of the host.
    let todo = wanted.look(&local, &somewhere);
    assert_eq!(
        (todo.services.len(), wanted.desired().services.len()),
        (2, 2)
    );
    assert_eq!(wanted.look(&local, &somewhere), Todo::default());
    let todo = wanted.look(&local, &nowhere);
    assert_eq!(
        (todo.services.len(), wanted.desired().services.len()),
        (2, 1)
    );
}
