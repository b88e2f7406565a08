//! Tells the programs what is known now, and the operator what they have no room for.

use std::{
    collections::BTreeSet,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::packet::{MAX_PACKET_HOSTS, MAX_PACKET_VIPS, Settings};
use lb_packet::Refused;

use super::{
    super::desired::{Standpoint, Wish},
    SUBJECT, Stage,
};
use crate::{
    catalog::Problem,
    causes::error_chain,
    removal::deadlines::Now,
    snapshot::{ProbeState, Snapshot},
};

impl Stage {
    pub(super) fn follow(&mut self, snapshot: Arc<Snapshot>) {
        if snapshot.complete {
            let held = self.publisher.targets().map(|(address, ..)| address);
            let held = held.collect();
            self.out.follow(&snapshot, &held, Now::read());
        }
        self.snapshot = Some(snapshot);
        self.apply();
    }

    /// Tells the programs what is known now.
    pub(super) fn apply(&mut self) {
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
        self.has_told = true;
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
                    "there is room for {MAX_PACKET_HOSTS} hosts and {host} is none of them: its packets in tunnels are dropped"
                ),
            ),
            Refused::Vip(vip) => Problem::new(
                SUBJECT,
                format!(
                    "there is room for {MAX_PACKET_VIPS} VIPs and {vip} is none of them: nobody answers for it"
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

/// Between two tries to tell the programs what they should know.
const RETRY: Duration = Duration::from_secs(1);
/// As long as most resolvers and games are silent at most.
const UDP_SECONDS: u32 = 60;
