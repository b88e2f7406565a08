//! The front as a process of its own.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use lb_agent::{
    catalog::Problem,
    front::{End, Outputs, Supervisor, supervise},
    snapshot::Snapshot,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{runtime::Runtime, sync::watch};

use crate::{
    agent::{Agent, Leftover, listener, reserved, status},
    kit::{Backend, Client, GET, PATIENCE, Reply, eventually},
    snapshots::snapshot,
};

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
