//! What the thread does: it looks into one namespace after the other, and lists or ends what it finds there.

use std::{
    collections::BTreeSet,
    io,
    net::Ipv4Addr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::{
    Failure, Flow, Flows, LISTED, Outcome, Target,
    asked::{Asked, Look, Reply, Request},
    diag::{Blind, Diag, Ended},
    namespaces::{self, Home, Sight},
    process::{Process, Wanted},
    untold,
    wire::{ESTABLISHED, Found, Message, Socket, UDP},
};

pub(super) fn serve(mut home: Home, records: &OwnedFd, mut queue: mpsc::Receiver<Request>) {
    let mut asked = Asked::default();
    while let Some(look) = asked.next(&mut queue) {
        let home = &mut home;
        match look {
            Look::Targets(reply) => {
                let told = targets(home, records);
                answer(home, reply, told);
            }
            Look::End(targets, reply) => {
                let told = end(home, records, &targets);
                answer(home, reply, told);
            }
            Look::List(lists) => {
                let told = list(home, records, lists.vips.as_ref());
                if !home.away {
                    lists.tell(&told);
                }
            }
        }
        if home.away {
            tracing::error!(
                "the thread that lists sockets cannot go back to its network namespace"
            );
            return;
        }
    }
}

/// Answers whoever waits, unless the thread could not come back: that it ends is then the answer.
fn answer<T>(home: &Home, reply: Reply<T>, told: io::Result<T>) {
    if !home.away {
        drop(reply.send(told));
    }
}

/// Tells every flow of one namespace, and the sockets that may be one.
fn look(
    diag: &mut Diag,
    records: &OwnedFd,
    mut tell: impl FnMut(Found),
    mut ask: impl FnMut(Socket),
) -> io::Result<Blind> {
    diag.list(records.as_fd(), |message| match message {
        Message::Found(found) if goes_there(&found) => tell(found),
        Message::Untold(socket) => ask(socket),
        _ => {}
    })
}

/// A record stays at a socket that was connected elsewhere since, past the VIP.
fn goes_there(found: &Found) -> bool {
    found.socket.peer == found.origin.address
}

fn targets(home: &mut Home, records: &OwnedFd) -> io::Result<(BTreeSet<Target>, Sight)> {
    let mut targets = BTreeSet::new();
    let mut untold = Vec::new();
    let mut sight = namespaces::each(home, Path::new(PROC), |_| {
        let tell = |found| {
            targets.insert(target(&found));
        };
        let ask = |socket| untold.push(((), socket));
        look(&mut Diag::open()?, records, tell, ask)
    })?;
    let asked = untold::ask(records, untold, Path::new(PROC), &mut sight);
    let asked = asked.iter().filter(|(_, found)| goes_there(found));
    targets.extend(asked.map(|(_, found)| target(found)));
    Ok((targets, sight))
}

fn end(home: &mut Home, records: &OwnedFd, targets: &BTreeSet<Target>) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let addresses: BTreeSet<_> = targets.iter().map(|it| it.address).collect();
    // A conversation is with one namespace, wherever this thread is.
    let mut diags = Vec::new();
    let mut untold = Vec::new();
    let mut asked = Sight::default();
    let mut sight = namespaces::each(home, Path::new(PROC), |_| {
        let mut diag = Diag::open()?;
        let mut found = Vec::new();
        // Kept apart until all are listed: of a namespace that fails halfway there is no conversation to end them with.
        let mut ours = Vec::new();
        let ask = |socket: Socket| {
            if addresses.contains(&socket.peer) {
                ours.push(socket);
            }
        };
        let blind = look(&mut diag, records, |it| found.push(it), ask)?;
        for it in found {
            outcome.end(&mut diag, &it, targets);
        }
        if !ours.is_empty() {
            untold.extend(ours.into_iter().map(|socket| (diags.len(), socket)));
            diags.push(diag);
        }
        if diags.len() >= TALKING {
            let untold = std::mem::take(&mut untold);
            let found = untold::ask(records, untold, Path::new(PROC), &mut asked);
            outcome.end_all(&mut diags, &found, targets);
        }
        Ok(blind)
    })?;
    let found = untold::ask(records, untold, Path::new(PROC), &mut asked);
    outcome.end_all(&mut diags, &found, targets);
    sight.blocked = sight.blocked.or(asked.blocked);
    sight.missed |= asked.missed;
    outcome.sight = sight;
    Ok(outcome)
}

impl Outcome {
    /// Ends those flows that go to one of `targets`, each in its namespace, and the conversations with these.
    fn end_all(
        &mut self,
        diags: &mut Vec<Diag>,
        found: &[(usize, Found)],
        targets: &BTreeSet<Target>,
    ) {
        for (diag, found) in found {
            if goes_there(found) {
                self.end(&mut diags[*diag], found, targets);
            }
        }
        diags.clear();
    }

    /// Ends the flow if it goes to one of `targets`.
    fn end(&mut self, diag: &mut Diag, found: &Found, targets: &BTreeSet<Target>) {
        let target = target(found);
        if !targets.contains(&target) {
            return;
        }
        match diag.destroy(&found.socket.id) {
            Ok(Ended::Now) => *self.ended.entry(target).or_default() += 1,
            Ok(Ended::Before) => {}
            Err(error) => {
                self.failed.insert(target);
                let failure = match error.kind() {
                    io::ErrorKind::Unsupported => Failure::Unsupported,
                    _ => Failure::Refused(error.to_string()),
                };
                self.error.get_or_insert(failure);
            }
        }
    }
}

fn list(
    home: &mut Home,
    records: &OwnedFd,
    vips: Option<&BTreeSet<Ipv4Addr>>,
) -> io::Result<Flows> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?);
    let mut flows = Flows::default();
    let mut owners = Vec::new();
    let mut add = |netns, found: &Found| {
        if vips.is_some_and(|vips| !vips.contains(&found.origin.vip)) {
            return;
        }
        if flows.listed.len() >= LISTED {
            flows.left_out += 1;
            return;
        }
        let start = Duration::from_nanos(found.origin.start_ns);
        flows.listed.push(Flow {
            netns,
            protocol: protocol(found),
            state: state(found),
            uid: found.socket.uid,
            local: found.socket.local,
            origin: found.origin,
            age: now.saturating_sub(start),
            process: None,
        });
        owners.push(found.socket.inode);
    };
    let mut untold = Vec::new();
    let mut sight = namespaces::each(home, Path::new(PROC), |netns| {
        let ask = |socket| untold.push((netns, socket));
        look(&mut Diag::open()?, records, |found| add(netns, &found), ask)
    })?;
    for (netns, found) in untold::ask(records, untold, Path::new(PROC), &mut sight) {
        if goes_there(&found) {
            add(netns, &found);
        }
    }
    flows.sight = sight;
    let mut wanted = Wanted::new(owners.iter().copied());
    wanted.search(Path::new(PROC));
    for (flow, inode) in flows.listed.iter_mut().zip(owners) {
        flow.process = wanted.process(inode).cloned();
    }
    Ok(flows)
}

/// A process that has the socket with this inode open, if any can be seen.
pub fn owner(inode: u32) -> Option<Process> {
    let mut wanted = Wanted::new([inode].into_iter());
    wanted.search(Path::new(PROC));
    wanted.process(inode).cloned()
}

fn target(found: &Found) -> Target {
    Target {
        vip: found.origin.vip,
        address: found.origin.address,
    }
}

fn protocol(found: &Found) -> &'static str {
    match found.socket.id.kind.protocol {
        UDP => "udp",
        _ => "tcp",
    }
}

fn state(found: &Found) -> &'static str {
    match found.socket.state {
        ESTABLISHED => "established",
        2 => "syn-sent",
        3 => "syn-recv",
        4 => "fin-wait-1",
        5 => "fin-wait-2",
        7 => "closed",
        8 => "close-wait",
        9 => "last-ack",
        11 => "closing",
        _ => "unknown",
    }
}

/// Namespaces that are talked with at once: each costs a descriptor.
const TALKING: usize = 64;

const PROC: &str = "/proc";
