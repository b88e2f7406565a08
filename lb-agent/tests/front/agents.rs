//! Agents of one directory, whose fronts follow each other.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    thread,
};

use lb_sys::handover;
use tempfile::TempDir;

use crate::{
    agent::{Agent, Leftover, reserved, status},
    kit::{Backend, Client, GET, eventually},
    load,
    snapshots::snapshot,
};

/// Agents that come one after the other, each for the front of the one before.
pub(crate) struct Agents {
    pub(crate) directory: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) backend: Backend,
    _reserved: socket2::Socket,
    /// Every front that there was.
    pub(crate) fronts: Vec<Leftover>,
}

impl Agents {
    pub(crate) fn new() -> Self {
        let (reserved, address) = reserved();
        Self {
            directory: tempfile::tempdir().unwrap(),
            address,
            backend: load::backend("a"),
            _reserved: reserved,
            fronts: Vec::new(),
        }
    }

    /// An agent whose fronts are of this kind.
    pub(crate) fn start(&self, kind: &str) -> Agent {
        let mut config = Agent::config(self.directory.path(), vec![self.address]);
        config.kind = kind.to_owned();
        let agent = Agent::run(config, vec![]);
        agent.publish(snapshot(&[self.backend.address]));
        agent
    }

    /// The process of the front that follows the agent's routes.
    pub(crate) fn front(&mut self, agent: &Agent) -> u32 {
        let pid = agent.pid();
        if self.fronts.iter().all(|front| front.0 != pid) {
            self.fronts.push(Leftover(pid));
        }
        pid
    }

    pub(crate) fn control(&self) -> std::path::PathBuf {
        self.directory.path().join("front.sock")
    }

    /// Waits until a front is behind the usual control socket and nowhere else.
    pub(crate) fn settled(&self) {
        eventually("the next front has the place of the one before", || {
            let next = self.directory.path().join("front.next");
            (!next.exists() && self.control().exists()).then_some(())
        });
    }

    pub(crate) fn ask(&self) -> String {
        Client::connect(self.address).send(GET).answer().body
    }
}

pub(crate) fn is_gone(pid: u32) -> bool {
    status(pid, pid, "State").is_none_or(|state| state.starts_with('Z'))
}

/// Waits for the end of that process.
#[track_caller]
pub(crate) fn await_end(pid: u32) {
    eventually("it ends", || is_gone(pid).then_some(()));
}

/// A front of this kind that serves `a`, and whose agent has failed.
pub(crate) fn left_by(kind: &str) -> (Agents, u32) {
    let mut agents = Agents::new();
    let first = agents.start(kind);
    let front = agents.front(&first);
    eventually("routes arrive", || (agents.ask() == "a").then_some(()));
    first.fail();
    (agents, front)
}

/// Puts somebody between the front of `directory` and its agents, who `change`s their hellos, and ends the first connections
/// after that by `cuts`, from the last one on.
pub(crate) fn stand_between(
    directory: &Path,
    change: fn(&[u8]) -> Vec<u8>,
    mut cuts: Vec<Shutdown>,
) {
    let (place, behind) = (directory.join("front.sock"), directory.join("foreign.sock"));
    fs::rename(&place, &behind).unwrap();
    let listener = UnixListener::bind(&place).unwrap();
    thread::spawn(move || {
        let mut open = Vec::new();
        for agent in listener.incoming() {
            let (mut agent, mut front) = (agent.unwrap(), UnixStream::connect(&behind).unwrap());
            // The hellos, which are short enough to come at once.
            let mut hello = [0; 4096];
            let received = handover::receive(front.as_fd(), &mut hello).unwrap();
            let descriptors: Vec<_> = received.descriptors.iter().map(|it| it.as_fd()).collect();
            let greeting = change(&hello[..received.length]);
            assert!(!descriptors.is_empty());
            handover::send(agent.as_fd(), &greeting, &descriptors).unwrap();
            drop(received);
            let length = agent.read(&mut hello).unwrap();
            front.write_all(&change(&hello[..length])).unwrap();
            if let Some(how) = cuts.pop() {
                agent.shutdown(how).unwrap();
                open.push(agent);
                continue;
            }
            let back = (front.try_clone().unwrap(), agent.try_clone().unwrap());
            thread::spawn(move || pass(back.0, back.1));
            thread::spawn(move || pass(agent, front));
        }
    });
}

fn pass(mut from: UnixStream, mut to: UnixStream) {
    // However it ends, the other side is told.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}
