//! Figures by service. A worker finds those of a service by a small number that the table has for it: no string is
//! hashed for a request, and nothing is shared with other workers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    answer::Reason,
    spoken::Spoken,
    stats::{RequestCount, TerminationCount},
    traffic::{BOUNDS, Traffic, add_buckets},
    ways::Ways,
};

/// The numbers of all services, each given again once its service has left.
#[derive(Debug, Default)]
pub(super) struct Numbers(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    by_label: HashMap<Arc<str>, Weak<Number>>,
    free: Vec<usize>,
    next: usize,
    /// How many were given so far.
    given: u64,
}

/// A service's number, which is its own as long as this lives.
#[derive(Debug)]
pub(super) struct Number {
    all: Arc<Numbers>,
    label: Arc<str>,
    key: Key,
}

/// The place of a service's figures, and which of the services that have had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    place: usize,
    holder: u64,
}

impl Numbers {
    /// The number of the service called `label`.
    pub(super) fn of(self: &Arc<Self>, label: &Arc<str>) -> Arc<Number> {
        let given = &mut *self.lock();
        let living = given.by_label.get(label).and_then(Weak::upgrade);
        living.unwrap_or_else(|| {
            given.given += 1;
            let place = given.free.pop().unwrap_or_else(|| {
                given.next += 1;
                given.next - 1
            });
            let holder = given.given;
            let number = Arc::new(Number {
                all: self.clone(),
                label: label.clone(),
                key: Key { place, holder },
            });
            let weak = Arc::downgrade(&number);
            given.by_label.insert(label.clone(), weak);
            number
        })
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let mut given = self.all.lock();
        given.free.push(self.key.place);
        // Another number of the same service may have come in between.
        let dead = given
            .by_label
            .get(&self.label)
            .is_some_and(|number| number.strong_count() == 0);
        if dead {
            given.by_label.remove(&self.label);
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy)]
pub(super) struct Ended {
    /// First digit of the status; 0 when there was none.
    pub(super) class: u16,
    pub(super) reason: Reason,
    pub(super) spoken: Spoken,
    /// Bytes of the request's body.
    pub(super) received: u64,
    /// Bytes of the answer's.
    pub(super) sent: u64,
    /// From head to end; `None` for a tunnel, whose time says nothing.
    pub(super) took: Option<Duration>,
}

/// One worker's figures.
#[derive(Default)]
pub(super) struct Services {
    by_place: Vec<Option<(u64, Box<Counts>)>>,
    /// Of requests for no service.
    unmatched: Counts,
    /// Of services that have left.
    gone: Counts,
}

#[derive(Default)]
struct Counts {
    label: Arc<str>,
    ways: Ways,
    traffic: Traffic,
}

impl Services {
    /// Makes room for the figures of `service`.
    pub(super) fn enter(&mut self, service: &Number) -> Key {
        let Key { place, holder } = service.key;
        if self.by_place.len() <= place {
            self.by_place.resize_with(place + 1, || None);
        }
        let entry = &mut self.by_place[place];
        if !matches!(entry, Some((of, _)) if *of == holder) {
            if let Some((_, left)) = entry.take() {
                self.gone.add(&left);
            }
            let label = service.label.clone();
            let counts = Counts {
                label,
                ..Counts::default()
            };
            *entry = Some((holder, Box::new(counts)));
        }
        service.key
    }

    /// Counts a request to the service behind `key`, or to none.
    pub(super) fn count(&mut self, key: Option<Key>, ended: Ended) {
        let counts = match key {
            None => &mut self.unmatched,
            Some(Key { place, holder }) => match self.by_place.get_mut(place) {
                Some(Some((of, counts))) if *of == holder => counts,
                _ => &mut self.gone,
            },
        };
        counts.count(ended);
    }

    /// Counts the services that are not `live` as one from now on, so that names that come and go take no memory for
    /// ever.
    pub(super) fn fold(&mut self, live: impl Fn(&str) -> bool) {
        for entry in &mut self.by_place {
            if matches!(entry, Some((_, counts)) if !live(&counts.label))
                && let Some((_, left)) = entry.take()
            {
                self.gone.add(&left);
            }
        }
    }

    /// All of them, each with its label.
    fn all(&self) -> impl Iterator<Item = (&str, &Counts)> {
        let present = self.by_place.iter().flatten();
        let present = present.map(|(_, counts)| (&*counts.label, &**counts));
        let all = present.chain([("", &self.unmatched), (GONE, &self.gone)]);
        all.filter(|(_, counts)| !counts.ways.is_empty())
    }

    pub(super) fn requests(&self) -> Vec<RequestCount> {
        let requests = |(label, counts): (&str, &Counts)| {
            let asked = counts.ways.asked();
            let asked = asked.map(|((digit, spoken), count)| RequestCount {
                service: label.to_owned(),
                class: class(digit),
                method: spoken.method().to_owned(),
                version: spoken.version().to_owned(),
                count,
            });
            asked.collect::<Vec<_>>()
        };
        self.all().flat_map(requests).collect()
    }

    pub(super) fn terminations(&self) -> Vec<TerminationCount> {
        let terminations = |(label, counts): (&str, &Counts)| {
            let ended = counts.ways.ended();
            let ended = ended.map(|((digit, reason), count)| TerminationCount {
                service: label.to_owned(),
                class: class(digit),
                reason,
                count,
            });
            ended.collect::<Vec<_>>()
        };
        self.all().flat_map(terminations).collect()
    }

    pub(super) fn traffic(&self) -> Vec<ServiceTraffic> {
        let traffic = |(label, counts): (&str, &Counts)| ServiceTraffic {
            service: label.to_owned(),
            buckets: counts.traffic.buckets.into(),
            micros: counts.traffic.micros,
            received: counts.traffic.received,
            sent: counts.traffic.sent,
        };
        self.all().map(traffic).collect()
    }
}

impl Counts {
    fn count(&mut self, ended: Ended) {
        self.ways.count(ended.class, ended.reason, ended.spoken);
        self.traffic.count(ended.received, ended.sent, ended.took);
    }

    fn add(&mut self, other: &Self) {
        self.ways.add(&other.ways);
        self.traffic.add(&other.traffic);
    }
}

/// The word of a first digit.
fn class(digit: u16) -> String {
    match digit {
        0 => "none".to_owned(),
        digit => format!("{digit}xx"),
    }
}

/// What went to and from a service, and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTraffic {
    /// The service's label; empty when no service was found, `_gone` for all that have left.
    pub service: String,
    /// How many requests took up to each of [`ServiceTraffic::BOUNDS`] and longer than the one before; the last are
    /// all others.
    pub buckets: Vec<u64>,
    /// Microseconds that all of them took.
    pub micros: u64,
    /// Bytes of requests' bodies.
    pub received: u64,
    /// Bytes of answers' bodies.
    pub sent: u64,
}

impl ServiceTraffic {
    /// Bounds of the buckets in microseconds.
    pub const BOUNDS: [u64; BOUNDS.len()] = BOUNDS;

    /// The sum of both.
    pub(super) fn add(&mut self, other: &Self) {
        add_buckets(&mut self.buckets, &other.buckets);
        self.micros = self.micros.saturating_add(other.micros);
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// What services that have left are counted as.
const GONE: &str = "_gone";

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(micros: u64) -> Ended {
        Ended {
            class: 2,
            reason: Reason::Ok,
            spoken: Spoken::of(&hyper::Method::GET, hyper::Version::HTTP_11),
            received: 3,
            sent: 5,
            took: Some(Duration::from_micros(micros)),
        }
    }

    fn counts(services: &Services) -> Vec<(String, u64)> {
        let requests = services.requests().into_iter();
        let mut all: Vec<_> = requests.map(|it| (it.service, it.count)).collect();
        all.sort();
        all
    }

    #[test]
    fn a_service_keeps_its_number_and_the_next_one_gets_it_after_its_end() {
        let numbers = Arc::new(Numbers::default());
        let (a, b) = (numbers.of(&"a".into()), numbers.of(&"b".into()));
        assert_eq!(numbers.of(&"a".into()).key, a.key);
        assert_ne!(a.key.place, b.key.place);
        let old = a.key;
        drop(a);
        let c = numbers.of(&"c".into());
        assert_eq!(c.key.place, old.place);
        assert_ne!(c.key, old);
        assert_ne!(numbers.of(&"a".into()).key, old);
    }

    #[test]
    fn late_requests_of_a_service_that_left_are_not_counted_for_its_follower() {
        let numbers = Arc::new(Numbers::default());
        let mut services = Services::default();
        let a = numbers.of(&"a".into());
        let late = services.enter(&a);
        services.count(Some(late), ended(1));
        drop(a);
        let b = numbers.of(&"b".into());
        let key = services.enter(&b);
        services.count(Some(key), ended(1));
        services.count(Some(late), ended(1));
        assert_eq!(
            counts(&services),
            [("_gone".to_owned(), 2), ("b".to_owned(), 1)]
        );
    }

    #[test]
    fn a_time_lies_in_the_first_bucket_that_reaches_it() {
        let mut services = Services::default();
        for micros in [0, 1_000, 1_001, 10_000_000, 10_000_001] {
            services.count(None, ended(micros));
        }
        let tunnel = Ended {
            took: None,
            ..ended(0)
        };
        services.count(None, tunnel);
        let [traffic] = &services.traffic()[..] else {
            panic!("one service");
        };
        let mut buckets = [0; BOUNDS.len() + 1];
        (buckets[0], buckets[1], buckets[12], buckets[13]) = (2, 1, 1, 1);
        assert_eq!(traffic.buckets, buckets);
        assert_eq!(
            (traffic.micros, traffic.received, traffic.sent),
            (20_002_002, 18, 30)
        );
    }
}
