//! The `file` source against real files: every way an editor, a script or an operator replaces one.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows tests, not what stands beside them"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_agent::{
    catalog::SourceState,
    discover::file::{self, FileConfig},
};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// A running source on a file in a directory of its own.
struct Source {
    directory: TempDir,
    states: watch::Receiver<SourceState>,
    stop: CancellationToken,
    stage: JoinHandle<Result<(), file::Error>>,
}

impl Source {
    /// Starts the source; `prepare` gets the path of the file first.
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let directory = TempDir::with_prefix("lb-file-source-").unwrap();
        let path = directory.path().join("services.toml");
        prepare(&path);
        let (out, states) = watch::channel(SourceState::default());
        let stop = CancellationToken::new();
        let stage = tokio::spawn(file::run(FileConfig { path }, out, stop.clone()));
        Self {
            directory,
            states,
            stop,
            stage,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("services.toml")
    }

    /// Waits for a state that fulfils `condition`.
    async fn until(&mut self, condition: impl FnMut(&SourceState) -> bool) -> SourceState {
        let state = timeout(DEADLINE, self.states.wait_for(condition)).await;
        state.expect("in time").expect("the source runs").clone()
    }

    async fn until_serving(&mut self, service: &str) -> SourceState {
        let serves = |state: &SourceState| names(state) == [service] && state.error.is_none();
        self.until(serves).await
    }

    async fn end(self) {
        self.stop.cancel();
        let ended = timeout(DEADLINE, self.stage).await;
        ended
            .expect("in time")
            .expect("no panic")
            .expect("no fault");
    }
}

fn names(state: &SourceState) -> Vec<&str> {
    let services = state.catalog.iter().flat_map(|it| it.services.keys());
    services.map(|it| &**it).collect()
}

fn text(service: &str) -> String {
    format!(
        "[[service]]\nname = \"{service}\"\ninstance = [{{ id = \"a\", address = \"127.0.0.1\", port = 1 }}]\n"
    )
}

fn write(path: &Path, service: &str) {
    fs::write(path, text(service)).unwrap();
}

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_file_replaced_by_a_rename_is_read_again() {
    let mut source = Source::start(|path| write(path, "one"));
    source.until_serving("one").await;
    for round in ["two", "three"] {
        let other = source.directory.path().join(".services.toml.new");
        write(&other, round);
        fs::rename(&other, source.path()).unwrap();
        source.until_serving(round).await;
    }
    source.end().await;
}

#[tokio::test]
async fn a_file_written_in_place_is_read_again_and_never_seen_empty() {
    let mut source = Source::start(|path| write(path, "first"));
    source.until_serving("first").await;
    let mut every_state = source.states.clone();
    let watcher = tokio::spawn(async move {
        let mut empty = 0;
        while every_state.changed().await.is_ok() {
            empty += usize::from(names(&every_state.borrow_and_update()).is_empty());
        }
        empty
    });
    for round in 0..20 {
        let service = format!("round-{round}");
        // Truncates, then writes.
        write(&source.path(), &service);
        source.until_serving(&service).await;
    }
    source.end().await;
    assert_eq!(
        watcher.await.unwrap(),
        0,
        "a half-written file was believed"
    );
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_services_until_it_is_mended() {
    let mut source = Source::start(|path| write(path, "good"));
    let first = source.until_serving("good").await;
    fs::write(source.path(), "[[service]]\nnmae = \"x\"\n").unwrap();
    let broken = source.until(|state| state.error.is_some()).await;
    assert_eq!(names(&broken), ["good"]);
    assert_eq!(broken.updated, first.updated);
    let error = broken.error.unwrap();
    assert!(error.contains("services.toml is wrong: line 1"), "{error}");
    assert!(
        error.contains("line 2: [[service]] has no key `nmae`"),
        "{error}"
    );
    write(&source.path(), "mended");
    source.until_serving("mended").await;
    source.end().await;
}

#[tokio::test]
async fn a_missing_file_is_an_error_and_not_an_empty_catalog() {
    let mut source = Source::start(|_| {});
    let missing = source.until(|state| state.error.is_some()).await;
    assert!(missing.catalog.is_none());
    assert!(missing.error.unwrap().contains("services.toml"));
    write(&source.path(), "late");
    source.until_serving("late").await;
    source.end().await;
}

#[tokio::test]
async fn a_removed_file_keeps_its_services() {
    let mut source = Source::start(|path| write(path, "kept"));
    source.until_serving("kept").await;
    fs::remove_file(source.path()).unwrap();
    let removed = source.until(|state| state.error.is_some()).await;
    assert_eq!(names(&removed), ["kept"]);
    write(&source.path(), "back");
    source.until_serving("back").await;
    source.end().await;
}

#[tokio::test]
async fn a_directory_that_appears_later_is_found() {
    let directory = TempDir::with_prefix("lb-file-source-").unwrap();
    let path = directory.path().join("later/services.toml");
    let (out, mut states) = watch::channel(SourceState::default());
    let stop = CancellationToken::new();
    let config = FileConfig { path: path.clone() };
    let stage = tokio::spawn(file::run(config, out, stop.clone()));
    let missing = timeout(DEADLINE, states.wait_for(|state| state.error.is_some())).await;
    assert!(missing.unwrap().unwrap().catalog.is_none());
    fs::create_dir(path.parent().unwrap()).unwrap();
    write(&path, "found");
    let found = timeout(DEADLINE, states.wait_for(|state| state.catalog.is_some())).await;
    assert_eq!(names(&found.unwrap().unwrap()), ["found"]);
    stop.cancel();
    stage.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_directory_replaced_by_another_is_watched_again() {
    let mut source = Source::start(|path| write(path, "one"));
    source.until_serving("one").await;
    let directory = source.directory.path();
    fs::remove_dir_all(directory).unwrap();
    fs::create_dir(directory).unwrap();
    write(&source.path(), "two");
    source.until_serving("two").await;
    // A look alone takes two seconds at least, since it must find the same twice.
    let began = Instant::now();
    write(&source.path(), "three");
    source.until_serving("three").await;
    assert!(began.elapsed() < Duration::from_millis(1500));
    source.end().await;
}

#[tokio::test]
async fn a_symbolic_link_turned_elsewhere_is_followed() {
    // As Kubernetes mounts a config map: services.toml -> ..data/services.toml, ..data -> ..<date>.
    let mut source = Source::start(|path| {
        let directory = path.parent().unwrap();
        for version in ["..1", "..2"] {
            fs::create_dir(directory.join(version)).unwrap();
            write(
                &directory.join(version).join("services.toml"),
                &version[2..],
            );
        }
        std::os::unix::fs::symlink("..1", directory.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/services.toml", path).unwrap();
    });
    source.until_serving("1").await;
    let fresh = source.directory.path().join("..data_tmp");
    std::os::unix::fs::symlink("..2", &fresh).unwrap();
    fs::rename(&fresh, source.directory.path().join("..data")).unwrap();
    source.until_serving("2").await;
    source.end().await;
}

#[tokio::test]
async fn a_directory_in_its_place_is_refused() {
    let mut source = Source::start(|path| fs::create_dir(path).unwrap());
    let refused = source.until(|state| state.error.is_some()).await;
    assert!(refused.error.unwrap().contains("not a regular file"));
    source.end().await;
}
