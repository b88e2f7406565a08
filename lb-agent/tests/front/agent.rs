//! An agent's side of a front, and the front: this test binary again, running one test that becomes it when it is started with
//! a control socket.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use clap::Parser;
use lb_agent::{
    catalog::Problem,
    front::{End, Metrics, Outputs, SuperviseError, Supervisor, supervise},
    snapshot::Snapshot,
};
use lb_front::{ChildArgs, FrontStats, child_main};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle};

use crate::kit::{Client, PATIENCE, eventually};

#[test]
fn becomes_the_front_when_started_as_one() {
    if std::env::var("LISTEN_FDNAMES")
        .is_ok_and(|names| names.split(':').any(|name| name == "control"))
    {
        let arguments = std::env::var("FRONT_ARGUMENTS").unwrap();
        let arguments = ["front"].into_iter().chain(arguments.split(' '));
        child_main(&Arguments::parse_from(arguments).front).unwrap();
    }
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    front: ChildArgs,
}

/// An agent's side of a front, as a stage of its own runtime.
pub(crate) struct Agent {
    pub(crate) runtime: Runtime,
    pub(crate) stage: JoinHandle<Result<(), SuperviseError>>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub(crate) stats: watch::Receiver<Option<FrontStats>>,
    pub(crate) problems: watch::Receiver<Vec<Problem>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) end: End,
}

impl Agent {
    pub(crate) fn start(directory: &Path, listeners: Vec<TcpListener>) -> Self {
        Self::listening(directory, listeners, vec![])
    }

    pub(crate) fn listening(
        directory: &Path,
        listeners: Vec<TcpListener>,
        listen: Vec<SocketAddr>,
    ) -> Self {
        Self::run(Self::config(directory, listen), listeners)
    }

    /// The usual front, but of this test's making.
    pub(crate) fn config(directory: &Path, listen: Vec<SocketAddr>) -> Supervisor {
        let exe = std::env::current_exe().unwrap();
        let mut config = Supervisor::new(directory.join("front.sock"), listen);
        // libtest refuses flags of ours: a shell drops them.
        config.program = "/bin/sh".into();
        let script = format!(
            "export FRONT_ARGUMENTS=\"$0 $*\"
             exec {exe:?} --exact agent::becomes_the_front_when_started_as_one --quiet >/dev/null"
        );
        config.arguments = vec!["-c".into(), script.into()];
        config.workers = 2;
        config.grace = PATIENCE;
        config
    }

    pub(crate) fn run(config: Supervisor, listeners: Vec<TcpListener>) -> Self {
        let (snapshots, snapshots_in) = watch::channel(None);
        let (stats_out, stats) = watch::channel(None);
        let (problems_out, problems) = watch::channel(Vec::new());
        let end = End::default();
        let runtime = Runtime::new().unwrap();
        let metrics = Arc::new(Metrics::default());
        let outputs = Outputs {
            stats: stats_out,
            problems: problems_out,
            routed: watch::Sender::new(None),
            metrics: metrics.clone(),
        };
        let run = supervise(config, listeners, snapshots_in, outputs, end.clone());
        Self {
            stage: runtime.spawn(run),
            runtime,
            snapshots,
            stats,
            problems,
            metrics,
            end,
        }
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
    }

    /// Waits until requests follow what was published.
    pub(crate) fn settled(&self) {
        eventually("the front follows", || {
            (self.metrics.changes.load(Ordering::Relaxed) > 0).then_some(())
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        eventually("the front reports", || {
            self.stats.borrow().as_ref().map(|stats| stats.pid)
        })
    }

    /// As SIGKILL would: nothing is said to the front.
    pub(crate) fn die(self) {
        self.stage.abort();
        self.runtime.shutdown_timeout(PATIENCE);
    }

    /// As the agent does when another stage fails.
    pub(crate) fn fail(self) {
        self.end.keep_front.cancel();
        self.stop();
    }

    pub(crate) fn stop(self) {
        self.end.stop.cancel();
        self.runtime.block_on(self.stage).unwrap().unwrap();
    }
}

/// Ends a front that a failed test would leave behind.
pub(crate) struct Leftover(pub(crate) u32);

impl Drop for Leftover {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(pid) = self.0.try_into()
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

pub(crate) fn status(pid: u32, thread: u32, line: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).ok()?;
    let value = status
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// A listener, and clients of it.
pub(crate) fn listener() -> (TcpListener, impl Fn() -> Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, move || Client::connect(address))
}

/// A port that is kept for us without anybody listening on it, and where it is.
pub(crate) fn reserved() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}
