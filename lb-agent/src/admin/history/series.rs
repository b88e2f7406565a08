//! The steps of a service and of its backends: rings, and what a counter adds to one.

use std::{collections::BTreeMap, time::SystemTime};

use super::{
    Kind, POINTS,
    sample::{Counts, Http, Told},
    unix,
};
use crate::catalog::InstanceKey;

/// In the place of a count that is not known.
const GAP: u32 = u32::MAX;

/// The series of one service.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// Its first sample. Before that all is a gap.
    pub(super) born: usize,
    pub(super) last: [Option<u64>; Kind::ALL.len()],
    pub(super) series: [Series; Kind::ALL.len()],
    pub(super) http: Option<Http>,
    pub(super) backends: BTreeMap<InstanceKey, BackendTrack>,
}

impl Track {
    pub(super) fn new(number: usize, before: Told) -> Self {
        let known = |kind| match kind {
            Kind::Flows | Kind::Failures | Kind::Active => before.kernel,
            Kind::Requests | Kind::Errors => before.front,
        };
        Self {
            born: number.saturating_sub(usize::from(before.kernel || before.front)),
            last: Kind::ALL.map(|kind| known(kind).then_some(0)),
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, number: usize, counts: &Counts) {
        for kind in Kind::ALL {
            let (slot, value) = (kind as usize, counts.values[kind as usize]);
            let point = match (kind, value) {
                (Kind::Active, Some(value)) => u32::try_from(value).unwrap_or(GAP).min(GAP - 1),
                _ => risen(self.last[slot], value),
            };
            self.series[slot].set(self.born, number, point);
            self.last[slot] = value;
        }
        self.http.clone_from(&counts.http);
    }

    /// Nobody told anything of it.
    pub(super) fn miss(&mut self, number: usize) {
        self.add(number, &Counts::default());
        self.miss_backends(number);
    }

    pub(super) fn miss_backends(&mut self, number: usize) {
        for backend in self.backends.values_mut() {
            backend.last = None;
            backend.series.set(backend.born, number, GAP);
        }
    }

    /// Drops the backends that are not in `there`; answers how many.
    pub(super) fn forget(&mut self, there: &BTreeMap<InstanceKey, u64>) -> usize {
        let before = self.backends.len();
        self.backends.retain(|key, _| there.contains_key(key));
        before - self.backends.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct BackendTrack {
    pub(super) born: usize,
    pub(super) last: Option<u64>,
    pub(super) series: Series,
    pub(super) last_flow_unix: Option<u64>,
}

impl BackendTrack {
    pub(super) fn add(&mut self, number: usize, value: u64, now: SystemTime) {
        let point = risen(self.last, Some(value));
        if point != GAP && point > 0 {
            self.last_flow_unix = Some(unix(now));
        }
        self.series.set(self.born, number, point);
        self.last = Some(value);
    }
}

/// One ring; while every point is the same, only that.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) ring: Option<Box<[u32; POINTS]>>,
    pub(super) every: u32,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            ring: None,
            every: GAP,
        }
    }
}

impl Series {
    /// The first sample, `born`, only tells where counting begins.
    pub(super) fn set(&mut self, born: usize, sample: usize, point: u32) {
        if sample == born + 1 && self.ring.is_none() {
            self.every = point;
        } else if sample > born && (self.ring.is_some() || point != self.every) {
            let every = self.every;
            let ring = self.ring.get_or_insert_with(|| Box::new([every; POINTS]));
            ring[sample % POINTS] = point;
        }
    }

    /// The points of the samples before `end`, oldest first; those up to `born` are gaps.
    pub(super) fn line(&self, born: usize, end: usize) -> Vec<Option<u32>> {
        let from = end.saturating_sub(POINTS);
        (from..end).map(|sample| self.point(born, sample)).collect()
    }

    pub(super) fn point(&self, born: usize, sample: usize) -> Option<u32> {
        let ring = self.ring.as_ref();
        let point = ring.map_or(self.every, |ring| ring[sample % POINTS]);
        (sample > born && point != GAP).then_some(point)
    }
}

/// What was added since `last`; a gap if that is not known or more than `now`.
fn risen(last: Option<u64>, now: Option<u64>) -> u32 {
    match (last, now) {
        (Some(last), Some(now)) if now >= last => {
            u32::try_from(now - last).unwrap_or(GAP).min(GAP - 1)
        }
        _ => GAP,
    }
}
