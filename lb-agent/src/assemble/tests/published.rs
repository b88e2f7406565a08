//! When the stage publishes a snapshot, and when not.

use super::*;

#[tokio::test(start_paused = true)]
async fn before_a_source_answered_only_why_is_published() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    let error = Some("cannot read".to_owned());
    let silent = SourceState {
        error,
        ..SourceState::default()
    };
    stage.source.send_replace(silent);
    let unknown = stage.until(|it| it.sources["file"].error.is_some()).await;
    assert!(!unknown.is_known() && !unknown.answered && !unknown.complete);
    let early = timeout(Duration::from_secs(5), stage.snapshots.changed()).await;
    assert!(early.is_err(), "{:?}", stage.snapshots.borrow());
    let snapshot = stage.serve(WWW).await;
    assert_eq!(snapshot.services.len(), 3);
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_change_is_published_at_once_and_the_next_within_the_window() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    tokio::time::advance(WINDOW * 10).await;
    tokio::task::yield_now().await;

    let began = Instant::now();
    let more = |n: usize| format!("{WWW}[[service]]\nname = \"more{n}\"\n");
    stage.serve(&more(0)).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let mut published = 0;
    for n in 1..=10 {
        stage.source.send_replace(state(&more(n)));
        tokio::task::yield_now().await;
    }
    let last = ServiceName::whole("more10");
    loop {
        let current = stage.snapshots.borrow_and_update().clone().unwrap();
        let service = current.services.get(&last);
        if service.is_some_and(|it| it.vip.is_some()) {
            break;
        }
        stage.snapshots.changed().await.unwrap();
        published += 1;
    }
    assert!(began.elapsed() <= WINDOW * 2, "{:?}", began.elapsed());
    assert!(published <= 2, "{published} snapshots for one burst");
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_any_input_is_published_and_no_change_is_not() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let mut verdicts = Verdicts::NONE;
    verdicts.settled = true;
    for address in ["10.0.0.1:80", "10.0.0.2:80"] {
        let target = (address.parse().unwrap(), CheckKind::Tcp);
        verdicts.put(target, probe(ProbeState::Up));
    }
    stage.verdicts.send_replace(Arc::new(verdicts.clone()));
    stage.until(|it| it.complete).await;
    let problem = Problem::new("front", "cannot listen; free the port");
    stage.problems.send_replace(vec![problem.clone()]);
    stage.until(|it| it.problems.contains(&problem)).await;

    stage.verdicts.send_replace(Arc::new(verdicts));
    stage.problems.send_replace(vec![problem]);
    stage.source.send_replace(state(WWW));
    let idle = timeout(Duration::from_secs(5), stage.snapshots.changed()).await;
    assert!(idle.is_err(), "published without a change");
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn mere_figures_reach_the_reports_and_wake_nobody() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let target = ("10.0.0.1:80".parse().unwrap(), CheckKind::Tcp);
    let verdicts = |took| {
        let mut probe = probe(ProbeState::Up);
        probe.took = Some(took);
        let mut verdicts = Verdicts::NONE;
        verdicts.settled = true;
        verdicts.put(target.clone(), probe);
        Arc::new(verdicts)
    };
    let (fast, slow) = (Duration::from_micros(100), Duration::from_millis(3));
    stage.verdicts.send_replace(verdicts(fast));
    stage.until(|it| it.complete).await;
    stage.snapshots.mark_unchanged();

    let answer = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    stage.verdicts.send_replace(verdicts(slow));
    stage.source.send_if_modified(|state| {
        state.updated = Some(answer);
        false
    });
    let woken = timeout(LOOK_EVERY * 3, stage.snapshots.changed()).await;
    assert!(woken.is_err(), "figures are no news");
    let snapshot = stage.snapshots.borrow().clone().unwrap();
    let www = &snapshot.services[&ServiceName::whole("www")];
    let took: Vec<_> = www.backends.values().map(|it| it.probe.took).collect();
    assert_eq!(took, [Some(slow), None]);
    assert_eq!(snapshot.sources["file"].updated, Some(answer));
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ended_leaves_its_last_word() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let (gone, _) = watch::channel(SourceState::default());
    drop(std::mem::replace(&mut stage.source, gone));
    stage.problems.send_replace(vec![Problem::new("a", "b")]);
    let snapshot = stage.until(|it| !it.problems.is_empty()).await;
    assert_eq!(snapshot.services.len(), 3);
    stage.end().await;
}
