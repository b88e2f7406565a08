//! What Consul is told of checks, and what it says of them.

use super::*;

#[test]
fn a_check_that_somebody_removed_comes_back() {
    let mut a = container("a", State::Running);
    a.health = Some(Health::Healthy);
    let wishes = wished(vec![a]);
    let mut held = held(&wishes);
    held.checks.clear();
    assert!(matches!(steps(&wishes, &held)[0], Step::Register(_)));
}

#[test]
fn a_verdict_is_reported_once_until_it_is_due_and_when_it_changes() {
    let with = |health| {
        let mut a = container("a", State::Running);
        a.health = Some(health);
        wished(vec![a])
    };
    let healthy = with(Health::Healthy);
    let mut now = held(&healthy);
    let check = "service:h:a:80:docker".to_owned();
    let mut memory = Memory::default();
    let first = steps_with(&healthy, &now, &memory);
    let [Step::Report { report, .. }] = &first[..] else {
        panic!("{first:?}");
    };
    assert_eq!(report.status, CheckStatus::Passing);
    carry_out(&mut now, &first);
    memory
        .reported
        .insert(check.clone(), (report.clone(), Instant::now()));
    assert_eq!(steps_with(&healthy, &now, &memory), []);
    let sick = with(Health::Unhealthy("exit 1".to_owned()));
    let report = Report::critical("exit 1");
    assert_eq!(
        steps_with(&sick, &now, &memory),
        [Step::Report {
            check: check.clone(),
            report
        }]
    );
    // Its time was over.
    now.checks.get_mut(&check).unwrap().status = "critical".to_owned();
    assert_eq!(steps_with(&healthy, &now, &memory).len(), 1);
}

#[test]
fn what_consul_removed_for_failing_does_not_come_back_as_passing() {
    let mut it = container("a", State::Running);
    for (key, text) in [
        ("TCP", "1"),
        ("INITIAL_STATUS", "passing"),
        ("DEREGISTER_AFTER", "1m"),
    ] {
        let word = (format!("SERVICE_CHECK_{key}"), text.to_owned());
        it.environment.push(word);
    }
    let wishes = wished(vec![it]);
    let initial = |memory: &Memory, held: &Held| match &steps_with(&wishes, held, memory)[..] {
        [Step::Register(it)] => it.checks[0].initial,
        steps => panic!("{steps:?}"),
    };
    let (mut memory, none) = (Memory::default(), Held::default());
    let passing = Some(CheckStatus::Passing);
    assert_eq!(initial(&memory, &none), passing);
    let mut now = held(&wishes);
    memory.look(&wishes, &now);
    assert_eq!(initial(&memory, &none), None);
    // What is registered then is as it should be.
    carry_out(&mut now, &steps_with(&wishes, &none, &memory));
    assert_eq!(steps_with(&wishes, &now, &memory), []);
    for check in now.checks.values_mut() {
        "passing".clone_into(&mut check.status);
    }
    memory.look(&wishes, &now);
    assert_eq!(initial(&memory, &none), passing);
}

#[test]
fn an_alias_that_passes_for_what_is_gone_is_made_to_look_again() {
    let mut a = container("a", State::Running);
    a.labels
        .insert("SERVICE_CHECK_ALIAS".to_owned(), "b:80".to_owned());
    let both = wished(vec![a.clone(), container("b", State::Running)]);
    let mut held = held(&both);
    let check = "service:h:a:80:check";
    let pass = |held: &mut Held| {
        let check = held.checks.get_mut(check).unwrap();
        "passing".clone_into(&mut check.status);
    };
    pass(&mut held);
    assert_eq!(steps(&both, &held), []);
    let alone = wished(vec![a]);
    let now = steps(&alone, &held);
    carry_out(&mut held, &now);
    pass(&mut held);
    let now = steps(&alone, &held);
    assert!(
        matches!(&now[..], [Step::Register(it)] if it.id == "h:a:80"),
        "{now:?}"
    );
    // It says so itself then.
    carry_out(&mut held, &now);
    assert_eq!(steps(&alone, &held), []);
}
