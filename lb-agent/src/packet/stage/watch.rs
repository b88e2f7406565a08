//! What is looked at again and again: which flows are over, what programs count, how flows fare, and what loses packets.

use std::{
    collections::BTreeMap,
    error::Error,
    time::{Duration, Instant},
};

use lb_common::packet::Fate;
use lb_packet::How;

use super::{
    super::{
        moves::Met,
        trouble::{self, Driver, Runs},
    },
    Counted, Stage,
};
use crate::{announce::Announcing, causes::error_chain};

impl Stage {
    /// Forgets the flows that are over.
    pub(super) fn collect(&mut self) {
        let done = self.desk.flows.collect(&self.publisher, &self.collected);
        let failure = "cannot look for the flows of the packet path that are over";
        if let Some(collected) = self.tell_once(failure, done) {
            self.collected = collected;
            self.moves.ended(collected.v4.ended + collected.v6.ended);
        }
    }

    /// What was found, or none and a warning that says what failed: not again while it fails in the same way.
    pub(super) fn tell_once<T>(&mut self, failure: &str, done: Result<T, impl Error>) -> Option<T> {
        match done {
            Ok(found) => {
                self.told.remove(failure);
                Some(found)
            }
            Err(error) => {
                let error = error_chain(&error);
                if self.told.get(failure) != Some(&error) {
                    tracing::warn!(error, "{failure}");
                    self.told.insert(failure.to_owned(), error);
                }
                None
            }
        }
    }

    /// Reads what the programs count.
    pub(super) fn count(&mut self) {
        let read = || -> Result<Counted, lb_packet::Error> {
            let fates = self.figures.fates()?;
            let mut by_name: BTreeMap<_, _> = fates
                .packets
                .into_iter()
                .map(|(fate, packets)| (fate.as_str(), packets))
                .collect();
            by_name.insert(OPTIONS, fates.options);
            by_name.insert(UNTOLD, fates.untold);
            let endpoints = self.figures.endpoints(&self.publisher)?.into_iter();
            let backends = self.figures.backends(&self.publisher)?.into_iter();
            Ok(Counted {
                fates: Some(by_name),
                endpoints: endpoints.map(|(key, it)| (key, it.into())).collect(),
                backends: backends.map(|(address, it)| (address, it.into())).collect(),
            })
        };
        let counted = read();
        let counted = self.tell_once("cannot read the figures of the packet path", counted);
        self.counted = counted.unwrap_or_default();
    }

    /// Looks for what makes devices lose packets although programs are attached.
    pub(super) fn find_troubles(&mut self) {
        let fates = self.counted.fates.as_ref();
        let packets = fates.and_then(|it| it.get(Fate::Resize.as_str()).copied());
        let now = Instant::now();
        let grows = self.without_room.grows(packets, now);
        let networks = self
            .place
            .networks(|index, name| self.has_clients(index, name));
        let mut found: Vec<_> = trouble::of_networks(networks).into_iter().collect();
        let mut native = Vec::new();
        self.drivers
            .retain(|_, (asked, _)| now.duration_since(*asked) < ASKED_AGAIN);
        for card in self.programs.attached() {
            let runs = card.hooks.iter().find_map(|hook| match hook.how {
                How::Native => Some(Runs::Native),
                How::Generic => Some(Runs::Generic),
                How::Tcx | How::Clsact => None,
            });
            let Some(runs) = runs else { continue };
            if runs == Runs::Native {
                native.push(card.device.as_str());
            }
            let ask = || (now, Driver::of(&card.device));
            let (_, driver) = self.drivers.entry(card.index).or_insert_with(ask);
            let vlans = self.place.vlans(card.index);
            found.extend(trouble::of_card(&card.device, driver, runs, &vlans));
        }
        found.extend(trouble::of_room(&native).filter(|_| grows));
        for trouble in &found {
            if !self.troubles.contains(trouble) {
                tracing::warn!(remedy = trouble.remedy, "{}", trouble.what);
            }
        }
        self.troubles = found;
    }

    /// Whether clients that are served are at the other end of a device, or may be behind it as behind a bridge.
    fn has_clients(&self, index: u32, name: &str) -> bool {
        let device = self.place.devices.get(&index);
        let packet = &self.config.packet;
        let is_card = packet.cards.iter().any(|it| it == name);
        !is_card
            && (device.is_some_and(|it| it.leads_inside)
                || self.labelled.devices.contains(&index)
                || packet.clients.iter().any(|it| it.means(name)))
    }

    /// Counts the flows that are not where the table leads, if that may have changed.
    pub(super) fn watch_moves(&mut self) {
        let (met, now) = (Met::of(self.counted.fates.as_ref()), Instant::now());
        if self.moves.is_due(met, now) {
            self.count_flows(met, now);
        }
        self.moves.look(met, now);
    }

    fn count_flows(&mut self, met: Met, now: Instant) {
        let found = self.desk.flows.census(&self.publisher);
        if let Some(found) = self.tell_once("cannot count the flows of the packet path", found) {
            self.moves.count(&found, &self.wish.owners, met, now);
        }
    }

    /// Who answers for the VIPs is told.
    pub(super) fn hear(&mut self, announcing: &Announcing) {
        if announcing.owner.is_some() && !announcing.mine {
            self.moves.others();
        }
        self.own(announcing.mine);
    }

    /// This host answers for the VIPs from now on, or no more.
    pub(super) fn own(&mut self, mine: bool) {
        if self.moves.is_news(mine) {
            self.count();
            let (met, now) = (Met::of(self.counted.fates.as_ref()), Instant::now());
            self.count_flows(met, now);
            self.moves.own(mine, met, now);
        }
    }
}

/// Between two questions to the driver of a card, which may be set otherwise at any time.
const ASKED_AGAIN: Duration = Duration::from_secs(30);
/// Beside the fates: packets with IPv4 options or IPv6 extension headers, and samples that found no room.
const OPTIONS: &str = "options";
const UNTOLD: &str = "untold-samples";
