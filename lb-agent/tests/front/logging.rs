//! The access log in a file that is moved away while requests go on.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lb_agent::front::{LogFile, Supervisor};
use lb_front::log::{LogFormat, LogSettings};
use tokio::sync::watch;

use crate::{
    agent::{Agent, Leftover, reserved},
    agents::await_end,
    kit::{Backend, Client, PATIENCE, Reply, eventually, ok},
    snapshots::snapshot,
};

/// Of an agent whose front logs into `path`, which is opened again on a word of `reopen`.
fn config(
    directory: &Path,
    address: SocketAddr,
    path: &Path,
    reopen: &watch::Sender<()>,
) -> Supervisor {
    let mut config = Agent::config(directory, vec![address]);
    config.settings.log = LogSettings {
        format: Some(LogFormat::Common),
        ..LogSettings::default()
    };
    config.log_file = Some(LogFile {
        path: path.to_owned(),
        reopen: reopen.subscribe(),
    });
    config
}

fn agent(directory: &Path, address: SocketAddr, path: &Path, reopen: &watch::Sender<()>) -> Agent {
    Agent::run(config(directory, address, path, reopen), vec![])
}

/// Asks for `path`, which is there.
fn ask(front: SocketAddr, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n");
    let mut client = Client::connect(front);
    assert_eq!(client.send(request).answer().status, 200);
}

/// Clients that ask for paths of their own until they are told to stop, and then say how many.
struct Clients {
    stop: Arc<AtomicBool>,
    all: Vec<JoinHandle<usize>>,
}

impl Clients {
    fn on(front: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let client = |name: usize| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut client = Client::connect(front);
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let request = format!("GET /{name}-{count} HTTP/1.1\r\nHost: web\r\n\r\n");
                    assert_eq!(client.send(request).answer().status, 200);
                    count += 1;
                }
                count
            })
        };
        let all = (0..4).map(client).collect();
        Self { stop, all }
    }

    /// Everything that was asked for.
    fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        let all = self.all.into_iter().enumerate();
        all.flat_map(|(name, client)| {
            let count = client.join().unwrap();
            (0..count).map(move |at| format!("/{name}-{at}"))
        })
        .collect()
    }
}

/// The paths of all lines in `files`, each of which is whole.
#[track_caller]
fn paths(files: &[PathBuf]) -> Vec<String> {
    let text = files.iter().map(|file| fs::read_to_string(file).unwrap());
    let text = text.collect::<String>();
    assert!(text.is_empty() || text.ends_with('\n'));
    let path = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        assert!(
            line.starts_with("127.0.0.1 - - [") && words.len() == 21,
            "{line}"
        );
        assert_eq!((words[5], words[8], words[10]), ("\"GET", "200", "ok"));
        words[6].to_owned()
    };
    text.lines().map(path).collect()
}

#[test]
fn no_line_is_lost_or_torn_when_the_file_is_moved_away_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let backend = Backend::named("a");
    let (_reserved, address) = reserved();
    let reopen = watch::Sender::new(());
    let agent = agent(directory.path(), address, &path, &reopen);
    agent.publish(snapshot(&[backend.address]));
    let _front = Leftover(agent.pid());
    let clients = Clients::on(address);
    let mut files = vec![path.clone()];
    let has_lines = || {
        fs::metadata(&path)
            .is_ok_and(|it| it.len() > 0)
            .then_some(())
    };
    for number in 1..=5 {
        eventually("lines are written", has_lines);
        let moved = path.with_extension(number.to_string());
        fs::rename(&path, &moved).unwrap();
        files.push(moved);
        reopen.send_replace(());
    }
    eventually("lines are written", has_lines);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let asked = clients.end();
    let written = eventually("every request has its line", || {
        let written = paths(&files);
        (written.len() >= asked.len()).then_some(written)
    });
    assert_eq!(written.len(), asked.len());
    assert_eq!(BTreeSet::from_iter(written), asked);
    agent.stop();
}

#[test]
fn an_agent_that_adopts_a_front_opens_the_file_anew_and_one_without_a_file_takes_it_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let backend = Backend::named("a");
    let (_reserved, address) = reserved();
    let reopen = watch::Sender::new(());
    let first = agent(directory.path(), address, &path, &reopen);
    first.publish(snapshot(&[backend.address]));
    let front = Leftover(first.pid());
    first.die();
    // Nobody was there to be told.
    fs::rename(&path, path.with_extension("1")).unwrap();
    let second = agent(directory.path(), address, &path, &reopen);
    second.publish(snapshot(&[backend.address]));
    assert_eq!(second.pid(), front.0);
    eventually("it is there again", || path.exists().then_some(()));
    ask(address, "/second");
    eventually("the line is there", || {
        (paths(std::slice::from_ref(&path)) == ["/second"]).then_some(())
    });
    second.die();
    let mut config = Agent::config(directory.path(), vec![address]);
    config.settings.log.format = Some(LogFormat::Common);
    let third = Agent::run(config, vec![]);
    third.publish(snapshot(&[backend.address]));
    assert_eq!(third.pid(), front.0);
    third.settled();
    ask(address, "/third");
    third.stop();
    assert_eq!(paths(&[path]), ["/second"]);
}

#[test]
fn a_file_that_cannot_be_opened_is_a_problem_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none/access.log");
    let backend = Backend::named("a");
    let (_reserved, address) = reserved();
    let reopen = watch::Sender::new(());
    let agent = agent(directory.path(), address, &path, &reopen);
    agent.publish(snapshot(&[backend.address]));
    let _front = Leftover(agent.pid());
    eventually("it is told", || {
        let problems = agent.problems.borrow();
        let told = problems
            .iter()
            .any(|it| it.message.contains("none/access.log"));
        told.then_some(())
    });
    ask(address, "/");
    fs::create_dir(path.parent().unwrap()).unwrap();
    reopen.send_replace(());
    eventually("it is there", || path.exists().then_some(()));
    eventually("all is well", || {
        agent.problems.borrow().is_empty().then_some(())
    });
    agent.stop();
}

#[test]
fn a_front_that_drains_still_follows_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (answer, answers) = mpsc::channel::<()>();
    let answers = Mutex::new(answers);
    let backend = Backend::start(move |_| {
        answers.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Reply::Keep(ok("a"))
    });
    let (_reserved, address) = reserved();
    let reopen = watch::Sender::new(());
    let of_kind = |kind: &str| {
        let mut config = config(directory.path(), address, &path, &reopen);
        config.kind = kind.to_owned();
        // It drains at once.
        config.retirement = Duration::ZERO;
        let agent = Agent::run(config, vec![]);
        agent.publish(snapshot(&[backend.address]));
        agent
    };
    let first = of_kind("first");
    let old = Leftover(first.pid());
    first.settled();
    let mut client = Client::connect(address);
    client.send("GET /late HTTP/1.1\r\nHost: web\r\n\r\n");
    eventually("the backend has it", || {
        (!backend.seen().is_empty()).then_some(())
    });
    first.fail();
    let second = of_kind("second");
    second.settled();
    assert_ne!(second.pid(), old.0);
    let moved = path.with_extension("1");
    fs::rename(&path, &moved).unwrap();
    reopen.send_replace(());
    eventually("it has the new file", || {
        let open = fs::read_dir(format!("/proc/{}/fd", old.0)).unwrap();
        let open: Vec<_> = open
            .filter_map(|it| fs::read_link(it.unwrap().path()).ok())
            .collect();
        (open.contains(&path) && !open.contains(&moved)).then_some(())
    });
    answer.send(()).unwrap();
    assert_eq!(client.answer().body, "a");
    await_end(old.0);
    assert_eq!(paths(&[path]), ["/late"]);
    assert!(paths(&[moved]).is_empty());
    second.stop();
}
