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
    // What Consul may have lost is told again.
    let mut anew = memory.clone();
    anew.reset();
    assert_eq!(steps_with(&healthy, &now, &anew), first);
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

/// A container whose service Consul removes once it fails, and takes for healthy until then.
fn removable(state: State) -> Container {
    let mut it = container("a", state);
    for (key, text) in [
        ("TCP", "1"),
        ("INITIAL_STATUS", "passing"),
        ("DEREGISTER_AFTER", "1m"),
    ] {
        let word = (format!("SERVICE_CHECK_{key}"), text.to_owned());
        it.environment.push(word);
    }
    it
}

/// How the only check begins of what is registered anew.
#[track_caller]
fn initial(wishes: &Wishes, memory: &Memory) -> Option<CheckStatus> {
    match &steps_with(wishes, &Held::default(), memory)[..] {
        [Step::Register(it)] => it.checks[0].initial,
        steps => panic!("{steps:?}"),
    }
}

#[test]
fn what_consul_removed_for_failing_does_not_come_back_as_passing() {
    let wishes = wished(vec![removable(State::Running)]);
    let (mut memory, none) = (Memory::default(), Held::default());
    let passing = Some(CheckStatus::Passing);
    assert_eq!(initial(&wishes, &memory), passing);
    let mut now = held(&wishes);
    memory.look(&wishes, &now);
    assert_eq!(initial(&wishes, &memory), None);
    // What is registered then is as it should be.
    carry_out(&mut now, &steps_with(&wishes, &none, &memory));
    assert_eq!(steps_with(&wishes, &now, &memory), []);
    for check in now.checks.values_mut() {
        "passing".clone_into(&mut check.status);
    }
    memory.look(&wishes, &now);
    assert_eq!(initial(&wishes, &memory), passing);
}

#[test]
fn that_something_failed_is_known_until_its_container_ends_or_it_should_be_otherwise() {
    let wishes = wished(vec![removable(State::Running)]);
    let mut failed = Memory::default();
    failed.look(&wishes, &held(&wishes));
    // Consul has removed it.
    failed.look(&wishes, &Held::default());
    assert_eq!(initial(&wishes, &failed), None);
    let mut changed = removable(State::Running);
    let tag = ("SERVICE_TAGS".to_owned(), "new".to_owned());
    changed.environment.push(tag);
    for between in [changed, removable(State::Ending)] {
        let mut memory = failed.clone();
        memory.look(&wished(vec![between]), &Held::default());
        memory.look(&wishes, &Held::default());
        assert_eq!(initial(&wishes, &memory), Some(CheckStatus::Passing));
    }
}

#[test]
fn what_consul_took_without_scripts_only_stays_until_it_should_be_otherwise() {
    let wishes = wished(vec![removable(State::Running)]);
    let registration = &wishes.services["h:a:80"].registration;
    let mut instead = registration.clone();
    instead.checks.clear();
    let mark = instead.meta.get_mut(CHECKS).unwrap();
    "without".clone_into(mark);
    let mut held = Held::default();
    carry_out(&mut held, &[Step::Register(Box::new(instead.clone()))]);
    let mut memory = Memory::default();
    assert_eq!(steps_with(&wishes, &held, &memory).len(), 1);
    let kept = (registration.clone(), instead);
    memory.without_scripts.insert("h:a:80".to_owned(), kept);
    assert_eq!(steps_with(&wishes, &held, &memory), []);
    let mut changed = removable(State::Running);
    let tag = ("SERVICE_TAGS".to_owned(), "new".to_owned());
    changed.environment.push(tag);
    let now = steps_with(&wished(vec![changed]), &held, &memory);
    assert!(
        matches!(&now[..], [Step::Register(it)] if it.tags == ["new"] && it.checks.len() == 1),
        "{now:?}"
    );
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
