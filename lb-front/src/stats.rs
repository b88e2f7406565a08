//! What the front counts. Each worker counts for itself without locks; the sum is made on request.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use serde::{Deserialize, Serialize};

use super::{
    answer::Reason,
    backend::stats::{BackendStats, ServiceStats, sum_backends, sum_services},
    services::{Ended, Key, Number, ServiceTraffic, Services},
};

/// The figures of a front since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontStats {
    /// Its process id.
    pub pid: u32,
    /// Its worker threads.
    pub workers: usize,
    /// Client connections taken.
    pub accepted: u64,
    /// Client connections open now.
    pub open: u64,
    /// Connections opened to backends.
    pub connects: u64,
    /// Requests sent on a connection that was already open.
    pub reused: u64,
    /// Attempts that ended in a gateway error, the backend's own ones included.
    pub failures: u64,
    /// Attempts that followed a failed one of the same request.
    pub retries: u64,
    /// Requests by service, class of status, method and version.
    pub requests: Vec<RequestCount>,
    /// The same requests by service, class of status and end.
    pub terminations: Vec<TerminationCount>,
    /// What went to and from each service.
    pub traffic: Vec<ServiceTraffic>,
    /// Lines of the access log that were lost.
    pub log_lost: u64,
    /// Streams refused before there was a request, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Backends that requests went to.
    pub backends: Vec<BackendStats>,
    /// Services whose backends fail or have no place.
    pub services: Vec<ServiceStats>,
}

/// How many requests to a service went in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCount {
    /// The service's label; empty when no service was found, `_gone` for all that have left.
    pub service: String,
    /// `1xx` to `5xx`, or `none` when the client got no answer.
    pub class: String,
    /// The method, if it is one of RFC 9110 or PATCH and the service has answered it or every service is asked it, else
    /// `other`.
    pub method: String,
    /// The version of HTTP that the client spoke: `1.0`, `1.1` or `2`.
    pub version: String,
    /// How many.
    pub count: u64,
}

/// How many requests to a service ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminationCount {
    /// As in [`RequestCount`].
    pub service: String,
    /// As in [`RequestCount`].
    pub class: String,
    /// How they ended.
    pub reason: Reason,
    /// How many.
    pub count: u64,
}

impl TerminationCount {
    /// Whether they failed: the status was 500 or above, or there was none although the client waited.
    pub fn is_error(&self) -> bool {
        let digit = self.class.chars().next().and_then(|it| it.to_digit(10));
        self.reason
            .has_failed(digit.and_then(|it| it.try_into().ok()).unwrap_or(0))
    }
}

impl FrontStats {
    /// Requests that ended for `reason`.
    pub fn ended(&self, reason: Reason) -> u64 {
        let ended = self.terminations.iter().filter(|it| it.reason == reason);
        ended.map(|it| it.count).sum()
    }

    /// The figures of all `workers` together, in an order of its own: equal figures are equal values.
    pub(super) fn sum(workers: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        let mut requests: BTreeMap<_, u64> = BTreeMap::new();
        let mut terminations: BTreeMap<_, u64> = BTreeMap::new();
        let (mut backends, mut services) = (Vec::new(), Vec::new());
        let mut traffic: BTreeMap<_, ServiceTraffic> = BTreeMap::new();
        for worker in workers {
            sum.add(&worker);
            backends.extend(worker.backends);
            services.extend(worker.services);
            for request in worker.requests {
                let spoken = (request.method, request.version);
                let kind = (request.service, request.class, spoken);
                *requests.entry(kind).or_default() += request.count;
            }
            for ended in worker.terminations {
                let kind = (ended.service, ended.class, ended.reason);
                *terminations.entry(kind).or_default() += ended.count;
            }
            for service in worker.traffic {
                let sum = traffic.entry(service.service.clone()).or_default();
                sum.add(&service);
            }
        }
        sum.backends = sum_backends(backends);
        sum.services = sum_services(services);
        let traffic = traffic.into_iter();
        sum.traffic = traffic
            .map(|(service, sum)| ServiceTraffic { service, ..sum })
            .collect();
        let requests = requests.into_iter();
        sum.requests = requests
            .map(
                |((service, class, (method, version)), count)| RequestCount {
                    service,
                    class,
                    method,
                    version,
                    count,
                },
            )
            .collect();
        let terminations = terminations.into_iter();
        sum.terminations = terminations
            .map(|((service, class, reason), count)| TerminationCount {
                service,
                class,
                reason,
                count,
            })
            .collect();
        sum
    }

    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.open += other.open;
        self.connects += other.connects;
        self.reused += other.reused;
        self.failures += other.failures;
        self.retries += other.retries;
        for (reason, count) in &other.rejected {
            *self.rejected.entry(reason.clone()).or_default() += count;
        }
    }
}

/// One worker's counters.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) accepted: Count,
    pub(super) connects: Count,
    pub(super) reused: Count,
    pub(super) failures: Count,
    pub(super) retries: Count,
    /// Whether the time to drain is over.
    cutting: Cell<bool>,
    services: RefCell<Services>,
    rejected: RefCell<BTreeMap<&'static str, u64>>,
}

#[derive(Default)]
pub(super) struct Count(Cell<u64>);

impl Count {
    pub(super) fn add_one(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.get()
    }
}

impl Counters {
    /// From here on it is the front that ends requests.
    pub(super) fn begin_cutting(&self) {
        self.cutting.set(true);
    }

    pub(super) fn is_cutting(&self) -> bool {
        self.cutting.get()
    }

    /// Room for the figures of `service`.
    pub(super) fn enter(&self, service: &Number) -> Key {
        self.services.borrow_mut().enter(service)
    }

    /// A request to the service behind `key`, or to none, has ended.
    pub(super) fn request(&self, key: Option<Key>, ended: Ended) {
        self.services.borrow_mut().count(key, ended);
    }

    /// See [`Services::fold`].
    pub(super) fn fold(&self, live: impl Fn(&str) -> bool) {
        self.services.borrow_mut().fold(live);
    }

    pub(super) fn rejected(&self, reason: &'static str) {
        *self.rejected.borrow_mut().entry(reason).or_default() += 1;
    }

    pub(super) fn read(&self, open: usize) -> FrontStats {
        let services = self.services.borrow();
        let rejected = self.rejected.borrow();
        FrontStats {
            accepted: self.accepted.0.get(),
            open: open as u64,
            connects: self.connects.0.get(),
            reused: self.reused.0.get(),
            failures: self.failures.0.get(),
            retries: self.retries.0.get(),
            requests: services.requests(),
            terminations: services.terminations(),
            traffic: services.traffic(),
            rejected: rejected
                .iter()
                .map(|(&reason, &count)| (reason.to_owned(), count))
                .collect(),
            ..FrontStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{services::Numbers, spoken::Spoken};

    fn counts(stats: &FrontStats) -> Vec<(&str, &str, u64)> {
        let requests = stats.requests.iter();
        requests
            .map(|it| (it.service.as_str(), it.class.as_str(), it.count))
            .collect()
    }

    fn ended() -> Ended {
        Ended {
            class: 2,
            reason: Reason::Ok,
            spoken: Spoken::of(&hyper::Method::GET, hyper::Version::HTTP_11),
            received: 1,
            sent: 2,
            took: None,
        }
    }

    /// With numbers of its own, as no two workers have.
    fn counted(labels: &[&str]) -> Counters {
        let (counters, numbers) = (Counters::default(), Arc::new(Numbers::default()));
        let mut living = Vec::new();
        for &label in labels {
            let number = numbers.of(&label.into());
            let key = counters.enter(&number);
            counters.request(Some(key), ended());
            living.push(number);
        }
        counters
    }

    fn unmatched(counters: &Counters) {
        let ended = Ended {
            class: 0,
            reason: Reason::NoRoute,
            ..ended()
        };
        counters.request(None, ended);
    }

    #[test]
    fn workers_are_summed_by_service_in_one_order() {
        let (one, other) = (counted(&["b", "a"]), counted(&["c", "b"]));
        unmatched(&other);
        let sum = FrontStats::sum([one.read(1), other.read(2)]);
        let all = [
            ("", "none", 1),
            ("a", "2xx", 1),
            ("b", "2xx", 2),
            ("c", "2xx", 1),
        ];
        assert_eq!(counts(&sum), all);
        assert_eq!(sum.open, 3);
        let traffic = sum.traffic.iter();
        let traffic: Vec<_> = traffic.map(|it| (&*it.service, it.sent)).collect();
        assert_eq!(traffic, [("", 2), ("a", 2), ("b", 4), ("c", 2)]);
        assert_eq!(FrontStats::sum([other.read(2), one.read(1)]), sum);
    }

    #[test]
    fn services_that_have_left_are_counted_as_one_and_nothing_is_lost() {
        let counters = counted(&["a", "b", "c", "c"]);
        unmatched(&counters);
        counters.fold(|label| label == "a");
        counters.fold(|label| label == "a");
        let sum = FrontStats::sum([counters.read(0)]);
        let all = [("", "none", 1), ("_gone", "2xx", 3), ("a", "2xx", 1)];
        assert_eq!(counts(&sum), all);
    }
}
