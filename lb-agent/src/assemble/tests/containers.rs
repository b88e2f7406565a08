//! What containers of this host say of their instances.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_takes_its_backend_out_at_once() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    stage.source.send_replace(in_containers(WWW));
    tokio::task::yield_now().await;
    let began = Instant::now();
    let gone = BTreeSet::from(["container-b".to_owned(), "container-x".to_owned()]);
    stage.departed.send_replace(Arc::new(gone));
    let states = |it: &Snapshot, name: ServiceName| -> Vec<State> {
        let service = &it.services[&name];
        service.backends.values().map(Backend::state).collect()
    };
    let www = || ServiceName::whole("www");
    let left = |it: &Snapshot| states(it, www()) == [State::Starting, State::Leaving];
    let snapshot = stage.until(left).await;
    assert!(began.elapsed() < SHORTEST_WINDOW, "{:?}", began.elapsed());
    let part = ServiceName::part("www", "world.dev");
    assert_eq!(states(&snapshot, part), [State::Leaving]);
    // Its container was only said to end, and goes on.
    stage.departed.send_replace(Arc::default());
    let back = |it: &Snapshot| states(it, www()) == [State::Starting, State::Starting];
    stage.until(back).await;
    stage.end().await;
}

#[test]
fn a_container_of_another_host_is_not_ours_to_know_of() {
    let mut source = in_containers(WWW);
    let catalog = Arc::make_mut(source.catalog.as_mut().unwrap());
    for instances in catalog.services.values_mut() {
        let remote = instances.iter().map(|it| {
            let it = Instance::clone(it);
            Arc::new(Instance { local: false, ..it })
        });
        *instances = remote.collect();
    }
    let mut facts = NOTHING;
    facts.departed.insert("container-a".to_owned());
    let snapshot = assemble(&sources(&[("consul", source)]), &facts.facts());
    let www = &snapshot.services[&ServiceName::whole("www")];
    assert!(www.backends.values().all(|it| !it.leaving));
}

#[test]
fn what_was_said_of_a_container_is_not_believed_of_the_next_one_at_its_address() {
    let state = |of: &str| {
        let mut facts = NOTHING;
        let target = ("10.0.0.1:80".parse().unwrap(), CheckKind::Tcp);
        facts
            .verdicts
            .put_on(target, [of.into()], probe(ProbeState::Up));
        let snapshot = assemble(&sources(&[("docker", in_containers(WWW))]), &facts.facts());
        let backend = &snapshot.services[&ServiceName::whole("www")].backends[&key("a")];
        assert_eq!(backend.container.as_deref(), Some("container-a"));
        backend.state()
    };
    assert_eq!(state("container-a"), State::Usable);
    assert_eq!(state("container-z"), State::Starting);
}
