//! What is looked at again and again: which flows are over, what programs count, how flows fare, and what loses packets.

use std::{collections::BTreeMap, time::Instant};

use lb_common::packet::Fate;
use lb_packet::How;

use super::{
    super::{
        moves::Met,
        trouble::{self, Driver, Runs},
    },
    Counted, Stage,
};
use crate::{announce::Announcing, reconcile::error_chain};

impl Stage {
    /// Forgets the flows that are over.
    pub(super) fn collect(&mut self) {
        match self.desk.flows.collect(&self.publisher, &self.collected) {
            Ok(collected) => {
                self.collected = collected;
                self.moves.ended(collected.v4.ended + collected.v6.ended);
            }
            Err(error) => tracing::warn!(
                error = error_chain(&error),
                "cannot look for the flows of the packet path that are over"
            ),
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
        self.counted = read().unwrap_or_else(|error| {
            tracing::warn!(
                error = error_chain(&error),
                "cannot read the figures of the packet path"
            );
            Counted::default()
        });
    }

    /// Looks for what makes devices lose packets although programs are attached.
    pub(super) fn find_troubles(&mut self) {
        let fates = self.counted.fates.as_ref();
        let without_room = fates.and_then(|it| it.get(Fate::Resize.as_str()).copied());
        let before = *self
            .without_room
            .get_or_insert_with(|| without_room.unwrap_or(0));
        let since = without_room.map_or(0, |it| it.saturating_sub(before));
        let mut found: Vec<_> = trouble::of_networks(self.place.networks())
            .into_iter()
            .collect();
        let mut native = None;
        for card in self.programs.attached() {
            let runs = card.hooks.iter().find_map(|hook| match hook.how {
                How::Native => Some(Runs::Native),
                How::Generic => Some(Runs::Generic),
                How::Tcx | How::Clsact => None,
            });
            let Some(runs) = runs else { continue };
            if runs == Runs::Native {
                native = native.or(Some(&card.device));
            }
            let (driver, vlans) = (Driver::of(&card.device), self.place.vlans(card.index));
            found.extend(trouble::of_card(&card.device, &driver, runs, &vlans));
        }
        found.extend(native.and_then(|card| trouble::of_room(card, since)));
        for trouble in &found {
            if !self.troubles.contains(trouble) {
                tracing::warn!(remedy = trouble.remedy, "{}", trouble.what);
            }
        }
        self.troubles = found;
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
        match self.desk.flows.census(&self.publisher) {
            Ok(found) => self.moves.count(&found, &self.wish.owners, met, now),
            Err(error) => {
                let error = error_chain(&error);
                if self.moves.failed(&error) {
                    tracing::warn!(error, "cannot count the flows of the packet path");
                }
            }
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

/// Beside the fates: packets with IPv4 options or IPv6 extension headers, and samples that found no room.
const OPTIONS: &str = "options";
const UNTOLD: &str = "untold-samples";
