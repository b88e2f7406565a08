//! What was counted by one moment, of the kernel and of the front.

use std::collections::BTreeMap;

use lb_front::{FrontStats, ServiceTraffic};

use super::Kind;
use crate::{catalog::InstanceKey, snapshot::Snapshot, stats::Stats};

/// What was counted by one moment, since its counters began.
#[derive(Debug, Default)]
pub(in crate::admin) struct Sample {
    pub(super) services: BTreeMap<String, Counts>,
    pub(super) told: Told,
}

/// Who was heard: what one who was heard does not name is at zero with him.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) kernel: bool,
    pub(super) front: bool,
}

/// Of one service; `None` is not known.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) values: [Option<u64>; Kind::ALL.len()],
    pub(super) http: Option<Http>,
    pub(super) backends: BTreeMap<InstanceKey, u64>,
}

/// What the front counted for a service since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::admin) struct Http {
    pub(in crate::admin) requests: u64,
    /// Answered with 5xx, or not at all.
    pub(in crate::admin) errors: u64,
    pub(in crate::admin) p50_microseconds: Option<u64>,
    pub(in crate::admin) p99_microseconds: Option<u64>,
    pub(in crate::admin) received: u64,
    pub(in crate::admin) sent: u64,
}

/// What `stats` and `front` count for the services of `snapshot`.
pub(super) fn sample(
    snapshot: &Snapshot,
    stats: Option<&Stats>,
    front: Option<&FrontStats>,
) -> Sample {
    let told = Told {
        kernel: stats.is_some(),
        front: front.is_some(),
    };
    let mut sample = Sample {
        services: BTreeMap::new(),
        told,
    };
    for (name, stats) in stats.into_iter().flat_map(|stats| &stats.services) {
        let label = snapshot.label(name).to_string();
        let counts = sample.services.entry(label).or_default();
        let mut set = |kind: Kind, value| counts.values[kind as usize] = Some(value);
        set(Kind::Flows, stats.flows);
        set(Kind::Failures, stats.refused.total() + stats.failed);
        set(Kind::Active, stats.active);
        let backends = stats.backends.iter();
        counts.backends = backends
            .map(|(key, stats)| (key.clone(), stats.handshakes.count()))
            .collect();
    }
    for ended in front.into_iter().flat_map(|front| &front.terminations) {
        let counts = sample.services.entry(ended.service.clone()).or_default();
        let http = counts.http.get_or_insert_default();
        http.requests += ended.count;
        if ended.is_error() {
            http.errors += ended.count;
        }
    }
    for traffic in front.into_iter().flat_map(|front| &front.traffic) {
        let counts = sample.services.entry(traffic.service.clone()).or_default();
        let http = counts.http.get_or_insert_default();
        http.p50_microseconds = percentile(traffic, 50);
        http.p99_microseconds = percentile(traffic, 99);
        (http.received, http.sent) = (traffic.received, traffic.sent);
    }
    for counts in sample.services.values_mut() {
        // A front that was heard and does not name it has served nothing of it yet.
        let none = told.front.then(Http::default);
        if let Some(http) = counts.http.as_ref().or(none.as_ref()) {
            counts.values[Kind::Requests as usize] = Some(http.requests);
            counts.values[Kind::Errors as usize] = Some(http.errors);
        }
    }
    sample
}

/// The bound that so many percent of the requests did not exceed; `None` without any. The last bucket has no bound, so
/// that it answers its beginning.
///
/// The other one, `stats::percentile`, estimates within a bucket. Here nothing is estimated: the page writes this as `≤`.
fn percentile(traffic: &ServiceTraffic, percent: u64) -> Option<u64> {
    let count: u64 = traffic.buckets.iter().sum();
    let rank = (count * percent).div_ceil(100);
    let mut below = 0;
    for (bucket, many) in traffic.buckets.iter().enumerate() {
        below += many;
        if below >= rank && count > 0 {
            let last = ServiceTraffic::BOUNDS.len() - 1;
            return Some(ServiceTraffic::BOUNDS[bucket.min(last)]);
        }
    }
    None
}
