//! Maintenance of ours and of others.

use super::*;

#[test]
fn pausing_is_maintenance_and_its_end_ends_only_ours() {
    let running = wished(vec![container("a", State::Running)]);
    let paused = wished(vec![container("a", State::Paused)]);
    let reason = "lb-agent: the container is paused";
    let mut held = held(&running);
    assert_eq!(steps(&paused, &held), [maintain(reason)]);
    let pause = steps(&paused, &held);
    carry_out(&mut held, &pause);
    let id = "h:a:80".to_owned();
    assert_eq!(steps(&running, &held), [Step::Resume { id }]);

    held.checks.get_mut(&maintenance("h:a:80")).unwrap().notes = "disk".to_owned();
    assert_eq!(steps(&running, &held), []);
    assert_eq!(steps(&paused, &held), []);
    // A registration would end it.
    let mut changed = container("a", State::Running);
    changed
        .labels
        .insert("SERVICE_TAGS".to_owned(), "new".to_owned());
    let changed = steps(&wished(vec![changed]), &held);
    assert!(matches!(&changed[..], [Step::Register(_), again] if *again == maintain("disk")));
}

#[test]
fn a_registration_that_ends_our_maintenance_is_the_only_step() {
    let held = held(&wished(vec![container("a", State::Paused)]));
    let ours = held.maintenance("h:a:80");
    assert_eq!(ours, Some("lb-agent: the container is paused"));
    let mut changed = container("a", State::Running);
    changed
        .labels
        .insert("SERVICE_TAGS".to_owned(), "new".to_owned());
    let now = steps(&wished(vec![changed]), &held);
    assert!(matches!(&now[..], [Step::Register(_)]), "{now:?}");
}

#[test]
fn a_maintenance_of_others_is_owed_until_it_is_put_back() {
    let mut changed = container("a", State::Running);
    let before = wished(vec![changed.clone()]);
    changed
        .labels
        .insert("SERVICE_TAGS".to_owned(), "new".to_owned());
    let wishes = wished(vec![changed]);
    let mut held = held(&before);
    carry_out(&mut held, &[maintain("disk")]);
    let planned = steps(&wishes, &held);
    let mut memory = Memory::default();
    memory.owe(&planned);
    // Consul goes away between the two steps.
    carry_out(&mut held, &planned[..1]);
    memory.reset();
    memory.look(&wishes, &held);
    assert!(!held.checks.contains_key(&maintenance("h:a:80")));
    assert_eq!(steps_with(&wishes, &held, &memory), [maintain("disk")]);
    // Nothing is owed to what is wished no more.
    memory.look(&Wishes::default(), &held);
    assert_eq!(memory.owed, BTreeMap::new());
}

#[test]
fn of_two_maintenances_of_ours_the_newer_reason_stands() {
    let paused = wished(vec![container("a", State::Paused)]);
    let mut held = held(&paused);
    held.checks.get_mut(&maintenance("h:a:80")).unwrap().notes = "lb-agent: old".to_owned();
    let now = steps(&paused, &held);
    carry_out(&mut held, &now);
    assert_eq!(
        held.maintenance("h:a:80"),
        Some("lb-agent: the container is paused")
    );
}
