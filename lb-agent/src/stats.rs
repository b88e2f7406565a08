//! Figures that the data plane counts, read on request by the stage that owns the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    ops::{AddAssign, SubAssign},
    sync::Arc,
};

use lb_common::{Counters, FIRST_BUCKET_MICROS, LATENCY_BUCKETS, Latency, Refusal};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{catalog::InstanceKey, snapshot::ServiceName};

/// Asks the reconcile stage for the current figures. Who asks at the same time is told the same count.
pub type StatsRequest = oneshot::Sender<Arc<Stats>>;

/// Asks where a client of a service with affinity is kept.
pub struct KeptRequest {
    /// The cookie of its network namespace.
    pub client: u64,
    /// The service's virtual address.
    pub vip: Ipv4Addr,
    /// Where it is told: for each protocol at most one, none where the next flow may go anywhere.
    pub reply: oneshot::Sender<Vec<Kept>>,
}

/// The backend that a client is kept at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kept {
    /// `tcp` or `udp`.
    pub proto: String,
    /// Where its next flow goes, unless that is suspected.
    pub address: SocketAddr,
    /// How long ago it began its last flow.
    pub seconds_ago: u32,
}

/// The data plane's figures at one moment.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceStats>,
    /// Entries and capacity by map name.
    pub maps: BTreeMap<&'static str, MapFill>,
    /// Attached programs: hook name to whether its link is in place.
    pub programs: BTreeMap<&'static str, bool>,
    /// Connects refused because nobody has the address of the pool, or not on that port.
    pub unknown: u64,
    /// The addresses that the kernel skips at the moment, for it saw connects fail there.
    pub suspects: BTreeSet<SocketAddr>,
    /// Clients that are told apart from the host.
    pub clients: usize,
    /// The views that these stand in.
    pub views: usize,
}

/// Figures of one service, since its table was first used. While the agent runs and the service is there, no count falls:
/// what was counted at endpoints and backends that are gone stays in them.
#[derive(Clone, Debug, Default)]
pub struct ServiceStats {
    /// Connects that were given a backend.
    pub flows: u64,
    /// Connects that were refused, by reason.
    pub refused: Refusals,
    /// Connects that failed at the backend.
    pub failed: u64,
    /// Open flows to its backends, those that already left the service included. Flows are counted for each
    /// address: two services that share one each show all of its flows.
    pub active: u64,
    /// How long connects to its backends took.
    pub handshakes: Handshakes,
    /// The figures of each backend.
    pub backends: BTreeMap<InstanceKey, BackendStats>,
}

/// Figures of one backend within a service.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackendStats {
    /// Open flows.
    pub active: u64,
    /// Connects that failed there, by whichever of its addresses.
    pub failed: u64,
    /// How long those took that did not. TCP only.
    pub handshakes: Handshakes,
    /// Whether the kernel saw it fail within the last ten seconds.
    pub suspect: bool,
    /// Whether it already left the service and only lives on for its open flows.
    pub leaving: bool,
}

/// Connects to a service that were refused, by [`Refusal`]. What nobody has is no service's: [`Stats::unknown`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Refusals {
    /// No backend was usable.
    pub no_backend: u64,
    /// None of the usable ones could be reached from where the client stands.
    pub no_path: u64,
    /// The service does not let the client in.
    pub denied: u64,
}

impl Refusals {
    /// All of them.
    pub fn total(self) -> u64 {
        self.by_reason().map(|(_, count)| count).iter().sum()
    }

    /// Each reason's word and count.
    pub fn by_reason(self) -> [(&'static str, u64); 3] {
        [
            (Refusal::NoBackend.as_str(), self.no_backend),
            (Refusal::NoPath.as_str(), self.no_path),
            (Refusal::Denied.as_str(), self.denied),
        ]
    }
}

impl ServiceStats {
    /// Adds what was counted for it.
    pub(crate) fn add(&mut self, counters: &Counters) {
        let refused = |reason: Refusal| counters.refused[reason as usize];
        self.flows += counters.flows;
        self.failed += counters.failed;
        self.refused.no_backend += refused(Refusal::NoBackend);
        self.refused.no_path += refused(Refusal::NoPath);
        self.refused.denied += refused(Refusal::Denied);
    }
}

/// How long handshakes took, as the kernel measures it: from the first SYN to its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// The sum of their times, in microseconds.
    pub micros: u64,
    /// How many took less than the bound of each bucket, and not less than the one before; the last has none.
    pub buckets: [u64; LATENCY_BUCKETS as usize],
}

impl Handshakes {
    /// The upper bound of each bucket but the last, in microseconds.
    pub fn bounds() -> impl Iterator<Item = u64> {
        (0..LATENCY_BUCKETS - 1).map(|bucket| u64::from(FIRST_BUCKET_MICROS) << bucket)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time, in microseconds, that so many percent of them did not exceed: estimated, as if those of a bucket were
    /// spread evenly over it. The last bucket has no end, so it answers its beginning. `None` without any.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        percentile(&self.buckets, Self::bounds(), percent)
    }
}

/// The same of `buckets`, each but the last with its end among `bounds`, in whatever unit these are.
pub(crate) fn percentile(
    buckets: &[u64],
    bounds: impl Iterator<Item = u64>,
    percent: u64,
) -> Option<u64> {
    let count: u64 = buckets.iter().sum();
    let rank = (count * percent).div_ceil(100).max(1);
    let mut below = 0;
    let mut from = 0;
    for (&many, end) in buckets.iter().zip(bounds.map(Some).chain([None])) {
        if below + many >= rank {
            let end = end.unwrap_or(from);
            return Some(from + (end - from) * (rank - below) / many);
        }
        below += many;
        from = end.unwrap_or(from);
    }
    None
}

impl AddAssign for Handshakes {
    fn add_assign(&mut self, other: Self) {
        self.micros += other.micros;
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += bucket;
        }
    }
}

impl SubAssign for Handshakes {
    /// Takes away what was counted before; never below zero.
    fn sub_assign(&mut self, before: Self) {
        self.micros = self.micros.saturating_sub(before.micros);
        for (sum, bucket) in self.buckets.iter_mut().zip(before.buckets) {
            *sum = sum.saturating_sub(bucket);
        }
    }
}

impl From<&Latency> for Handshakes {
    fn from(latency: &Latency) -> Self {
        Self {
            micros: latency.micros,
            buckets: latency.buckets.map(u64::from),
        }
    }
}

/// How full a map is.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct MapFill {
    /// Entries in use.
    pub entries: u64,
    /// Entries there is room for.
    pub capacity: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshakes(buckets: &[(usize, u64)]) -> Handshakes {
        let mut all = Handshakes::default();
        for &(bucket, many) in buckets {
            all.buckets[bucket] = many;
        }
        all
    }

    #[test]
    fn a_percentile_lies_in_the_bucket_where_so_many_are_reached() {
        let all = handshakes(&[(0, 98), (3, 2)]);
        assert_eq!(all.percentile(50), Some(64 * 50 / 98));
        // The first of two between 256 and 512.
        assert_eq!(all.percentile(99), Some(384));
        assert_eq!(all.percentile(100), Some(512));
    }

    #[test]
    fn without_handshakes_there_is_no_percentile_and_the_last_bucket_has_no_end() {
        assert_eq!(Handshakes::default().percentile(50), None);
        let slow = handshakes(&[(LATENCY_BUCKETS as usize - 1, 3)]);
        assert_eq!(slow.percentile(50), Handshakes::bounds().last());
        assert_eq!(slow.percentile(50), Some(65_536));
    }

    #[test]
    fn each_refusal_of_a_service_is_counted_by_its_reason() {
        let mut stats = ServiceStats::default();
        let counters = Counters {
            flows: 5,
            failed: 1,
            refused: [9, 1, 2, 3],
            ..Counters::default()
        };
        stats.add(&counters);
        stats.add(&counters);
        let expect = [("no-backend", 2), ("no-path", 4), ("denied", 6)];
        assert_eq!(stats.refused.by_reason(), expect);
        assert_eq!((stats.flows, stats.failed), (10, 2));
        assert_eq!(stats.refused.total(), 12);
    }
}
