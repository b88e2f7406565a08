//! One front follows another, and no client notices.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::Command,
    thread,
};

use lb_sys::inherit;

use crate::{
    agent::{Agent, Leftover, reserved},
    agents::{Agents, await_end, is_gone, left_by, stand_between},
    kit::{eventually, ok, refusing},
    load::Load,
    snapshots::snapshot,
};

/// `message` with another version of as many digits.
fn foreign(message: &[u8]) -> Vec<u8> {
    let version = format!("\"version\":{}", lb_front::control::VERSION);
    let at = message
        .windows(version.len())
        .position(|it| it == version.as_bytes());
    let mut message = message.to_vec();
    let end = at.unwrap() + version.len();
    message[end - 1] = if message[end - 1] == b'0' { b'1' } else { b'0' };
    message
}

#[test]
fn fronts_follow_each_other_under_load_and_nobody_is_refused_or_cut() {
    let mut agents = Agents::new();
    let mut agent = agents.start("first");
    let mut front = agents.front(&agent);
    eventually("routes arrive", || (agents.ask() == "a").then_some(()));
    let load = Load::on(agents.address);
    load.await_more();
    for round in ["second", "third"] {
        // Of the same version, but of another kind.
        agent.fail();
        load.await_more();
        agent = agents.start(round);
        agents.settled();
        let next = agents.front(&agent);
        assert_ne!(next, front);
        load.await_more();

        // One that cannot start.
        agent.fail();
        let mut config = Agent::config(agents.directory.path(), vec![agents.address]);
        config.kind = "broken".to_owned();
        config.arguments = vec!["-c".into(), "exit 1".into()];
        agent = Agent::run(config, vec![]);
        agent.publish(snapshot(&[agents.backend.address]));
        eventually("it is told", || {
            let problems = agent.problems.borrow();
            let told = problems.iter().any(|it| it.message.contains("serves on"));
            told.then_some(())
        });
        load.await_more();
        assert!(!is_gone(next), "the front serves on");

        // The same kind again: nothing is replaced.
        agent.fail();
        agent = agents.start(round);
        assert_eq!(agents.front(&agent), next);
        load.await_more();

        // Of another version.
        agent.fail();
        stand_between(agents.directory.path(), foreign, vec![]);
        agent = agents.start(round);
        eventually("another one has the place", || {
            let foreign = agents.directory.path().join("front.next").exists();
            (!foreign && agents.front(&agent) != next).then_some(())
        });
        front = agents.front(&agent);
        load.await_more();
    }
    assert!(load.end() > 100);
    // The last clients of those before are gone, and so are they.
    agents.fronts.retain(|it| it.0 != front);
    assert_eq!(agents.fronts.len(), 4);
    for former in &agents.fronts {
        await_end(former.0);
    }
    assert_eq!(agents.ask(), "a");
    agent.stop();
    assert!(std::net::TcpStream::connect(agents.address).is_err());
}

#[test]
fn the_front_before_serves_until_the_next_one_knows_all_routes() {
    let (mut agents, old) = left_by("first");
    let mut config = Agent::config(agents.directory.path(), vec![agents.address]);
    config.kind = "second".to_owned();
    let second = Agent::run(config, vec![]);
    let mut incomplete = snapshot(&[refusing()]);
    incomplete.complete = false;
    second.publish(incomplete);
    let new = agents.front(&second);
    assert_ne!(new, old);
    assert_eq!(agents.ask(), "a");
    assert!(agents.directory.path().join("front.next").exists());
    second.publish(snapshot(&[agents.backend.address]));
    await_end(old);
    agents.settled();
    assert_eq!(agents.ask(), "a");
    second.stop();
}

#[test]
fn a_successor_whose_agent_dies_leaves_its_place_to_the_next_one() {
    let (mut agents, old) = left_by("first");
    let mut config = Agent::config(agents.directory.path(), vec![agents.address]);
    config.kind = "second".to_owned();
    let second = Agent::run(config, vec![]);
    let half = agents.front(&second);
    second.die();
    assert_eq!(agents.ask(), "a");
    let third = agents.start("second");
    agents.settled();
    let new = agents.front(&third);
    assert!(new != half && new != old);
    await_end(half);
    await_end(old);
    assert_eq!(agents.ask(), "a");
    third.stop();
}

#[test]
fn a_front_listens_where_the_next_agent_wants_it() {
    let (mut agents, old) = left_by("");
    let (_other, other) = reserved();
    let before = std::mem::replace(&mut agents.address, other);
    let second = agents.start("");
    eventually("it listens there", || {
        std::net::TcpStream::connect(other).ok()
    });
    agents.settled();
    assert_eq!(agents.ask(), "a");
    await_end(old);
    agents.front(&second);
    eventually("nobody listens where it did before", || {
        std::net::TcpStream::connect(before).is_err().then_some(())
    });
    second.stop();
}

#[test]
fn an_agent_that_could_not_replace_a_front_still_ends_it_with_itself() {
    let (agents, old) = left_by("first");
    let mut config = Agent::config(agents.directory.path(), vec![agents.address]);
    config.kind = "broken".to_owned();
    config.arguments = vec!["-c".into(), "exit 1".into()];
    let second = Agent::run(config, vec![]);
    eventually("it is told", || {
        (!second.problems.borrow().is_empty()).then_some(())
    });
    assert_eq!(agents.ask(), "a");
    second.stop();
    await_end(old);
    // A process that another test starts has the socket for a moment, too.
    eventually("nobody listens there", || {
        let connected = std::net::TcpStream::connect(agents.address);
        connected.is_err().then_some(())
    });
}

#[test]
fn a_front_that_was_handed_to_the_agent_is_started_again_on_the_same_sockets() {
    let (mut agents, old) = left_by("");
    let second = agents.start("");
    assert_eq!(agents.front(&second), old);
    let id = nix::unistd::Pid::from_raw(i32::try_from(old).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).unwrap();
    // Nobody accepts for a moment, and nobody is refused.
    eventually("another one serves", || {
        (agents.ask() == "a" && agents.front(&second) != old).then_some(())
    });
    second.stop();
}

/// A front of an agent that knew no hand-over: it says hello, tells nothing else, and ends by SIGTERM.
#[test]
fn becomes_an_old_front_when_started_as_one() {
    let named = |names: String| names.split(':').any(|name| name == "old-control");
    if !std::env::var("LISTEN_FDNAMES").is_ok_and(named) {
        return;
    }
    let mut inherited = inherit::Inherited::take().unwrap();
    let front = inherited.tcp("front").unwrap().remove(0);
    let control = inherited.unix("old-control").unwrap().remove(0);
    thread::spawn(move || {
        for client in front.incoming() {
            let mut client = client.unwrap();
            if client.read(&mut [0; 4096]).is_ok() {
                let _ = client.write_all(&ok("old"));
            }
        }
    });
    let hello = format!("{{\"version\":0,\"pid\":{}}}", std::process::id());
    for agent in control.incoming() {
        let mut agent = agent.unwrap();
        let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
        let _ = agent.write_all(&[&length, hello.as_bytes()].concat());
        // It has nothing in common with whoever is there, and parts.
        let _ = agent.read(&mut [0; 4096]);
    }
}

#[test]
fn a_front_that_knows_no_hand_over_is_ended_and_no_connection_is_refused() {
    let mut agents = Agents::new();
    let front: TcpListener = {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&agents.address.into()).unwrap();
        socket.listen(128).unwrap();
        socket.into()
    };
    let control = UnixListener::bind(agents.control()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "upgrade::becomes_an_old_front_when_started_as_one",
        "--quiet",
    ]);
    let passed: Vec<(&str, OwnedFd)> =
        vec![("front", front.into()), ("old-control", control.into())];
    inherit::pass(&mut command, passed);
    let mut old = command.spawn().unwrap();
    drop(command);
    let _leftover = Leftover(old.id());
    eventually("it serves", || (agents.ask() == "old").then_some(()));
    let agent = agents.start("");
    eventually("only the other one is there", || {
        // Every one of these is taken by one front or the other.
        drop(std::net::TcpStream::connect(agents.address).unwrap());
        old.try_wait().unwrap()
    });
    agents.front(&agent);
    eventually("the new one serves", || (agents.ask() == "a").then_some(()));
    agent.stop();
}
