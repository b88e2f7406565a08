//! What the front counts. Each worker counts for itself without locks; the sum is made on request.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    answer::Reason,
    backend::stats::{BackendStats, ServiceStats, sum_backends, sum_services},
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
    /// Attempts that followed a failed one of the same request.
    pub retries: u64,
    /// Requests by service, class of status and end.
    pub requests: Vec<RequestCount>,
    /// Streams refused before there was a request, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Backends that requests went to.
    pub backends: Vec<BackendStats>,
    /// Services whose backends fail or have no place.
    pub services: Vec<ServiceStats>,
}

/// How many requests to a service ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCount {
    /// The service's label; empty when no service was found, `_gone` for all that have left.
    pub service: String,
    /// `1xx` to `5xx`, or `none` when the client got no answer.
    pub class: String,
    /// How they ended.
    pub reason: Reason,
    /// How many.
    pub count: u64,
}

impl FrontStats {
    /// Requests that ended for `reason`.
    pub fn ended(&self, reason: Reason) -> u64 {
        let requests = self
            .requests
            .iter()
            .filter(|request| request.reason == reason);
        requests.map(|request| request.count).sum()
    }

    /// The figures of all `workers` together, in an order of its own: equal figures are equal values.
    pub(super) fn sum(workers: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        let mut requests: BTreeMap<_, u64> = BTreeMap::new();
        let (mut backends, mut services) = (Vec::new(), Vec::new());
        for worker in workers {
            sum.add(&worker);
            backends.extend(worker.backends);
            services.extend(worker.services);
            for request in worker.requests {
                let kind = (request.service, request.class, request.reason);
                *requests.entry(kind).or_default() += request.count;
            }
        }
        sum.backends = sum_backends(backends);
        sum.services = sum_services(services);
        let requests = requests.into_iter();
        sum.requests = requests
            .map(|((service, class, reason), count)| RequestCount {
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
    pub(super) retries: Count,
    /// Whether the time to drain is over.
    cutting: Cell<bool>,
    requests: RefCell<HashMap<Kind, u64>>,
    rejected: RefCell<BTreeMap<&'static str, u64>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Kind {
    service: Option<Arc<str>>,
    /// First digit of the status; 0 when there was none.
    class: u16,
    reason: Reason,
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

    pub(super) fn request(
        &self,
        service: Option<Arc<str>>,
        status: Option<StatusCode>,
        reason: Reason,
    ) {
        let class = status.map_or(0, |status| status.as_u16() / 100);
        let kind = Kind {
            service,
            class,
            reason,
        };
        *self.requests.borrow_mut().entry(kind).or_default() += 1;
    }

    /// Counts the services that are not `live` as one from now on, so that names that come and go take no
    /// memory for ever.
    pub(super) fn fold(&self, live: impl Fn(&str) -> bool) {
        let mut requests = self.requests.borrow_mut();
        let has_left = |kind: &Kind| {
            let service = kind.service.as_deref();
            service.is_some_and(|label| label != GONE && !live(label))
        };
        let left: Vec<_> = requests.extract_if(|kind, _| has_left(kind)).collect();
        for (kind, count) in left {
            let service = Some(GONE.into());
            *requests.entry(Kind { service, ..kind }).or_default() += count;
        }
    }

    pub(super) fn rejected(&self, reason: &'static str) {
        *self.rejected.borrow_mut().entry(reason).or_default() += 1;
    }

    pub(super) fn read(&self, open: usize) -> FrontStats {
        let class = |class: u16| match class {
            0 => "none".to_owned(),
            digit => format!("{digit}xx"),
        };
        let requests = self.requests.borrow();
        let requests = requests.iter().map(|(kind, &count)| RequestCount {
            service: kind.service.as_deref().unwrap_or_default().to_owned(),
            class: class(kind.class),
            reason: kind.reason,
            count,
        });
        let rejected = self.rejected.borrow();
        FrontStats {
            accepted: self.accepted.0.get(),
            open: open as u64,
            connects: self.connects.0.get(),
            reused: self.reused.0.get(),
            retries: self.retries.0.get(),
            requests: requests.collect(),
            rejected: rejected
                .iter()
                .map(|(&reason, &count)| (reason.to_owned(), count))
                .collect(),
            ..FrontStats::default()
        }
    }
}

/// What services that have left are counted as.
const GONE: &str = "_gone";

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(stats: &FrontStats) -> Vec<(&str, &str, u64)> {
        let requests = stats.requests.iter();
        requests
            .map(|it| (it.service.as_str(), it.class.as_str(), it.count))
            .collect()
    }

    fn counted(labels: &[&str]) -> Counters {
        let counters = Counters::default();
        for &label in labels {
            counters.request(Some(label.into()), Some(StatusCode::OK), Reason::Ok);
        }
        counters
    }

    #[test]
    fn workers_are_summed_by_service_in_one_order() {
        let (one, other) = (counted(&["b", "a"]), counted(&["c", "b"]));
        other.request(None, None, Reason::NoRoute);
        let sum = FrontStats::sum([one.read(1), other.read(2)]);
        let all = [
            ("", "none", 1),
            ("a", "2xx", 1),
            ("b", "2xx", 2),
            ("c", "2xx", 1),
        ];
        assert_eq!(counts(&sum), all);
        assert_eq!(sum.open, 3);
        assert_eq!(FrontStats::sum([other.read(2), one.read(1)]), sum);
    }

    #[test]
    fn services_that_have_left_are_counted_as_one_and_nothing_is_lost() {
        let counters = counted(&["a", "b", "c", "c"]);
        counters.request(None, None, Reason::NoRoute);
        counters.fold(|label| label == "a");
        counters.fold(|label| label == "a");
        let sum = FrontStats::sum([counters.read(0)]);
        let all = [("", "none", 1), ("_gone", "2xx", 3), ("a", "2xx", 1)];
        assert_eq!(counts(&sum), all);
    }
}
