use std::{fs, os::unix::fs::PermissionsExt as _};

use lb_testkit::eventually;
use tempfile::TempDir;
use tokio::time::sleep;

use super::*;
use crate::vip::Pool;

/// A program that writes down what it is told, and then does `more`.
fn program(folder: &TempDir, more: &str) -> PathBuf {
    let (program, log) = (folder.path().join("hook"), folder.path().join("log"));
    let text = format!("#!/bin/sh\necho \"$@\" >> {}\n{more}\n", log.display());
    // Nobody may have it open for writing when it is run.
    let new = folder.path().join("hook.new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, &program).unwrap();
    program
}

fn log(folder: &TempDir) -> Vec<String> {
    let text = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The task, and what it listens to.
struct Scene {
    folder: TempDir,
    announcing: watch::Sender<Announcing>,
    vips: watch::Sender<Vips>,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    keep: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Scene {
    fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (announcing, of_owner) = watch::channel(Announcing::default());
        let (vips, of_vips) = watch::channel(None);
        let (status_in, status) = watch::channel(Status::default());
        let hook = Hook {
            program: program(&folder, more),
            pools: Pools {
                v4: Pool::default(),
                v6: None,
            },
            announcing: of_owner,
            vips: of_vips,
            status: status_in,
            metrics: Arc::default(),
        };
        let (stop, keep) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(hook.run(stop.clone(), keep.clone()));
        Self {
            folder,
            announcing,
            vips,
            status,
            stop,
            keep,
            task,
        }
    }

    fn owner(&self, mine: bool) {
        self.announcing.send_replace(Announcing {
            mine,
            since: Some(std::time::SystemTime::now()),
            ..Announcing::default()
        });
    }

    fn publish(&self, last: &[u8]) {
        let vips = last.iter().map(|it| [198, 18, 0, *it].into());
        self.vips.send_replace(Some(Arc::new(vips.collect())));
    }

    async fn said(&self, lines: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while log(&self.folder) != lines {
            let log = log(&self.folder);
            assert!(Instant::now() < deadline, "{log:?} instead of {lines:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) -> TempDir {
        self.stop.cancel();
        self.task.await.unwrap();
        self.folder
    }
}

#[tokio::test]
async fn it_is_told_what_is_taken_what_comes_later_what_goes_and_that_it_is_over() {
    let scene = Scene::start("");
    scene.owner(true);
    scene.publish(&[7, 8]);
    scene.said(&["take 198.18.0.7 198.18.0.8"]).await;
    scene.publish(&[8, 9]);
    let mut lines = vec![
        "take 198.18.0.7 198.18.0.8",
        "release 198.18.0.7",
        "take 198.18.0.9",
    ];
    scene.said(&lines).await;
    scene.owner(false);
    lines.push("release 198.18.0.8 198.18.0.9");
    scene.said(&lines).await;
    scene.owner(true);
    lines.push("take 198.18.0.8 198.18.0.9");
    scene.said(&lines).await;
    let folder = scene.end().await;
    lines.push("release 198.18.0.8 198.18.0.9");
    assert_eq!(log(&folder), lines);
}

#[tokio::test]
async fn nothing_is_released_where_another_agent_follows() {
    let scene = Scene::start("");
    scene.owner(true);
    scene.publish(&[7]);
    scene.said(&["take 198.18.0.7"]).await;
    scene.keep.cancel();
    let folder = scene.end().await;
    assert_eq!(log(&folder), ["take 198.18.0.7"]);
}

#[tokio::test]
async fn what_a_killed_agent_took_is_released_once_it_is_known_that_it_is_not_ours() {
    let scene = Scene::start("");
    scene.publish(&[7]);
    // Nobody knows yet who is the owner, so nothing is said.
    tokio::task::yield_now().await;
    scene.owner(false);
    scene.said(&["release 198.18.0.7"]).await;
    scene.publish(&[7, 8]);
    scene.owner(true);
    scene
        .said(&["release 198.18.0.7", "take 198.18.0.7 198.18.0.8"])
        .await;
    scene.end().await;
}

#[tokio::test]
async fn the_end_of_a_lease_releases_although_nobody_tells() {
    let scene = Scene::start("");
    scene.publish(&[7]);
    scene.announcing.send_replace(Announcing {
        mine: true,
        since: Some(std::time::SystemTime::now()),
        until: Some(Moment::now().after(Duration::from_millis(300))),
        ..Announcing::default()
    });
    scene.said(&["take 198.18.0.7", "release 198.18.0.7"]).await;
    scene.end().await;
}

#[tokio::test]
async fn a_failure_is_told_with_its_last_words_and_what_to_do() {
    let mut scene = Scene::start("echo first >&2; echo no such neighbour >&2; exit 3");
    scene.owner(true);
    scene.publish(&[7]);
    let told = scene.status.wait_for(|it| it.hook.is_some()).await;
    let told = told.unwrap().hook.clone().unwrap();
    assert!(
        told.contains("take: it failed (exit status: 3): no such neighbour; correct it"),
        "{told}"
    );
    scene.end().await;
}

#[tokio::test]
async fn one_that_hangs_is_ended_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let child = folder.path().join("child");
    let more = format!("sleep 600 & echo $! > {}; wait", child.display());
    let program = program(&folder, &more);
    let began = Instant::now();
    let failed = call(&program, "take", &[], Duration::from_millis(500)).await;
    assert!(
        failed
            .unwrap_err()
            .starts_with("it was ended after 0.5 seconds")
    );
    assert!(began.elapsed() < Duration::from_secs(3));
    let child = fs::read_to_string(child).unwrap();
    let gone = eventually(Duration::from_secs(5), || {
        // A zombie that nobody has taken away yet is gone as well.
        let status = fs::read_to_string(format!("/proc/{}/status", child.trim()));
        match status {
            Ok(status) if !status.contains("State:\tZ") => Err(status),
            _ => Ok(()),
        }
    });
    gone.unwrap();
}

#[tokio::test]
async fn one_that_is_not_there_is_told() {
    let failed = call(Path::new("/nonexistent/hook"), "take", &[], LIMIT).await;
    let told = failed.unwrap_err();
    assert!(told.contains("cannot be started"), "{told}");
}
