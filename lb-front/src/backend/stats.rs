//! What the front knows of backends and tells the agent.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::account::Account;
use crate::{
    services::Ended,
    traffic::{Traffic, add_buckets},
};

/// A backend that requests went to, for as long as the routes have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStats {
    /// Where it is.
    pub address: SocketAddr,
    /// Requests that it has not answered to the end.
    pub in_flight: u64,
    /// Connections to it, idle and upgraded ones included.
    pub open: u64,
    /// Connections that wait for a request.
    pub idle: u64,
    /// Attempts that ended in a gateway error, its own ones included.
    pub failures: u64,
    /// Attempts that followed a failed one of the same request.
    pub retries: u64,
    /// Requests that it was the last one tried for, and that have ended.
    pub requests: u64,
    /// Those among them that were answered with a status from 500 on, or not at all although the client waited.
    pub errors: u64,
    /// How many took up to each of [`ServiceTraffic::BOUNDS`](crate::ServiceTraffic::BOUNDS) and longer than the one before, from
    /// head to end; as many as there are up to the slowest one.
    pub buckets: Vec<u64>,
    /// Microseconds that all of these took.
    pub micros: u64,
    /// Bytes of requests' bodies.
    pub received: u64,
    /// Bytes of answers' bodies.
    pub sent: u64,
}

/// What one worker counts of the requests that a backend was the last one tried for.
#[derive(Default)]
pub(crate) struct Served {
    requests: u64,
    errors: u64,
    traffic: Traffic,
}

impl Served {
    pub(crate) fn count(&mut self, ended: Ended) {
        let failed = ended.reason.has_failed(ended.class);
        self.requests += 1;
        self.errors += u64::from(failed);
        self.traffic.count(ended.received, ended.sent, ended.took);
    }
}

impl BackendStats {
    /// What a worker has of `served`, beside nothing else.
    pub(super) fn of(address: SocketAddr, served: &Served) -> Self {
        let buckets = &served.traffic.buckets;
        let slowest = buckets.iter().rposition(|&count| count > 0);
        Self {
            address,
            in_flight: 0,
            open: 0,
            idle: 0,
            failures: 0,
            retries: 0,
            requests: served.requests,
            errors: served.errors,
            buckets: buckets[..slowest.map_or(0, |slowest| slowest + 1)].to_vec(),
            micros: served.traffic.micros,
            received: served.traffic.received,
            sent: served.traffic.sent,
        }
    }

    fn add(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        self.open += other.open;
        self.idle += other.idle;
        self.failures += other.failures;
        self.retries += other.retries;
        self.requests += other.requests;
        self.errors += other.errors;
        add_buckets(&mut self.buckets, &other.buckets);
        self.micros = self.micros.saturating_add(other.micros);
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// A service with backends that were ejected, or with requests that wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Its label.
    pub service: String,
    /// Requests that wait for a place at one of its backends.
    pub queued: u64,
    /// How often one of its backends was ejected by a worker.
    pub ejections: u64,
    /// Backends that are ejected now.
    pub ejected: Vec<Ejected>,
}

/// A backend that a service's requests avoid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejected {
    /// Where it is.
    pub address: SocketAddr,
    /// By how many workers: each judges for itself.
    pub workers: u64,
    /// Until when at the latest, in seconds since 1970.
    pub until: u64,
    /// How the last request to it failed.
    pub why: String,
}

impl ServiceStats {
    /// `None`: there is nothing to tell.
    pub(super) fn of(account: &Account) -> Option<Self> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since_1970.unwrap_or_default();
        let until = |left: Duration| (now + left + HALF_A_SECOND).as_secs();
        let ejected = account.ejected().into_iter();
        let stats = Self {
            service: account.label.to_string(),
            queued: account.places.len() as u64,
            ejections: account.ejections.get(),
            ejected: ejected
                .map(|(address, left, why)| Ejected {
                    address,
                    workers: 1,
                    until: until(left),
                    why: why.to_owned(),
                })
                .collect(),
        };
        (stats.queued > 0 || stats.ejections > 0).then_some(stats)
    }
}

/// The figures of several workers as one.
pub(crate) fn sum_backends(all: impl IntoIterator<Item = BackendStats>) -> Vec<BackendStats> {
    let mut sum: BTreeMap<SocketAddr, BackendStats> = BTreeMap::new();
    for one in all {
        let Some(known) = sum.get_mut(&one.address) else {
            sum.insert(one.address, one);
            continue;
        };
        known.add(&one);
    }
    sum.into_values().collect()
}

/// The same of services.
pub(crate) fn sum_services(all: impl IntoIterator<Item = ServiceStats>) -> Vec<ServiceStats> {
    let mut sum: BTreeMap<String, ServiceStats> = BTreeMap::new();
    for one in all {
        let Some(known) = sum.get_mut(&one.service) else {
            sum.insert(one.service.clone(), one);
            continue;
        };
        known.queued += one.queued;
        known.ejections += one.ejections;
        for ejected in one.ejected {
            let mut others = known.ejected.iter_mut();
            match others.find(|other| other.address == ejected.address) {
                None => known.ejected.push(ejected),
                Some(other) => {
                    other.workers += ejected.workers;
                    if ejected.until > other.until {
                        (other.until, other.why) = (ejected.until, ejected.why);
                    }
                }
            }
        }
        known
            .ejected
            .sort_unstable_by_key(|ejected| ejected.address);
    }
    sum.into_values().collect()
}

/// Rounds to the second.
const HALF_A_SECOND: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_eject_the_same_backend_are_counted() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let stats = |port, until| ServiceStats {
            service: "web".into(),
            queued: 2,
            ejections: 1,
            ejected: vec![Ejected {
                address: address(port),
                workers: 1,
                until,
                why: format!("reason {until}"),
            }],
        };
        let sum = sum_services([stats(2, 10), stats(1, 5), stats(2, 20)]);
        let ejected = sum[0].ejected.iter();
        let ejected: Vec<_> = ejected
            .map(|it| (it.address.port(), it.workers, it.until, it.why.as_str()))
            .collect();
        assert_eq!(ejected, [(1, 1, 5, "reason 5"), (2, 2, 20, "reason 20")]);
        assert_eq!((sum.len(), sum[0].queued, sum[0].ejections), (1, 6, 3));
    }
}
