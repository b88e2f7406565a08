//! What is told from one snapshot to the next.

use super::*;

proptest! {
    #[test]
    fn whoever_applies_each_change_has_the_routes_of_the_newest_snapshot(
        steps in proptest::collection::vec((0_usize..NAMES.len(), step()), 1..30)
    ) {
        let config = RouteConfig::default();
        let mut follower = Follower::new(config.clone());
        let (mut before, mut known) = (Snapshot::default(), Routes::default());
        for (which, step) in steps {
            let mut after = before.clone();
            take(&mut after, NAMES[which], step);
            let change = follower.follow(&before, &after, &config.host_addresses);
            // As it goes over the wire.
            let told = serde_json::from_str(&serde_json::to_string(&change).unwrap()).unwrap();
            prop_assert_eq!(&change, &told);
            known.apply(&told);
            let (expected, expected_problems) = Routes::new(&after, &config);
            prop_assert_eq!(content(&known), content(&expected));
            let problems = |found: &[Problem]| -> BTreeSet<String> {
                found.iter().map(|it| format!("{} {}", it.subject, it.message)).collect()
            };
            let found: Vec<Problem> = follower.problems().cloned().collect();
            prop_assert_eq!(found.len(), expected_problems.len());
            prop_assert_eq!(problems(&found), problems(&expected_problems));
            let again = follower.follow(&after, &after.clone(), &config.host_addresses);
            prop_assert!(again.is_empty(), "{:?}", again);
            before = after;
        }
    }
}

/// Services whose names meet: `a_b` with the part `b` of `a`, whose label is what `b_a` is called, and each with an alias
/// of another.
const NAMES: [(&str, Option<&str>); 6] = [
    ("a", None),
    ("a", Some("b")),
    ("a_b", None),
    ("b_a", None),
    ("c", None),
    ("not a name", None),
];

#[derive(Clone, Debug)]
pub(super) enum Step {
    Leave,
    Alias(&'static str),
    Expose(Option<bool>),
    Deny(Option<Rule>),
    /// Addresses, some of them in the pool.
    Backends(Vec<(u8, bool)>),
}

fn step() -> impl Strategy<Value = Step> {
    let backends = proptest::collection::vec((0_u8..4, any::<bool>()), 0..3);
    prop_oneof![
        Just(Step::Leave),
        prop_oneof![Just("a.b"), Just("c.localhost"), Just("-bad-.")].prop_map(Step::Alias),
        any::<Option<bool>>().prop_map(Step::Expose),
        prop_oneof![
            Just(None),
            Just(Some(Rule::Host)),
            Just(Some(Rule::Network("web".to_owned()))),
            Just(Some(Rule::Net("10.0.0.0/8".parse().unwrap()))),
        ]
        .prop_map(Step::Deny),
        backends.prop_map(Step::Backends),
    ]
}

pub(super) fn take(snapshot: &mut Snapshot, (name, tag): (&str, Option<&str>), step: Step) {
    let name = match tag {
        None => ServiceName::whole(name),
        Some(tag) => ServiceName::part(name, tag),
    };
    if matches!(step, Step::Leave) {
        snapshot.services.remove(&name);
        return;
    }
    if !snapshot.services.contains_key(&name) {
        snapshot
            .services
            .insert(name.clone(), service(&[], &[]).into());
    }
    let new = Arc::make_mut(snapshot.services.get_mut(&name).unwrap());
    match step {
        Step::Leave => {}
        Step::Alias(alias) => {
            if !new.aliases.remove(alias) {
                new.aliases.insert(alias.to_owned());
            }
        }
        Step::Expose(expose) => new.options.expose = expose,
        Step::Deny(rule) => new.options.access.deny = rule.into_iter().collect(),
        Step::Backends(backends) => {
            let backend = |&(n, up): &(u8, bool)| {
                let state = if up { ProbeState::Up } else { ProbeState::Down };
                let mut backend = backend(&format!("198.{}.0.{n}:80", 17 + n % 2), &[]);
                backend.probe.state = state;
                backend
            };
            let backends: Vec<_> = backends.iter().map(backend).collect();
            new.backends = service(&[], &backends).backends;
        }
    }
}

#[test]
fn a_change_of_one_service_tells_of_that_service_only() {
    let names = ["a", "b", "c"];
    let before = snapshot(names.map(whole));
    let mut follower = Follower::new(RouteConfig::default());
    let none = BTreeSet::new();
    let all = follower.follow(&Snapshot::default(), &before, &none);
    assert_eq!((all.hosts.len(), all.services.len()), (15, 3));
    let mut after = before.clone();
    take(&mut after, ("b", None), Step::Backends(vec![(9, true)]));
    let change = follower.follow(&before, &after, &none);
    let labels: Vec<_> = change
        .services
        .iter()
        .map(|(_, it)| it.as_ref().map(|it| &*it.label))
        .collect();
    assert_eq!((change.hosts.len(), labels), (0, vec![Some("b")]));
    // One that leaves takes its names along, and those of the others stay as they are.
    take(&mut after, ("b", None), Step::Leave);
    let change = follower.follow(&before, &after, &none);
    assert_eq!(change.hosts.len(), 5);
    assert!(
        change
            .hosts
            .iter()
            .all(|(host, place)| host.starts_with('b') && place.is_none())
    );
    assert!(matches!(&change.services[..], [(_, None)]));
}

#[test]
fn the_rules_of_a_service_go_along_and_a_change_of_them_alone_is_told() {
    let before = snapshot(["a", "b"].map(whole));
    let mut follower = Follower::new(RouteConfig::default());
    let own = ["192.0.2.1".parse().unwrap()].into();
    let all = follower.follow(&Snapshot::default(), &before, &own);
    assert_eq!(all.host_addresses, Some(own.clone()));
    let mut after = before.clone();
    take(&mut after, ("b", None), Step::Deny(Some(Rule::Host)));
    let change = follower.follow(&before, &after, &own);
    assert_eq!(change.host_addresses, None);
    let [(_, Some(service))] = &change.services[..] else {
        panic!("{change:?}");
    };
    let access = service.access.as_ref().unwrap();
    assert!(!access.admits("192.0.2.1".parse().unwrap(), &own));
    assert!(access.admits("192.0.2.2".parse().unwrap(), &own));
    // The host is known by its new addresses, too.
    let moved = ["192.0.2.2".parse().unwrap()].into();
    let change = follower.follow(&after, &after.clone(), &moved);
    assert_eq!(change.host_addresses, Some(moved));
}

#[test]
fn a_change_of_a_path_or_of_any_rule_alone_is_sent() {
    let config = RouteConfig::default();
    let mut follower = Follower::new(config.clone());
    let mut before = Snapshot::default();
    let mut routes = Routes::default();
    let without = || whole("api");
    let redirected = || {
        let (name, mut api) = whole("api");
        let to = lb_front::rules::Target::Https(None);
        api.options.front = Some(Arc::new(lb_front::rules::Rules {
            redirect: Some(lb_front::rules::Redirect { status: 301, to }),
            ..Default::default()
        }));
        (name, api)
    };
    for api in [
        without(),
        below("api", "/a"),
        below("api", "/b"),
        redirected(),
        without(),
    ] {
        let after = snapshot([api, whole("shop")]);
        let change = follower.follow(&before, &after, &config.host_addresses);
        assert!(!change.is_empty());
        routes.apply(&change);
        let (anew, _) = Routes::new(&after, &config);
        assert_eq!(content(&routes), content(&anew));
        let hosts = |routes: &Routes| -> Vec<_> {
            let all = routes.hosts();
            all.map(|(host, label)| (host, label.to_owned())).collect()
        };
        assert_eq!(hosts(&routes), hosts(&anew));
        let change = follower.follow(&after, &after, &config.host_addresses);
        assert!(change.is_empty());
        before = after;
    }
}
