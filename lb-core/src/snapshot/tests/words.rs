//! What is known, what things are called, and what a backend comes to.

use super::*;

#[test]
fn a_stage_has_reached_what_is_complete_or_all_there_is_to_go_by() {
    let snapshot = |stopgap, complete| Snapshot {
        number: 7,
        stopgap,
        complete,
        ..Snapshot::default()
    };
    assert_eq!(snapshot(false, false).reached(), None);
    assert_eq!(snapshot(true, false).reached(), Some(7));
    assert_eq!(snapshot(false, true).reached(), Some(7));
}

#[test]
fn something_is_known_as_soon_as_one_source_has_answered() {
    let mut snapshot = Snapshot::default();
    assert!(!snapshot.is_known());
    let mut source = Source::default();
    let mut put = |name: &str, source: &Source| {
        snapshot.sources.insert(name.to_owned(), source.clone());
        snapshot.is_known()
    };
    assert!(!put("consul", &source));
    source.updated = Some(SystemTime::UNIX_EPOCH);
    assert!(put("file", &source));
}

#[test]
fn a_part_has_a_name_and_a_place_behind_its_service() {
    let (whole, part) = (ServiceName::whole("www"), ServiceName::part("www", "hello"));
    assert_eq!(whole.to_string(), "www");
    assert_eq!(part.to_string(), "www.hello");
    assert_eq!(serde_json::to_value(&part).unwrap(), "www.hello");
    let in_order = [
        ServiceName::whole("api"),
        whole,
        part,
        ServiceName::part("www", "world"),
        ServiceName::whole("zoo"),
    ];
    assert!(in_order.is_sorted_by(|one, other| one < other));
}

/// Each service has a label that no other has, and is meant by it and by its name.
#[test]
fn a_label_names_one_service_and_who_types_it_means_that_one() {
    let (whole, part) = (ServiceName::whole, ServiceName::part);
    let named = |names: &[ServiceName]| Snapshot {
        services: names
            .iter()
            .map(|name| (name.clone(), Arc::new(service(Local::Any, &[]))))
            .collect(),
        ..Snapshot::default()
    };
    let mut names = vec![whole("shop"), part("shop", "blue")];
    let alone = named(&names);
    assert_eq!(&*alone.label(&names[0]), "shop");
    assert_eq!(&*alone.label(&names[1]), "blue_shop");
    assert_eq!(alone.find("blue_shop").unwrap().0, &names[1]);
    names.extend([
        whole("blue_shop"),
        whole("_blue_shop"),
        whole("_shop"),
        part("_shop", "blue"),
        whole("b_shop"),
        part("b_shop", "a.b"),
        part("shop", "a.b"),
    ]);
    let all = named(&names);
    let labels: BTreeSet<_> = names.iter().map(|it| all.label(it)).collect();
    assert_eq!(labels.len(), names.len(), "{labels:?}");
    assert_eq!(&*all.label(&names[1]), "__blue_shop");
    for name in &names {
        let label = all.label(name);
        assert_eq!(all.find(&label).unwrap().0, name, "{label}");
        assert_eq!(all.find(&name.to_string()).unwrap().0, name, "{name}");
    }
    for text in ["", "_", ".", "shop.", "blue", "shop_blue", "green_shop"] {
        assert!(all.find(text).is_none(), "{text}");
    }
}

#[test]
fn a_state_is_the_same_word_everywhere_and_one_of_them_takes_flows() {
    for (state, word) in [
        (State::Usable, "usable"),
        (State::Starting, "starting"),
        (State::L4Down, "l4_down"),
        (State::ConsulWarning, "consul_warning"),
        (State::ConsulCritical, "consul_critical"),
        (State::Maintenance, "maintenance"),
        (State::Draining, "draining"),
        (State::Leaving, "leaving"),
    ] {
        assert_eq!(state.as_str(), word);
        assert_eq!(serde_json::to_value(state).unwrap(), word);
        assert_eq!(state.usable(), state == State::Usable, "{word}");
    }
}

#[test]
fn the_state_of_a_backend_is_the_worst_that_is_said_of_it() {
    let mut backend = Backend::usable(([10, 0, 0, 1], 80).into());
    for state in [ProbeState::Off, ProbeState::Up] {
        backend.probe.state = state;
        assert_eq!(backend.state(), State::Usable);
    }
    backend.probe.state = ProbeState::Starting;
    assert_eq!(backend.state(), State::Starting);
    backend.probe.state = ProbeState::Down;
    assert_eq!(backend.state(), State::L4Down);
    for (said, state) in [
        (SourceHealth::Warning, State::ConsulWarning),
        (SourceHealth::Critical, State::ConsulCritical),
        (SourceHealth::Maintenance, State::Maintenance),
    ] {
        backend.source = said;
        assert_eq!(backend.state(), state);
    }
    backend.order.mode = Mode::Drain;
    assert_eq!(backend.state(), State::Draining);
    backend.order.mode = Mode::Maintenance;
    assert_eq!(backend.state(), State::Maintenance);
    backend.leaving = true;
    assert_eq!(backend.state(), State::Leaving);
}

#[test]
fn those_that_take_new_flows_are_the_usable_ones() {
    let mut service = service(Local::Any, &[(1, true), (0, true), (1, false)]);
    service.backends.values_mut().next().unwrap().leaving = true;
    let usable: Vec<&str> = service.usable().map(|(key, _)| &*key.id).collect();
    assert_eq!(usable, ["1", "2"]);
}

#[test]
fn every_address_of_a_backend_is_told_once_and_its_own_first() {
    let [own, other, published] =
        [[172, 18, 0, 2], [172, 19, 0, 2], [10, 1, 1, 1]].map(|it| SocketAddr::from((it, 80)));
    let reach = Reach {
        networks: [("a".to_owned(), other), ("b".to_owned(), own)].into(),
        published: Some(published),
        ..Reach::default()
    };
    let backend = Backend {
        reach: reach.shared(),
        ..Backend::usable(own)
    };
    let addresses: Vec<_> = backend.addresses().collect();
    assert_eq!(addresses, [own, other, published]);
}
