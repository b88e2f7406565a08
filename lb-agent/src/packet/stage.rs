//! The stage: keeps the programs attached to the devices, and tells them the newest that is known.
//!
//! It never takes away what it has not been told is gone: before the first complete snapshot what an earlier agent left
//! serves on. What the kernel refuses is tried again. Here is the loop; `attach` has the devices, and `apply` what is told.

mod apply;
mod attach;
mod show;
mod watch;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt as _};
use lb_common::packet::EndpointKey;
use lb_packet::{Collected, Explainer, Figures, Flows, Publisher, Samples};
use rtnetlink::{Handle, MulticastGroup};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    Channels, Config, Labelled, Seen, Sources, Start,
    answers::Desk,
    deadlines::Out,
    desired::Wish,
    moves::Moves,
    neighbours::{Neighbours, towards},
    place::Place,
    seen::Traffic,
    trouble::{Driver, Trouble, WithoutRoom},
};
use crate::{catalog::Problem, causes::error_chain, config, snapshot::Snapshot, wait::at};

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
    /// Whether the maps were told what is known now, or a part of it.
    has_told: bool,
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
        has_told: false,
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
        let again = stage.again.map(Into::into);
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
            () = at(again) => stage.apply(),
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
        // Until it is known who is to be reached, those of an earlier agent stay.
        if !self.has_told {
            return;
        }
        let packet = &self.config.packet;
        let cards = packet.cards.iter().filter_map(|it| self.place.index(it));
        let (cards, towards) = match packet.xdp {
            config::Xdp::Off => Default::default(),
            _ => (cards.collect(), towards(&self.wish.desired)),
        };
        self.neighbours.follow(&self.handle, cards, towards).await;
    }
}

/// What problems of this stage are about.
const SUBJECT: &str = "packet path";
/// Between two looks at what programs count, and two tries to attach.
const TICK: Duration = Duration::from_secs(2);
/// Between two looks at what was sampled, while somebody follows packets.
const SAMPLED: Duration = Duration::from_millis(50);
/// For the rest of what changes with a device.
const TOGETHER: Duration = Duration::from_millis(20);
/// For whoever announces VIPs to give them up.
const GIVEN_UP: Duration = Duration::from_millis(500);
