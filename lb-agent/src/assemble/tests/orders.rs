//! Operators' orders: what they do to the snapshot, and how they outlive the agent.

use super::*;

/// As the version before this one wrote it.
const VERSION_1: &str = r#"{
  "version": 1,
  "value": [
    {
      "service": "www",
      "instance": {
        "node": "file",
        "id": "a"
      }
    },
    {
      "service": "gone",
      "instance": {
        "node": "n1",
        "id": "b"
      }
    }
  ]
}
"#;

#[tokio::test]
async fn drains_outlive_the_agent_and_end_with_their_instance() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let outcome = stage.drain("www", Some("a"), false).await.unwrap();
    assert_eq!(outcome.matched, [key("a")]);
    assert_eq!(outcome.order.mode, Mode::Drain);
    stage.until(|it| drained(it) == ["file/a"]).await;
    stage.end().await;

    let mut stage = Stage::start(directory.path());
    assert_eq!(drained(&*stage.serve(WWW).await), ["file/a"]);
    stage.drain("www", None, false).await.unwrap();
    stage.until(|it| drained(it) == ["file/a", "file/b"]).await;
    let outcome = stage.drain("www", Some("file/a"), true).await.unwrap();
    assert_eq!(outcome.order.mode, Mode::Ready);
    stage.until(|it| drained(it) == ["file/b"]).await;

    // It leaves, and another process comes back under its id.
    let (without_b, _) = WWW.rsplit_once("[[service.instance]]").unwrap();
    stage.serve(without_b).await;
    let one = |it: &Snapshot| it.services[&ServiceName::whole("www")].backends.len() == 1;
    stage.until(one).await;
    stage.serve(WWW).await;
    let two = |it: &Snapshot| it.services[&ServiceName::whole("www")].backends.len() == 2;
    assert_eq!(drained(&*stage.until(two).await), Vec::<String>::new());
    stage.end().await;
}

#[tokio::test]
async fn a_drain_goes_with_a_container_that_is_renamed_and_not_to_another_one() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    let called = |id: &str, container: &str| {
        let mut state = in_containers(WWW);
        let catalog = Arc::make_mut(state.catalog.as_mut().unwrap());
        for instances in catalog.services.values_mut() {
            let renamed = instances.iter().map(|it| {
                let mut it = Instance::clone(it);
                if it.key == key("b") {
                    it.key = key(id);
                    it.container = Some(container.to_owned());
                }
                Arc::new(it)
            });
            *instances = renamed.collect();
        }
        state
    };
    stage.serve(WWW).await;
    stage.source.send_replace(called("b", "container-b"));
    let b = |it: &Snapshot| it.services[&ServiceName::whole("www")].backends[&key("b")].clone();
    stage.until(|it| b(it).container.is_some()).await;
    stage.drain("www", Some("b"), false).await.unwrap();
    stage.source.send_replace(called("c", "container-b"));
    stage.until(|it| drained(it) == ["file/c"]).await;
    stage.source.send_replace(called("d", "container-d"));
    let has_d = |it: &Snapshot| {
        let www = &it.services[&ServiceName::whole("www")];
        www.backends.contains_key(&key("d"))
    };
    assert!(drained(&*stage.until(has_d).await).is_empty());
    stage.end().await;
}

#[tokio::test]
async fn drains_of_the_version_before_are_kept_and_written_as_orders() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("drains.json");
    std::fs::write(&file, VERSION_1).unwrap();
    let mut stage = Stage::start(directory.path());
    let snapshot = stage.serve(WWW).await;
    assert_eq!(drained(&snapshot), ["file/a"]);
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    let deadline = Some(Duration::from_secs(60));
    let ordered = stage.order("www", Some("b"), Mode::Maintenance, deadline);
    let until = ordered.await.unwrap().order.until.unwrap();
    stage.end().await;
    let text = std::fs::read_to_string(&file).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    let until = until.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let instance = |id| serde_json::json!({ "node": "file", "id": id });
    let expect = serde_json::json!({ "version": 2, "value": [
        { "service": "www", "instance": instance("a"), "mode": "drain" },
        { "service": "www", "instance": instance("b"), "mode": "maintenance",
          "until_unix_ms": until.as_millis() },
    ]});
    assert_eq!(kept, expect);
}

#[tokio::test]
async fn maintenance_and_deadlines_outlive_the_agent_and_the_last_order_holds() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let deadline = Some(Duration::from_secs(60));
    let before = SystemTime::now();
    let outcome = stage.order("www", Some("a"), Mode::Drain, deadline);
    let outcome = outcome.await.unwrap();
    assert!(outcome.order.until.unwrap() >= before + Duration::from_secs(60));
    let orders = |it: &Snapshot| {
        let www = &it.services[&ServiceName::whole("www")];
        let orders = www.backends.values().map(|it| it.order);
        orders.collect::<Vec<_>>()
    };
    let expect = [outcome.order, Order::default()];
    stage.until(|it| orders(it) == expect).await;
    stage.end().await;

    let mut stage = Stage::start(directory.path());
    assert_eq!(orders(&*stage.serve(WWW).await), expect);
    // Another mode without a deadline: nothing of the former one is left.
    let outcome = stage.order("www", Some("a"), Mode::Maintenance, None);
    let maintenance = outcome.await.unwrap().order;
    assert_eq!(maintenance.until, None);
    let expect = [maintenance, Order::default()];
    let snapshot = stage.until(|it| orders(it) == expect).await;
    let www = &snapshot.services[&ServiceName::whole("www")];
    assert_eq!(www.backends[&key("a")].state(), State::Maintenance);
    stage.drain("www", None, true).await.unwrap();
    stage.until(|it| orders(it) == [Order::default(); 2]).await;
    stage.end().await;
    let text = std::fs::read_to_string(directory.path().join("drains.json")).unwrap();
    assert!(text.contains("\"value\": []"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_no_answer_and_ends_no_drain() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    stage.drain("www", Some("b"), false).await.unwrap();
    stage.end().await;

    let mut stage = Stage::start(directory.path());
    let (without_b, _) = WWW.rsplit_once("[[service.instance]]").unwrap();
    let kept = SourceState {
        kept: true,
        ..state(without_b)
    };
    stage.source.send_replace(kept);
    let snapshot = stage.until(|it| it.services.len() == 2).await;
    assert!(snapshot.stopgap && !snapshot.answered && !snapshot.complete);
    stage.source.send_replace(state(WWW));
    let snapshot = stage.until(|it| it.answered).await;
    assert_eq!(
        (snapshot.stopgap, drained(&snapshot)),
        (false, vec!["file/b".to_owned()])
    );
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_answered_with_the_number_of_the_snapshot_that_shows_it() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    let number = stage.serve(WWW).await.number;
    let ordered = stage.drain("www", Some("a"), false).await.unwrap();
    assert_eq!(ordered.snapshot, number + 1);
    let snapshot = stage.until(|it| it.number > number).await;
    assert_eq!(snapshot.number, ordered.snapshot);
    assert_eq!(drained(&snapshot), ["file/a"]);
    // What is so already was shown already.
    let again = stage.drain("www", Some("a"), false).await.unwrap();
    assert_eq!(again.snapshot, ordered.snapshot);
    // Within one window, so that nothing is changed in the end; whoever ordered it waits for a number all the same.
    for undo in [true, false] {
        let outcome = stage.drain("www", Some("a"), undo).await.unwrap();
        assert_eq!(outcome.snapshot, ordered.snapshot + 1, "undo: {undo}");
    }
    let snapshot = stage.until(|it| it.number > ordered.snapshot).await;
    assert_eq!(snapshot.number, ordered.snapshot + 1);
    assert_eq!(drained(&snapshot), ["file/a"]);
    stage.end().await;
}

#[tokio::test]
async fn a_drain_of_something_unknown_names_what_there_is() {
    let directory = TempDir::new().unwrap();
    let mut stage = Stage::start(directory.path());
    stage.serve(WWW).await;
    let error = stage.drain("wwww", None, false).await.unwrap_err();
    assert_eq!(error, "there is no service wwww; there are: www");
    let error = stage.drain("www", Some("c"), false).await.unwrap_err();
    assert_eq!(
        error,
        "service www has no backend c; it has: file/a, file/b"
    );
    for part in ["www.hello", "hello_www"] {
        let outcome = stage.drain(part, None, false).await.unwrap();
        assert_eq!(outcome.matched, [key("a")], "{part}");
    }
    stage.end().await;
}

#[tokio::test]
async fn drains_that_cannot_be_kept_are_refused() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing");
    let mut stage = Stage::start(&missing);
    stage.serve(WWW).await;
    let error = stage.drain("www", None, false).await.unwrap_err();
    assert!(error.contains("cannot write"), "{error}");
    assert!(error.contains("drains.json"), "{error}");
    assert!(drained(&*stage.serve(WWW).await).is_empty());
    stage.end().await;
}

#[tokio::test]
async fn a_damaged_file_of_drains_is_told_and_harms_nothing() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("drains.json"), "{").unwrap();
    let mut stage = Stage::start(directory.path());
    let snapshot = stage.serve(WWW).await;
    assert_eq!(snapshot.problems.len(), 1);
    assert!(snapshot.problems[0].message.contains("set aside"));
    stage.drain("www", Some("b"), false).await.unwrap();
    stage.until(|it| drained(it) == ["file/b"]).await;
    stage.end().await;
}

#[test]
fn a_drain_concerns_one_instance_of_one_service() {
    let two = WWW.to_owned() + &WWW.replace("\"www\"", "\"xxx\"");
    let mut facts = NOTHING;
    let ordered = BTreeMap::from([(key("a"), DRAIN)]);
    facts.orders.insert("www".to_owned(), ordered);
    let snapshot = assemble(&sources(&[("file", state(&two))]), &facts.facts());
    let mut drained = Vec::new();
    for (name, service) in &snapshot.services {
        for (key, _) in service
            .backends
            .iter()
            .filter(|(_, it)| it.order.mode == Mode::Drain)
        {
            drained.push(format!("{name} {key}"));
        }
    }
    assert_eq!(drained, ["www file/a", "www.hello file/a"]);
}
