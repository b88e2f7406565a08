//! Compares what the maps hold with what is known of them, a slice at each tick: a round takes a minute, and no change
//! waits for it.

use std::ops::Bound;

use lb_common::ServiceKey;

use crate::{
    installed::Installed,
    maps::{self, Maps},
};

/// How far the present round has come.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// The next backend index.
    backend: u32,
    /// The last endpoint that was compared in this round.
    endpoint: Option<ServiceKey>,
    /// The slices of this round so far.
    slices: u32,
}

impl Audit {
    /// Whether the maps hold in the next slice what `installed` says.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub(super) fn next(&mut self, maps: &Maps, installed: &Installed) -> Result<bool, maps::Error> {
        let backends = maps.room().backends;
        let end = self.backend.saturating_add(backends.div_ceil(SLICES));
        for index in self.backend.max(1)..end.min(backends) {
            let found = maps.backend(index)?;
            let address = installed.addresses.get(&index);
            let known = address.and_then(|it| Some((*it, *installed.backends.get(it)?)));
            if found != known {
                return Ok(false);
            }
        }
        self.backend = end;

        let from = self.endpoint.map_or(Bound::Unbounded, Bound::Excluded);
        let endpoints = installed.services.range((from, Bound::Unbounded));
        let many = installed.services.len().div_ceil(SLICES as usize);
        for (key, service) in endpoints.take(many) {
            if maps.service(key)?.as_ref() != Some(service) {
                return Ok(false);
            }
            self.endpoint = Some(*key);
        }

        self.slices += 1;
        if self.slices < SLICES {
            return Ok(true);
        }
        *self = Self::default();
        // Each that is known was found; so there is another one if there are more.
        Ok(maps.endpoints()? == installed.services.len())
    }
}

/// In a round.
const SLICES: u32 = 60;
