//! The snapshot as a pure function of what the stages say.

use super::*;

#[test]
fn a_domain_tag_makes_a_part_of_the_instances_that_carry_it() {
    let snapshot = snapshot(&[("file", state(WWW))]);
    let shown: Vec<String> = snapshot
        .services
        .iter()
        .map(|(name, service)| {
            let keys: Vec<String> = service.backends.keys().map(ToString::to_string).collect();
            format!("{name}: {}", keys.join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "www: file/a file/b",
            "www.hello: file/a",
            "www.world.dev: file/b"
        ]
    );
    let whole = &snapshot.services[&ServiceName::whole("www")];
    let part = &snapshot.services[&ServiceName::part("www", "hello")];
    assert_eq!(whole.options.balance, Balance::Random);
    assert_eq!(part.options, whole.options);
    assert_eq!(whole.aliases, BTreeSet::from(["shop.test".to_owned()]));
    assert_eq!(part.aliases, BTreeSet::new());
    let weights: Vec<u16> = whole.backends.values().map(|it| it.weight).collect();
    assert_eq!(weights, [1, 7]);
}

#[test]
fn a_backend_is_usable_when_both_levels_agree() {
    let off = "[[service]]\nname = \"off\"\noptions.lb_check = \"off\"\n\
               instance = [{ id = \"x\", address = \"10.0.0.9\", port = 1 }]\n";
    let mut facts = NOTHING;
    let mut judge = |address: &str, state| {
        let target = (address.parse().unwrap(), CheckKind::Tcp);
        facts.verdicts.put(target, probe(state));
    };
    judge("10.0.0.1:80", ProbeState::Up);
    judge("10.0.0.9:1", ProbeState::Down);
    let all = sources(&[("file", state(&format!("{WWW}{off}")))]);
    let snapshot = assemble(&all, &facts.facts());
    let states = |service: &str| -> Vec<State> {
        let service = &snapshot.services[&ServiceName::whole(service)];
        service.backends.values().map(Backend::state).collect()
    };
    assert_eq!(states("www"), [State::Usable, State::Starting]);
    // The verdict on its address belongs to another check.
    assert_eq!(states("off"), [State::Usable]);
}

#[test]
fn the_snapshot_is_complete_when_every_source_answered_and_the_probes_settled() {
    let mut settled = NOTHING;
    settled.verdicts.settled = true;
    let silent = SourceState::default();
    for (states, facts, complete) in [
        (vec![("file", state(WWW))], &settled, true),
        (vec![("file", state(WWW))], &NOTHING, false),
        (
            vec![("consul", silent), ("file", state(WWW))],
            &settled,
            false,
        ),
    ] {
        let snapshot = assemble(&sources(&states), &facts.facts());
        assert_eq!(snapshot.complete, complete, "{states:?}");
    }
}

#[test]
fn problems_of_all_stages_are_united_and_sorted() {
    let wrong = "[[service]]\nname = \"w\"\ntags = [\"lb_balance=x\"]\ninstance = [\n\
                 { id = \"a\", address = \"10.0.0.1\", port = 1 },\n{ id = \"b\", address = \"b\", port = 1 }]\n";
    let mut facts = NOTHING;
    facts
        .vips
        .problems
        .push(Problem::new("pool", "is full; widen it"));
    facts
        .problems
        .push(Problem::new("front", "cannot listen; free the port"));
    facts
        .problems
        .push(Problem::new("front", "cannot listen; free the port"));
    let snapshot = assemble(&sources(&[("file", state(wrong))]), &facts.facts());
    let subjects: Vec<&str> = snapshot
        .problems
        .iter()
        .map(|it| it.subject.as_str())
        .collect();
    assert_eq!(
        subjects,
        ["front", "instance file/b", "pool", "service w"],
        "{:?}",
        snapshot.problems
    );
}

#[test]
fn a_source_that_fails_goes_on_serving_and_says_so() {
    let mut failing = state(WWW);
    failing.error = Some("cannot reach Consul".to_owned());
    let snapshot = snapshot(&[("consul", failing)]);
    assert!(snapshot.services.contains_key(&ServiceName::whole("www")));
    assert_eq!(
        snapshot.sources["consul"].error.as_deref(),
        Some("cannot reach Consul")
    );
}
