use nix::errno::Errno;

use super::*;
use crate::docker::{Container, NetworkMode, State};

fn container(id: &str, pid: u32, started: u64) -> Container {
    Container {
        id: id.to_owned(),
        name: id.to_owned(),
        image: String::new(),
        created: 0,
        environment: Vec::new(),
        labels: BTreeMap::new(),
        exposed: std::collections::BTreeSet::new(),
        published: Vec::new(),
        network: NetworkMode::Networks,
        networks: BTreeMap::new(),
        state: State::Running,
        process: Some(Process { pid, started }),
        health: None,
        runtime: String::new(),
    }
}

fn all<const N: usize>(containers: [Container; N]) -> Containers {
    containers.map(|it| (it.id.clone(), Arc::new(it))).into()
}

fn ids(wanted: &[Wanted]) -> Vec<&str> {
    wanted.iter().map(|it| it.container.as_str()).collect()
}

#[test]
fn a_process_is_looked_at_until_its_cookie_is_known() {
    let mut seen = Seen::default();
    let two = all([container("a", 1, 1), container("b", 2, 1)]);
    let wanted = seen.wanted(&two);
    assert_eq!(ids(&wanted), ["a", "b"]);
    seen.found(wanted, vec![Ok(11), Err(Fault::NotThere)]);
    assert_eq!(seen.cookies(), [("a".to_owned(), 11)].into());
    assert_eq!(seen.pause(), SOON);
    // It may just have ended.
    assert!(seen.faults(&two).is_empty());

    let wanted = seen.wanted(&two);
    assert_eq!(ids(&wanted), ["b"]);
    seen.found(wanted, vec![Err(Fault::NotThere)]);
    assert_eq!(seen.faults(&two), [("b", Fault::NotThere)]);
    assert_eq!(seen.pause(), LATER);

    let wanted = seen.wanted(&two);
    seen.found(wanted, vec![Ok(12)]);
    assert!(seen.faults(&two).is_empty() && seen.wanted(&two).is_empty());
    assert_eq!((seen.cookies().len(), seen.pause()), (2, IDLE));
}

#[test]
fn what_is_denied_is_told_at_once() {
    let mut seen = Seen::default();
    let one = all([container("a", 1, 1)]);
    let wanted = seen.wanted(&one);
    seen.found(wanted, vec![Err(Fault::Denied(Errno::EPERM))]);
    assert_eq!(seen.faults(&one), [("a", Fault::Denied(Errno::EPERM))]);
}

#[test]
fn a_new_process_of_a_container_is_another_one() {
    let mut seen = Seen::default();
    let first = all([container("a", 1, 1)]);
    let wanted = seen.wanted(&first);
    seen.found(wanted, vec![Ok(11)]);
    // The same number, given again.
    let second = all([container("a", 1, 2)]);
    assert_eq!(ids(&seen.wanted(&second)), ["a"]);
    assert!(seen.cookies().is_empty());
    let mut ended = container("a", 1, 2);
    ended.state = State::Exited(0);
    assert!(seen.wanted(&all([ended])).is_empty());
    assert!(seen.by_id.is_empty());
}

#[test]
fn nothing_is_said_before_the_engine_has_told_all() {
    let containers = Some(Arc::new(all([])));
    let engine = |containers: &Option<Arc<Containers>>, networks, error: Option<&str>| Engine {
        containers: containers.clone(),
        networks,
        error: error.map(str::to_owned),
        ..Engine::default()
    };
    assert!(complete(engine(&None, Some(Arc::default()), None)).is_none());
    assert!(complete(engine(&containers, None, None)).is_none());
    assert!(complete(engine(&containers, Some(Arc::default()), None)).is_some());
    // It tells them to nobody.
    assert!(complete(engine(&containers, None, Some("403"))).is_some());
}

#[test]
fn the_same_clients_are_the_same_value() {
    let outputs = Outputs::default();
    let mut clients = outputs.clients.subscribe();
    publish(&outputs.clients, Clients::default());
    let first = clients.borrow_and_update().clone().unwrap();
    publish(&outputs.clients, Clients::default());
    assert!(!clients.has_changed().unwrap());
    assert!(Arc::ptr_eq(&first, &clients.borrow().clone().unwrap()));
}
