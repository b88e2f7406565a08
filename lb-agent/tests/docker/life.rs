//! From the first start of a container to its removal, and the engine's own end.

use std::time::{Duration, Instant};

use lb_agent::docker::{Config, Error, Health, State};

use crate::kit::{Follower, LIMIT, engine, follow, named, start, states};

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_containers_has_none() {
    let docker = engine();
    let mut follower = follow(&docker);
    let known = follower.until(|engine| engine.containers.is_some()).await;
    assert!(known.containers.unwrap().is_empty());
    assert!(known.name.is_some() && known.updated.is_some());
    assert_eq!(known.error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_start_stop_start_again_and_go() {
    let docker = engine();
    let old = start(&docker, "old", &[]);
    let mut follower = follow(&docker);
    follower
        .until_container("old", |it| it.state == State::Running)
        .await;
    start(
        &docker,
        "new",
        &["-p", "8080:80", "-e", "SERVICE_NAME=shop"],
    );
    let new = follower
        .until_container("new", |it| it.state == State::Running)
        .await;
    assert!(
        new.environment
            .contains(&("SERVICE_NAME".into(), "shop".into()))
    );
    assert_eq!((new.published[0].host_port, new.exposed.len()), (8080, 1));

    docker.docker(["stop", "old"]).unwrap();
    let ended = follower
        .until_container("old", |it| it.state != State::Running)
        .await;
    assert_eq!(ended.id, old);
    follower.until_it_agrees_with(&docker).await;
    docker.docker(["start", "old"]).unwrap();
    follower.until_it_agrees_with(&docker).await;
    docker.docker(["restart", "new"]).unwrap();
    follower.until_it_agrees_with(&docker).await;
    docker.docker(["rm", "-f", "old"]).unwrap();
    follower.until_it_agrees_with(&docker).await;
    // For whoever hears of its end late.
    assert!(follower.departed.borrow().contains(&old));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_told_to_stop_is_ending_at_once() {
    let docker = engine();
    let mut follower = follow(&docker);
    // As process 1 it is deaf to SIGTERM: the engine kills it two seconds later.
    let id = docker
        .docker(["run", "-d", "--name", "deaf", "web"])
        .unwrap();
    follower
        .until_container("deaf", |it| it.state == State::Running)
        .await;
    let stop = || docker.docker(["stop", "-t", "2", "deaf"]).unwrap();
    tokio::task::block_in_place(|| {
        std::thread::scope(|threads| {
            let stop = threads.spawn(stop);
            let wait = follower.until_container("deaf", |it| it.state == State::Ending);
            tokio::runtime::Handle::current().block_on(wait);
            // Before anything ended.
            assert!(!stop.is_finished());
            stop.join().unwrap();
        });
    });
    assert!(follower.departed.borrow().contains(&id));
    follower
        .until_container("deaf", |it| it.state == State::Exited(137))
        .await;
    follower.until_it_agrees_with(&docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_told_to_stop_is_ending_to_who_looks_later_too() {
    let docker = engine();
    // As process 1 it is deaf to that.
    start(&docker, "deaf", &[]);
    start(&docker, "other", &[]);
    docker.docker(["kill", "-s", "TERM", "deaf"]).unwrap();
    docker.docker(["kill", "-s", "HUP", "other"]).unwrap();
    let mut late = follow(&docker);
    let known = late.until(|engine| engine.containers.is_some()).await;
    let state = |name| named(&known, name).unwrap().state;
    assert_eq!(
        (state("deaf"), state("other")),
        (State::Ending, State::Running)
    );
    docker.docker(["restart", "deaf"]).unwrap();
    let mut later = follow(&docker);
    let known = later.until(|engine| engine.containers.is_some()).await;
    assert_eq!(named(&known, "deaf").unwrap().state, State::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_may_take_for_ever_to_end_is_read() {
    let docker = engine();
    start(&docker, "patient", &["--stop-timeout", "-1"]);
    let mut follower = follow(&docker);
    let known = follower.until(|engine| engine.containers.is_some()).await;
    assert_eq!(named(&known, "patient").unwrap().state, State::Running);
    assert_eq!(known.error, None);
    docker.docker(["kill", "-s", "TERM", "patient"]).unwrap();
    follower
        .until_container("patient", |it| it.state == State::Ending)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_is_known_before_the_command_returns_for_long() {
    let docker = engine();
    let id = start(&docker, "victim", &[]);
    let mut follower = follow(&docker);
    follower
        .until_container("victim", |it| it.state == State::Running)
        .await;
    docker.docker(["kill", "victim"]).unwrap();
    let killed = Instant::now();
    let mut departed = follower.departed.clone();
    let told = departed.wait_for(|departed| departed.contains(&id));
    tokio::time::timeout(LIMIT, told).await.unwrap().unwrap();
    // A generous bound, for a busy machine; the bench measures it.
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "{:?}",
        killed.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_dies_in_its_first_moment_is_known_to_have_ended() {
    let docker = engine();
    let mut follower = follow(&docker);
    follower.until(|engine| engine.containers.is_some()).await;
    for name in ["brief-1", "brief-2", "brief-3"] {
        let run = ["run", "-d", "--name", name, "web", "/bin/busybox", "false"];
        docker.docker(run).unwrap();
        follower
            .until_container(name, |it| it.state == State::Exited(1))
            .await;
    }
    docker
        .docker([
            "run",
            "--rm",
            "--name",
            "briefer",
            "web",
            "/bin/busybox",
            "true",
        ])
        .unwrap();
    follower.until_it_agrees_with(&docker).await;
    assert_eq!(named(&follower.engine.borrow(), "briefer"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_come_and_go_and_none_is_missed() {
    let docker = engine();
    let mut follower = follow(&docker);
    follower.until(|engine| engine.containers.is_some()).await;
    let names: Vec<String> = (0..20).map(|number| format!("many-{number}")).collect();
    std::thread::scope(|threads| {
        for chunk in names.chunks(5) {
            let docker = &docker;
            threads.spawn(move || {
                for name in chunk {
                    start(docker, name, &[]);
                }
            });
        }
    });
    follower.until_it_agrees_with(&docker).await;
    assert_eq!(states(&follower.engine.borrow()).len(), 20);
    let (gone, stopped) = names.split_at(10);
    let remove = ["rm", "-f"]
        .into_iter()
        .chain(gone.iter().map(String::as_str));
    docker.docker(remove).unwrap();
    let stop = ["kill"]
        .into_iter()
        .chain(stopped.iter().map(String::as_str));
    docker.docker(stop).unwrap();
    follower.until_it_agrees_with(&docker).await;
    assert_eq!(states(&follower.engine.borrow()).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_renames_and_health_are_followed() {
    let docker = engine();
    let mut follower = follow(&docker);
    let health = [
        "--health-cmd",
        "/bin/busybox test -e /ok",
        "--health-interval",
        "200ms",
    ];
    let retries = ["--health-retries", "1", "--health-start-period", "0s"];
    start(&docker, "one", &[&health[..], &retries].concat());
    follower
        .until_container("one", |it| matches!(it.health, Some(Health::Unhealthy(_))))
        .await;
    docker
        .docker(["exec", "one", "/bin/busybox", "touch", "/ok"])
        .unwrap();
    follower
        .until_container("one", |it| it.health == Some(Health::Healthy))
        .await;
    docker.docker(["pause", "one"]).unwrap();
    follower
        .until_container("one", |it| it.state == State::Paused)
        .await;
    docker.docker(["unpause", "one"]).unwrap();
    follower
        .until_container("one", |it| it.state == State::Running)
        .await;
    docker.docker(["rename", "one", "other"]).unwrap();
    follower
        .until_container("other", |it| it.state == State::Running)
        .await;
    assert_eq!(named(&follower.engine.borrow(), "one"), None);
    follower.until_it_agrees_with(&docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_engine_loses_nothing() {
    let mut docker = engine();
    start(&docker, "stays", &["--restart", "always"]);
    start(&docker, "ends", &[]);
    let mut follower = follow(&docker);
    follower
        .until_container("ends", |it| it.state == State::Running)
        .await;
    docker.stop().unwrap();
    let away = follower.until(|engine| engine.error.is_some()).await;
    assert_eq!(away.containers.unwrap().len(), 2);
    docker.run().unwrap();
    follower.until(|engine| engine.error.is_none()).await;
    follower
        .until_container("stays", |it| it.state == State::Running)
        .await;
    follower.until_it_agrees_with(&docker).await;

    docker.kill().unwrap();
    follower.until(|engine| engine.error.is_some()).await;
    docker.run().unwrap();
    follower.until(|engine| engine.error.is_none()).await;
    start(&docker, "new", &[]);
    follower
        .until_container("new", |it| it.state == State::Running)
        .await;
    follower.until_it_agrees_with(&docker).await;
}

#[tokio::test]
async fn a_socket_that_stays_dead_ends_the_stage_if_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let address = lb_agent::docker::Address::Unix(folder.path().join("none.sock"));
    let mut follower = Follower::start_with(Config {
        longest_pause: Duration::from_millis(50),
        give_up_after: Some(Duration::from_millis(300)),
        ..Config::new(address)
    });
    let away = follower.until(|engine| engine.error.is_some()).await;
    assert_eq!(away.containers, None);
    let message = away.error.unwrap();
    assert!(
        message.contains("none.sock") && message.contains("start it"),
        "{message}"
    );
    let ended = tokio::time::timeout(LIMIT, &mut follower.stage)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(ended, Err(Error::Away { .. })), "{ended:?}");
}
