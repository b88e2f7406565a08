//! The front as a process of its own. The child is this test binary again, running one test that becomes the
//! front when it is started with a control socket.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering, mpsc},
};

use clap::Parser;
use lb_agent::{
    catalog::Problem,
    front::{End, Metrics, Outputs, SuperviseError, Supervisor, supervise},
    snapshot::{ServiceName, Snapshot},
};
use lb_front::{ChildArgs, FrontStats, child_main};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle};

use crate::{
    kit::{Backend, Client, GET, PATIENCE, Reply, eventually},
    snapshots::snapshot,
};

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
    stage: JoinHandle<Result<(), SuperviseError>>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    stats: watch::Receiver<Option<FrontStats>>,
    pub(crate) problems: watch::Receiver<Vec<Problem>>,
    metrics: Arc<Metrics>,
    end: End,
}

impl Agent {
    fn start(directory: &Path, listeners: Vec<TcpListener>) -> Self {
        Self::listening(directory, listeners, vec![])
    }

    fn listening(directory: &Path, listeners: Vec<TcpListener>, listen: Vec<SocketAddr>) -> Self {
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
             exec {exe:?} --exact process::becomes_the_front_when_started_as_one --quiet >/dev/null"
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

fn workers(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let ids = threads.map(|thread| {
        thread
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    });
    ids.filter(|&id| status(pid, id, "Name").is_some_and(|name| name.starts_with("lb-front")))
        .collect()
}

fn listener() -> (TcpListener, impl Fn() -> Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, move || Client::connect(address))
}

#[test]
fn it_runs_without_capabilities_and_ends_with_its_agent_when_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::named("a");
    let (listener, client) = listener();
    let agent = Agent::start(directory.path(), vec![listener]);
    // Nothing is known yet, which is not the same as nothing being there.
    assert!(client().send(GET).answer().body.starts_with("starting"));
    agent.publish(snapshot(&[backend.address]));
    eventually("routes arrive", || {
        (client().send(GET).answer().status == 200).then_some(())
    });
    let pid = agent.pid();
    let _leftover = Leftover(pid);
    let threads = workers(pid);
    assert_eq!(threads.len(), 2);
    for thread in threads {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let value = status(pid, thread, set).unwrap();
            // Without the right to change it, the bounding set stays; then there is nothing in the others.
            if set != "CapBnd" || nix::unistd::geteuid().is_root() {
                assert_eq!(u64::from_str_radix(&value, 16).unwrap(), 0, "{set}");
            }
        }
        assert_eq!(status(pid, thread, "NoNewPrivs").as_deref(), Some("1"));
        if nix::unistd::geteuid().is_root() {
            let nobody = Some("65534\t65534\t65534\t65534");
            assert_eq!(status(pid, thread, "Uid").as_deref(), nobody);
            assert_eq!(status(pid, thread, "Gid").as_deref(), nobody);
            assert_eq!(status(pid, thread, "Groups").as_deref(), Some(""));
        }
    }
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    for variable in environment.split_terminator('\0') {
        // The last two are of the shell, which only this test puts in between.
        let known = [
            "LISTEN_FDS=",
            "LISTEN_FDNAMES=",
            "LB_LOG=",
            "PWD=",
            "FRONT_ARGUMENTS=",
        ];
        assert!(
            known.iter().any(|name| variable.starts_with(name)),
            "{variable}"
        );
    }
    let mut keeping = client();
    assert_eq!(keeping.send(GET).answer().status, 200);
    agent.stop();
    assert_eq!(keeping.rest(), b"");
    assert!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "neither process nor zombie"
    );
}

#[test]
fn it_outlives_its_agent_with_the_last_routes_and_the_next_one_adopts_it() {
    let directory = tempfile::tempdir().unwrap();
    let backends = ["a", "b"].map(Backend::named);
    let (listener, client) = listener();
    let copy = listener.try_clone().unwrap();
    let first = Agent::start(directory.path(), vec![listener]);
    first.publish(snapshot(&[backends[0].address]));
    eventually("routes arrive", || {
        (client().send(GET).answer().status == 200).then_some(())
    });
    let pid = first.pid();
    let _leftover = Leftover(pid);
    let mut kept = client();
    assert_eq!(kept.send(GET).answer().body, "a");
    first.die();
    assert_eq!(kept.send(GET).answer().body, "a");
    assert_eq!(client().send(GET).answer().body, "a");
    let second = Agent::start(directory.path(), vec![copy]);
    assert_eq!(second.pid(), pid);
    // Sources that have not all spoken take nothing away.
    second.publish(Snapshot::default());
    second.publish(Snapshot {
        complete: false,
        ..snapshot(&[])
    });
    assert_eq!(client().send(GET).answer().body, "a");
    second.publish(snapshot(&[backends[1].address]));
    eventually("new routes arrive", || {
        (client().send(GET).answer().body == "b").then_some(())
    });
    assert_eq!(kept.send(GET).answer().body, "b");
    second.stop();
    eventually("it ends", || {
        let ended = status(pid, pid, "State").is_none_or(|state| state.starts_with('Z'));
        ended.then_some(())
    });
}

#[test]
fn a_fault_of_the_agent_ends_no_request_and_leaves_the_front_to_the_next_agent() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::named("a");
    let (listener, client) = listener();
    let first = Agent::start(directory.path(), vec![listener]);
    first.publish(snapshot(&[backend.address]));
    eventually("routes arrive", || {
        (client().send(GET).answer().status == 200).then_some(())
    });
    let pid = first.pid();
    let _leftover = Leftover(pid);
    let mut kept = client();
    assert_eq!(kept.send(GET).answer().status, 200);
    first.fail();
    assert_eq!(kept.send(GET).answer().status, 200);
    assert_eq!(client().send(GET).answer().status, 200);
    let second = Agent::start(directory.path(), vec![]);
    assert_eq!(second.pid(), pid);
    second.stop();
    assert_eq!(kept.rest(), b"");
}

#[test]
fn the_port_is_free_while_the_front_still_drains() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::start(|_| Reply::Stall(vec![]));
    let (listener, client) = listener();
    let address = listener.local_addr().unwrap();
    let agent = Agent::start(directory.path(), vec![listener]);
    agent.publish(snapshot(&[backend.address]));
    let _leftover = Leftover(agent.pid());
    let mut waiting = client();
    eventually("routes arrive", || {
        waiting.send(GET);
        let seen = eventually("an answer or a backend that has the request", || {
            if !backend.seen().is_empty() {
                return Some(true);
            }
            waiting.stream.set_nonblocking(true).unwrap();
            let answered = waiting.stream.peek(&mut [0]).is_ok();
            waiting.stream.set_nonblocking(false).unwrap();
            answered.then_some(false)
        });
        if !seen {
            waiting = client();
        }
        seen.then_some(())
    });
    agent.end.stop.cancel();
    eventually("nobody listens", || {
        std::net::TcpStream::connect(address).err()
    });
    assert!(!agent.stage.is_finished(), "the request is still in flight");
    drop(waiting);
    agent.stop();
}

fn say(agent: &mut UnixStream, message: &str) {
    let length = u32::try_from(message.len()).unwrap();
    agent.write_all(&length.to_be_bytes()).unwrap();
    agent.write_all(message.as_bytes()).unwrap();
}

#[test]
fn a_front_follows_one_change_after_the_other_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let backends = ["a", "b"].map(Backend::named);
    let (listener, client) = listener();
    let agent = Agent::start(directory.path(), vec![listener]);
    let follows = |count| {
        eventually("the front follows", || {
            (agent.metrics.changes.load(Ordering::Relaxed) == count).then_some(())
        });
        assert!(agent.metrics.last_duration_micros.load(Ordering::Relaxed) > 0);
    };
    agent.publish(snapshot(&[backends[0].address]));
    follows(1);
    let _leftover = Leftover(agent.pid());
    // From now on no request may meet anything else: not even the first one after that.
    assert_eq!(client().send(GET).answer().body, "a");
    agent.publish(snapshot(&[backends[1].address]));
    follows(2);
    assert_eq!(client().send(GET).answer().body, "b");
    let mut renamed = snapshot(&[backends[0].address]);
    let web = renamed.services.remove(&ServiceName::whole("web")).unwrap();
    renamed.services.insert(ServiceName::whole("shop"), web);
    agent.publish(renamed);
    follows(3);
    assert_eq!(client().send(GET).answer().status, 503);
    let shop = GET.replace("web", "shop");
    assert_eq!(client().send(shop).answer().body, "a");
    agent.stop();
}

/// A front that writes down which orders it gets, and says that it follows them. It begins when it is `ready`.
fn listening_front(
    path: &Path,
    ready: impl FnOnce(&UnixListener) + Send + 'static,
) -> mpsc::Receiver<String> {
    let control = UnixListener::bind(path).unwrap();
    let (order, orders) = mpsc::channel();
    std::thread::spawn(move || {
        ready(&control);
        let (mut agent, _) = control.accept().unwrap();
        let mut receive = {
            let mut agent = agent.try_clone().unwrap();
            move || {
                let mut length = [0; 4];
                agent.read_exact(&mut length).ok()?;
                let mut body = vec![0; u32::from_be_bytes(length) as usize];
                agent.read_exact(&mut body).ok()?;
                Some(String::from_utf8(body).unwrap())
            }
        };
        let hello = receive().unwrap();
        let version = hello.chars().filter(char::is_ascii_digit);
        let version: String = version.collect();
        let answer = format!("{{\"version\":{version},\"pid\":0,\"has_routes\":true}}");
        say(&mut agent, &answer);
        while let Some(message) = receive() {
            // Where its log goes, which is no matter here, and has no answer.
            if message == "{\"log\":{\"file\":false}}" {
                continue;
            }
            let ends = message == "\"drain\"";
            order.send(message).unwrap();
            if ends {
                return; // The end of the connection tells that all is done.
            }
            say(&mut agent, "\"follows\"");
        }
    });
    orders
}

#[test]
fn routes_that_have_not_changed_are_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let orders = listening_front(&directory.path().join("front.sock"), |_| {});
    let agent = Agent::start(directory.path(), vec![]);
    let [one, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let next = || orders.recv_timeout(PATIENCE).unwrap();
    agent.publish(snapshot(&[one]));
    let first = next();
    assert!(
        first.starts_with("{\"routes\"") && first.contains("127.0.0.1:1\""),
        "{first}"
    );
    // Another name that cannot be used: a problem to show, and the routes that there are.
    let mut same = snapshot(&[one]);
    for (name, service) in &snapshot(&[one]).services {
        let mut service = service.clone();
        Arc::make_mut(&mut service)
            .aliases
            .insert("not a name".to_owned());
        same.services.insert(name.clone(), service);
    }
    agent.publish(same);
    eventually("the snapshot was looked at", || {
        (!agent.problems.borrow().is_empty()).then_some(())
    });
    agent.publish(snapshot(&[other]));
    let second = next();
    assert!(
        second.starts_with("{\"change\"") && second.contains("127.0.0.1:2\""),
        "{second}"
    );
    // The service `down` and all the names stay as they are.
    assert!(
        !second.contains("down") && !second.contains("alias"),
        "{second}"
    );
    agent.stop();
    assert_eq!(next(), "\"drain\"");
    assert!(orders.recv().is_err());
}

#[test]
fn a_front_that_is_slow_to_say_hello_gets_no_second_one_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front.sock");
    let (wake, awake) = mpsc::channel::<()>();
    let orders = listening_front(&path, move |control| {
        drop(control.accept().unwrap());
        awake.recv().unwrap();
    });
    let agent = Agent::start(directory.path(), vec![]);
    eventually("its silence is told", || {
        let problems = agent.problems.borrow();
        let told = problems.iter().any(|it| it.message.contains("hello"));
        told.then_some(())
    });
    agent.publish(snapshot(&[]));
    wake.send(()).unwrap();
    let first = orders.recv_timeout(PATIENCE).unwrap();
    assert!(first.starts_with("{\"routes\""), "{first}");
    eventually("all is well", || {
        agent.problems.borrow().is_empty().then_some(())
    });
    agent.stop();
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

#[test]
fn its_log_is_json_when_the_agents_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front.sock");
    let control = UnixListener::bind(&path).unwrap();
    let (listener, _) = listener();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb-agent"));
    command.args(["front", "--workers=1", "--log-json"]);
    command.env_clear().stderr(Stdio::piped());
    let passed = vec![("control", control.into()), ("front", listener.into())];
    lb_sys::inherit::pass(&mut command, passed);
    let front = command.spawn().unwrap();
    let _leftover = Leftover(front.id());
    // Its hello: from now on it hears signals.
    let mut agent = UnixStream::connect(&path).unwrap();
    agent.set_read_timeout(Some(PATIENCE)).unwrap();
    agent.read_exact(&mut [0; 4]).unwrap();
    let id = Pid::from_raw(front.id().try_into().unwrap());
    kill(id, Signal::SIGTERM).unwrap();
    let output = front.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("front drains"), "{log}");
    for line in log.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
    }
}

#[test]
fn one_that_dies_is_started_again_and_no_client_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::named("a");
    let (listener, client) = listener();
    let agent = Agent::start(directory.path(), vec![listener]);
    agent.publish(snapshot(&[backend.address]));
    eventually("routes arrive", || {
        (client().send(GET).answer().status == 200).then_some(())
    });
    let pid = agent.pid();
    let _leftover = Leftover(pid);
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let report = |problem: &Problem| problem.subject == "front";
    eventually("its end is reported", || {
        agent.problems.borrow().iter().any(report).then_some(())
    });
    eventually("another one serves", || {
        (client().send(GET).answer().status == 200).then_some(())
    });
    eventually("it is another one", || {
        let other = agent
            .stats
            .borrow()
            .as_ref()
            .is_some_and(|stats| stats.pid != pid);
        other.then_some(())
    });
    eventually("the report is withdrawn", || {
        (!agent.problems.borrow().iter().any(report)).then_some(())
    });
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "no zombie");
    agent.stop();
}

#[test]
fn without_passed_listeners_it_listens_by_itself_once_for_each_worker() {
    let directory = tempfile::tempdir().unwrap();
    let backends = ["a", "b"].map(Backend::named);
    let (_reserved, address) = reserved();
    let agent = Agent::listening(directory.path(), vec![], vec![address]);
    let _leftover = Leftover(agent.pid());
    agent.publish(snapshot(
        &backends.each_ref().map(|backend| backend.address),
    ));
    let ask = || Client::connect(address).send(GET).answer();
    eventually("routes arrive", || (ask().status == 200).then_some(()));
    let answers: String = (0..20).map(|_| ask().body).collect();
    assert!(
        answers == "ab".repeat(10) || answers == "ba".repeat(10),
        "{answers}"
    );
    let port = format!(":{:04X}", address.port());
    let sockets = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let listening = sockets.lines().filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&port) && fields[3] == "0A"
    });
    assert_eq!(listening.count(), 2);
    agent.stop();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn an_address_that_is_taken_is_one_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Supervisor::new(
        directory.path().join("front.sock"),
        vec![taken.local_addr().unwrap()],
    );
    let (_snapshots, snapshots) = watch::channel(None);
    let outputs = Outputs {
        stats: watch::Sender::new(None),
        problems: watch::Sender::new(Vec::new()),
        routed: watch::Sender::new(None),
        metrics: Arc::default(),
    };
    let run = supervise(config, vec![], snapshots, outputs, End::default());
    let error = Runtime::new().unwrap().block_on(run).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&taken.local_addr().unwrap().to_string()),
        "{error}"
    );
}
