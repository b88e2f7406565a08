//! One service, and which share of its new flows each backend has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use serde::Serialize;

use super::{Backend, FULL};
use crate::{
    catalog::InstanceKey,
    options::{Local, Options},
};

/// One service as the data plane is to serve it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its virtual address; `None` while none could be given (see `problems`).
    pub vip: Option<Ipv4Addr>,
    /// What its registrations ask for.
    pub options: Options,
    /// Complete host names beside the ones made from its name.
    pub aliases: BTreeSet<String>,
    /// Its instances, by key.
    pub backends: BTreeMap<InstanceKey, Backend>,
}

impl Service {
    /// The backends that take new flows.
    pub fn usable(&self) -> impl Iterator<Item = (&InstanceKey, &Backend)> {
        self.backends
            .iter()
            .filter(|(_, backend)| backend.state().usable())
    }

    /// The share of new flows that each backend has on this host, beside the others of the service: its weight, and
    /// what `lb_local` and slow start make of it. 0 takes none.
    pub fn shares(&self) -> impl Iterator<Item = (&InstanceKey, &Backend, u16)> {
        let favours =
            self.options.local == Local::Prefer && self.backends.values().any(|it| it.local);
        let ramps = self.ramps();
        let full = move |backend: &Backend| {
            let times = if favours && backend.local {
                LOCAL_FAVOUR
            } else {
                1
            };
            // In percent only where there are such, or every weight would be a hundred times itself.
            let percent = if ramps { FULL.into() } else { 1 };
            u32::from(backend.weight) * times * percent
        };
        // Where the heaviest would not fit, all of them are scaled down alike.
        let heaviest = self.backends.values().map(full).max().unwrap_or(0);
        let scale = heaviest.div_ceil(u16::MAX.into()).max(1);
        self.backends.iter().map(move |(key, backend)| {
            let share = match self.options.local {
                Local::Only if !backend.local => 0,
                _ if ramps => full(backend) / u32::from(FULL) * u32::from(backend.ramp.min(FULL)),
                _ => full(backend),
            };
            let share = share.div_ceil(scale);
            (key, backend, u16::try_from(share).unwrap_or(u16::MAX))
        })
    }

    /// Whether some of its backends are spared: not where nobody could take flows in their place.
    fn ramps(&self) -> bool {
        let takes = |it: &&Backend| {
            it.state().usable() && it.weight > 0 && (it.local || self.options.local != Local::Only)
        };
        let all = || self.backends.values();
        all().any(|it| it.ramp < FULL) && all().filter(takes).any(|it| it.ramp == FULL)
    }
}

/// How many times the weight of another host's backend one of this host has under `lb_local=prefer`.
const LOCAL_FAVOUR: u32 = 16;
