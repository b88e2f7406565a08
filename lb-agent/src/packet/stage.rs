//! The stage: keeps the programs attached to the devices, and tells them the newest that is known.
//!
//! It never takes away what it has not been told is gone: before the first complete snapshot what an earlier agent left
//! serves on. What the kernel refuses is tried again.

mod show;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt as _};
use lb_common::packet::{EndpointKey, Settings};
use lb_packet::{Collected, Explainer, Figures, Flows, Publisher, Refused, Samples};
use rtnetlink::{Handle, MulticastGroup};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Channels, Config, Labelled, Seen, Sources, Start,
    answers::Desk,
    deadlines::Out,
    desired::{Standpoint, Wish},
    devices,
    moves::Moves,
    neighbours::{Neighbours, towards},
    place::Place,
    seen::Traffic,
    trouble::{Driver, Trouble, WithoutRoom},
};
use crate::{
    catalog::Problem,
    config,
    reconcile::error_chain,
    removal::deadlines::Now,
    snapshot::{ProbeState, Snapshot},
};

/// What the programs count.
#[derive(Clone, Debug, Default)]
struct Counted {
    fates: Option<BTreeMap<&'static str, u64>>,
    endpoints: BTreeMap<EndpointKey, Traffic>,
    backends: BTreeMap<SocketAddr, Traffic>,
}

/// Why the stage ended.
#[derive(Debug, Error)]
pub enum Error {
    /// The maps cannot be read at the start.
    #[error("cannot read back the maps of the packet path")]
    ReadBack(#[source] lb_packet::Error),
    /// Changes of devices cannot be followed.
    #[error("cannot follow the network devices of this host")]
    Follow(#[from] io::Error),
    /// A fault of the program.
    #[error("the connection to the kernel that tells of network devices has ended")]
    Ended,
}

struct Stage {
    config: Config,
    programs: lb_packet::Programs,
    publisher: Publisher,
    desk: Desk,
    figures: Figures,
    /// CPUs that packets may come by.
    cpus: usize,
    /// What the last collection found.
    collected: Collected,
    /// What was counted last.
    counted: Counted,
    /// How flows fare when a table changes, or the VIPs move.
    moves: Moves,
    handle: Handle,
    neighbours: Neighbours,
    /// What the programs were loaded for.
    sources: Sources,
    place: Place,
    /// Devices of containers that are to be served.
    labelled: Labelled,
    /// Whether the devices of an earlier agent that are served no more were left.
    settled: bool,
    /// Whether programs were in place at the last look, by the indexes of devices and their names; none where the kernel does not
    /// tell.
    in_place: BTreeMap<(u32, &'static str), bool>,
    /// Whether the maps were told only a part the last time.
    is_behind: bool,
    /// What fails again and again is told once: what, and why.
    told: BTreeMap<String, String>,
    /// Why devices are not served, by their names.
    faults: BTreeMap<String, String>,
    /// What makes devices lose packets that are served.
    troubles: Vec<Trouble>,
    /// Packets that found no room in the driver.
    without_room: WithoutRoom,
    /// What the drivers of cards do, and when they were asked.
    drivers: BTreeMap<u32, (Instant, Driver)>,
    /// The newest one that was acted on.
    snapshot: Option<Arc<Snapshot>>,
    out: Out,
    wish: Wish,
    /// What the maps have no room for, or the kernel does not take.
    refused: Vec<Problem>,
    /// When to try again, or to go on.
    again: Option<Instant>,
}

/// Runs until `stop`. The programs and their maps stay as they are.
///
/// # Errors
/// When the maps cannot be read at the start, or devices cannot be followed.
pub async fn run(
    config: Config,
    Start { loaded, sources }: Start,
    mut channels: Channels,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut programs = match loaded {
        Ok(programs) => programs,
        // The rest of the agent does without.
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(error, "there is no packet path");
            let problem = Problem::new(SUBJECT, error.clone());
            channels.problems.send_replace(vec![problem]);
            channels.seen.send_replace(Arc::new(Seen {
                error: Some(error),
                ..Seen::default()
            }));
            drop(channels.requests);
            stop.cancelled().await;
            return Ok(());
        }
    };
    let publisher = Publisher::open(&mut programs).map_err(Error::ReadBack)?;
    let desk = Desk {
        flows: Flows::open(&mut programs).map_err(Error::ReadBack)?,
        explainer: Explainer::open(&mut programs).map_err(Error::ReadBack)?,
        samples: Samples::open(&mut programs).map_err(Error::ReadBack)?,
        tracers: Vec::new(),
    };
    let figures = Figures::open(&mut programs).map_err(Error::ReadBack)?;
    let (handle, mut changes) = follow_devices()?;
    let mut stage = Stage {
        config,
        programs,
        publisher,
        desk,
        figures,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        collected: Collected::default(),
        counted: Counted::default(),
        moves: Moves::default(),
        handle,
        neighbours: Neighbours::default(),
        sources,
        place: Place::default(),
        labelled: channels.labelled.borrow_and_update().clone(),
        settled: false,
        in_place: BTreeMap::new(),
        is_behind: false,
        told: BTreeMap::new(),
        faults: BTreeMap::new(),
        troubles: Vec::new(),
        without_room: WithoutRoom::default(),
        drivers: BTreeMap::new(),
        snapshot: None,
        out: Out::default(),
        wish: Wish::default(),
        refused: Vec::new(),
        again: None,
    };
    stage.look_around().await;
    // It may be there already.
    channels.snapshots.mark_changed();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let again = stage.again;
        let due = async {
            match again {
                Some(again) => sleep_until(again.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Ok(()) = channels.announcing.changed() => {
                let announcing = channels.announcing.borrow_and_update().clone();
                stage.hear(&announcing);
            }
            changed = channels.snapshots.changed() => {
                // Who makes them has ended: so does the agent, and this may be heard of first.
                if changed.is_err() {
                    break;
                }
                let newest = channels.snapshots.borrow_and_update().clone();
                if let Some(newest) = newest {
                    stage.follow(newest);
                }
            }
            change = changes.next() => {
                change.ok_or(Error::Ended)?;
                // One change comes with others.
                tokio::time::sleep(TOGETHER).await;
                while futures_util::FutureExt::now_or_never(changes.next()).flatten().is_some() {}
                stage.look_around().await;
                stage.apply();
            }
            () = due => stage.apply(),
            // Without an engine there is nobody who would say so.
            Ok(()) = channels.labelled.changed() => {
                stage.labelled = channels.labelled.borrow_and_update().clone();
                stage.look_around().await;
            }
            Some(request) = channels.requests.recv() => {
                if stage.desk.answer(request, &stage.publisher) {
                    stage.apply();
                }
                continue;
            }
            () = tokio::time::sleep(SAMPLED), if !stage.desk.tracers.is_empty() => {
                let devices = &stage.place.devices;
                let name = |index| devices.get(&index).map(|it| Arc::from(it.name.as_str()));
                if stage.desk.tell(name) {
                    stage.apply();
                }
                continue;
            }
            _ = tick.tick() => {
                stage.attach();
                stage.collect();
                stage.count();
                stage.watch_moves();
                stage.find_troubles();
            }
        }
        stage.know_neighbours().await;
        stage.tell(&channels);
    }
    stop.cancelled().await;
    stage.end_tracers();
    // The VIPs go with this agent, unless another one of this host follows.
    let given_up = channels.announcing.wait_for(|it| !it.mine);
    if let Ok(Ok(_)) = tokio::time::timeout(GIVEN_UP, given_up).await {
        stage.own(false);
    }
    Ok(())
}

/// Something is sent for each change of a device or an address.
fn follow_devices() -> io::Result<(Handle, impl Stream<Item = ()> + Unpin)> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    Ok((handle, messages.map(|_| ())))
}

impl Stage {
    /// Ends all: the maps outlive the agent, and nobody would hear.
    fn end_tracers(&mut self) {
        if !self.desk.tracers.is_empty() {
            self.desk.tracers.clear();
            self.apply();
        }
    }

    /// Reads what this host's network is now, and attaches what is to be attached.
    async fn look_around(&mut self) {
        let read = Place::read(&self.handle).await;
        // What is known stays.
        if let Some(place) = self.tell_once("cannot list the network devices", read) {
            self.place = place;
        }
        self.attach();
    }

    /// Has the kernel keep the link addresses known that programs at cards send to.
    async fn know_neighbours(&mut self) {
        let packet = &self.config.packet;
        if !packet.cards.is_empty() && packet.xdp != config::Xdp::Off {
            let towards = towards(&self.wish.desired);
            self.neighbours.follow(&self.handle, towards).await;
        }
    }

    /// Attaches the programs to devices that have come, and takes them off those that are no more to be served.
    fn attach(&mut self) {
        let packet = &self.config.packet;
        let (wanted, missing) = devices::wanted(&self.place, packet, &self.labelled.devices);
        let is_wanted = |index: u32, name: &str| {
            let found = wanted.get(&index);
            found.is_some_and(|(wanted, _)| wanted == name)
        };
        let attached = self.programs.attached();
        let gone = attached
            .iter()
            .filter(|it| !is_wanted(it.index, &it.device));
        let gone: Vec<_> = gone.map(|it| it.device.clone()).collect();
        for device in gone {
            let left = self.programs.detach(&device);
            self.tell_once(&format!("cannot leave the device {device}"), left);
        }
        let mut faults: BTreeMap<String, String> = missing
            .into_iter()
            .map(|name| (name, "there is no such device yet".to_owned()))
            .collect();
        self.in_place.clear();
        let mut refused = false;
        for (index, (name, role)) in wanted {
            let attached = self.programs.attached().iter();
            let mut attached = attached.filter(|it| it.index == index && it.device == name);
            if let Some(attached) = attached.next() {
                let found = look(attached);
                let gone = found.iter().filter(|(_, there)| !there);
                let gone: Vec<_> = gone.map(|((_, program), _)| *program).collect();
                self.in_place.extend(found);
                // With a device that has gone its programs have: the kernel tells of that next.
                if gone.is_empty() || !is_there(index) {
                    continue;
                }
                // What cannot be put back is told of below.
                if !self.faults.contains_key(&name) {
                    tracing::warn!(
                        device = name,
                        programs = gone.join(", "),
                        "somebody took programs off the device; attaching them again"
                    );
                }
            }
            let error = match self.programs.attach(&name, role) {
                Ok(attached) => {
                    self.in_place.extend(look(attached));
                    None
                }
                Err(error) => Some(error_chain(&error)),
            };
            if let Some(error) = error {
                if self.faults.get(&name) != Some(&error) {
                    tracing::warn!(device = name, error, "the device is not served");
                }
                faults.insert(name, error);
                refused = true;
            }
        }
        self.faults = faults;
        // A device that cannot be attached anew keeps what an earlier agent attached, and so does one that may be a container's.
        if !self.settled && !refused && self.labelled.complete {
            let left = self.programs.detach_others();
            let left = self.tell_once("cannot leave the devices of an earlier agent", left);
            self.settled = left.is_some();
        }
    }

    fn follow(&mut self, snapshot: Arc<Snapshot>) {
        if snapshot.complete {
            let held = self.publisher.targets().map(|(address, ..)| address);
            let held = held.collect();
            self.out.follow(&snapshot, &held, Now::read());
        }
        self.snapshot = Some(snapshot);
        self.apply();
    }

    /// Tells the programs what is known now.
    fn apply(&mut self) {
        self.again = None;
        let Some(snapshot) = self.snapshot.clone() else {
            return;
        };
        let now = Instant::now();
        let mut wish = Wish::new(&snapshot, &self.standpoint(now));
        wish.desired.kept.extend(self.out.orphans(now));
        if !(snapshot.complete || self.may_begin(&snapshot, &wish)) {
            return;
        }
        let mut refused = Vec::new();
        match self.publisher.apply(&wish.desired) {
            Ok(report) => {
                self.out.done(now);
                let names = report.refused.iter().map(|it| self.no_room(&wish, it));
                refused.extend(names);
                self.again = report.again;
                let did = report.published + report.removed + report.placed + report.freed > 0;
                // A part of it may have been done before.
                if mem::take(&mut self.is_behind) || did {
                    self.moves.changed();
                    tracing::debug!(?report, "told the packet path");
                }
            }
            Err(error) => {
                let error = error_chain(&error);
                let problem = Problem::new(SUBJECT, format!("{error}; trying again"));
                if !self.refused.contains(&problem) {
                    tracing::warn!(error, "the packet path was not told all and will be again");
                }
                refused.push(problem);
                (self.wish, self.refused) = (wish, refused);
                self.again = Some(now + RETRY);
                self.is_behind = true;
                return;
            }
        }
        // Services are called by their names once they are there.
        self.wish = wish;
        self.refused = refused;
        let next = self.out.next();
        self.again = self.again.into_iter().chain(next).min();
    }

    /// Whether what is known while a source is away can be served: it is all that there was, and nothing is taken away.
    fn may_begin(&self, snapshot: &Snapshot, wish: &Wish) -> bool {
        let mut backends = snapshot
            .services
            .values()
            .flat_map(|it| it.backends.values());
        let desired = &wish.desired;
        let members = desired.endpoints.values().flat_map(|it| it.members.iter());
        let mut named: BTreeSet<_> = members.map(|it| it.address).collect();
        named.extend(&desired.kept);
        snapshot.stopgap
            && backends.all(|it| it.probe.state != ProbeState::Starting)
            && self
                .publisher
                .endpoints()
                .all(|(key, _)| desired.endpoints.contains_key(&key))
            && self
                .publisher
                .targets()
                .all(|(address, ..)| named.contains(&address))
    }

    fn standpoint(&self, now: Instant) -> Standpoint {
        let packet = &self.config.packet;
        let (traced, sample) = self.desk.wanted();
        Standpoint {
            pools: self.config.pools,
            own: self.place.own(),
            inside: self.place.inside(&packet.cards),
            cards: !packet.cards.is_empty(),
            hosts: packet.hosts.clone(),
            out: self.out.targets(now),
            traced,
            settings: Settings {
                sample,
                flood: self.programs.limits().new_flows(self.cpus),
                udp_seconds: UDP_SECONDS,
                ..Settings::default()
            },
        }
    }

    fn no_room(&self, wish: &Wish, refused: &Refused) -> Problem {
        let limits = self.programs.limits();
        match refused {
            Refused::Endpoint(key) => {
                let owner = wish.owners.get(key);
                let owner = owner.map_or_else(String::new, |name| format!("service {name}"));
                let room = limits.services;
                Problem::new(
                    owner,
                    format!(
                        "the packet path has room for {room} endpoints and does not serve it; raise [limits] packet_services"
                    ),
                )
            }
            Refused::Host(host) => Problem::new(
                SUBJECT,
                format!(
                    "there is room for 4096 hosts and {host} is none of them: its packets in tunnels are dropped"
                ),
            ),
            Refused::Vip(vip) => Problem::new(
                SUBJECT,
                format!(
                    "there is room for 4096 VIPs and {vip} is none of them: nobody answers for it"
                ),
            ),
            Refused::Backend(address) => Problem::new(
                SUBJECT,
                format!(
                    "there is room for {} backends and {address} is none of them; raise [limits] backends",
                    limits.backends
                ),
            ),
        }
    }
}

/// Asks the kernel whether the programs of a device are in place.
fn look(device: &lb_packet::Attached) -> Vec<((u32, &'static str), bool)> {
    let hooks = device.hooks.iter();
    let told = hooks.filter_map(|it| Some(((device.index, it.program), it.in_place()?)));
    told.collect()
}

/// Whether there is a device of this index at this moment.
fn is_there(index: u32) -> bool {
    nix::net::if_::if_indextoname(index).is_ok()
}

/// What problems of this stage are about.
const SUBJECT: &str = "packet path";
/// Between two looks at what programs count, and two tries to attach.
const TICK: Duration = Duration::from_secs(2);
/// Between two tries to tell the programs what they should know.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at what was sampled, while somebody follows packets.
const SAMPLED: Duration = Duration::from_millis(50);
/// For the rest of what changes with a device.
const TOGETHER: Duration = Duration::from_millis(20);
/// For whoever announces VIPs to give them up.
const GIVEN_UP: Duration = Duration::from_millis(500);
/// As long as most resolvers and games are silent at most.
const UDP_SECONDS: u32 = 60;
