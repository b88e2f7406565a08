//! What of the figures an agent does not have yet: of ten thousand services few are asked within a second. Pure.

use std::cmp::Ordering;

use super::{
    backend::stats::BackendStats,
    services::ServiceTraffic,
    stats::{FrontStats, RequestCount, TerminationCount},
};

impl FrontStats {
    /// These figures without the entries that are as in `told`; `None` if something of it has left, which the entries that
    /// there are cannot say. Both are sums, whose entries are in order.
    pub(super) fn news(&self, told: &Self) -> Option<Self> {
        Some(Self {
            pid: self.pid,
            workers: self.workers,
            accepted: self.accepted,
            open: self.open,
            connects: self.connects,
            reused: self.reused,
            failures: self.failures,
            retries: self.retries,
            requests: news(&told.requests, &self.requests, asked)?,
            terminations: news(&told.terminations, &self.terminations, ended)?,
            traffic: news(&told.traffic, &self.traffic, moved)?,
            log_lost: self.log_lost,
            rejected: self.rejected.clone(),
            backends: news(&told.backends, &self.backends, served)?,
            services: self.services.clone(),
        })
    }

    /// Makes these the figures that `news` is of.
    pub fn learn(&mut self, news: Self) {
        let mut whole = news;
        learn(&mut self.requests, &mut whole.requests, asked);
        learn(&mut self.terminations, &mut whole.terminations, ended);
        learn(&mut self.traffic, &mut whole.traffic, moved);
        learn(&mut self.backends, &mut whole.backends, served);
        *self = whole;
    }
}

/// In which order two entries are.
type Order<T> = fn(&T, &T) -> Ordering;

fn news<T: Clone + PartialEq>(told: &[T], now: &[T], order: Order<T>) -> Option<Vec<T>> {
    let mut told = told.iter().peekable();
    let mut news = Vec::new();
    for entry in now {
        match told.peek().map(|it| order(it, entry)) {
            Some(Ordering::Less) => return None,
            Some(Ordering::Equal) if told.next() == Some(entry) => {}
            _ => news.push(entry.clone()),
        }
    }
    told.next().is_none().then_some(news)
}

/// Puts `news` in the place of those of `known` that they are of, and all into `news`.
fn learn<T>(known: &mut Vec<T>, news: &mut Vec<T>, order: Order<T>) {
    let mut all = std::mem::take(known);
    let known = all.len();
    for entry in news.drain(..) {
        match all[..known].binary_search_by(|it| order(it, &entry)) {
            Ok(at) => all[at] = entry,
            Err(_) => all.push(entry),
        }
    }
    all.sort_by(order);
    *news = all;
}

fn asked(one: &RequestCount, other: &RequestCount) -> Ordering {
    fn key(it: &RequestCount) -> [&str; 4] {
        [&it.service, &it.class, &it.method, &it.version]
    }
    key(one).cmp(&key(other))
}

fn ended(one: &TerminationCount, other: &TerminationCount) -> Ordering {
    let service = one.service.cmp(&other.service);
    let class = || one.class.cmp(&other.class);
    service.then_with(class).then(one.reason.cmp(&other.reason))
}

fn moved(one: &ServiceTraffic, other: &ServiceTraffic) -> Ordering {
    one.service.cmp(&other.service)
}

fn served(one: &BackendStats, other: &BackendStats) -> Ordering {
    one.address.cmp(&other.address)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use hyper::{Method, Version};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        answer::Reason,
        control::{Report, encode},
        services::{Ended, Numbers, Services},
        spoken::Spoken,
    };

    const METHODS: [&str; 4] = ["GET", "PUT", "DELETE", "BREW"];
    const REASONS: [Reason; 3] = [Reason::Ok, Reason::NoBackend, Reason::Denied];

    fn ended(class: u16, reason: Reason, method: &str, version: Version) -> Ended {
        Ended {
            class,
            reason,
            spoken: Spoken::of(&method.parse::<Method>().unwrap(), version),
            received: 1,
            sent: 2,
            took: Some(Duration::from_millis(3)),
        }
    }

    fn read(services: &Services) -> FrontStats {
        FrontStats::sum([FrontStats {
            requests: services.requests(),
            terminations: services.terminations(),
            traffic: services.traffic(),
            ..FrontStats::default()
        }])
    }

    proptest! {
        #[test]
        fn an_agent_that_has_the_last_ones_and_the_news_has_all(
            steps in prop::collection::vec((0..4_usize, 0..6_u16, 0..3_usize, 0..4_usize, any::<bool>()), 1..60),
            leaves in 0..200_usize,
        ) {
            let numbers = Arc::new(Numbers::default());
            let labels = ["a", "b", "c"].map(|label| numbers.of(&label.into()));
            let mut services = Services::default();
            let (mut told, mut agent) = (FrontStats::default(), FrontStats::default());
            for (step, (service, class, reason, method, tell)) in steps.into_iter().enumerate() {
                let key = labels.get(service).map(|it| services.enter(it));
                let ended = ended(class, REASONS[reason], METHODS[method], Version::HTTP_11);
                services.count(key, ended);
                if step == leaves {
                    services.fold(|label| label != "b");
                }
                if tell {
                    let now = read(&services);
                    match now.news(&told) {
                        Some(news) => agent.learn(news),
                        None => agent = now.clone(),
                    }
                    told = now;
                    prop_assert_eq!(&agent, &told);
                }
            }
        }
    }

    #[test]
    fn only_what_was_asked_since_is_told() {
        let numbers = Arc::new(Numbers::default());
        let mut services = Services::default();
        let numbers = ["a", "b", "c"].map(|label| numbers.of(&label.into()));
        let keys = numbers.each_ref().map(|it| services.enter(it));
        let usual = ended(2, Reason::Ok, "GET", Version::HTTP_11);
        keys.iter()
            .for_each(|&key| services.count(Some(key), usual));
        let told = read(&services);
        services.count(Some(keys[1]), usual);
        let news = read(&services).news(&told).unwrap();
        let counts = news.requests.iter().map(|it| (&*it.service, it.count));
        assert_eq!(counts.collect::<Vec<_>>(), [("b", 2)]);
        assert_eq!((news.terminations.len(), news.traffic.len()), (1, 1));
        // One that has left is none of the entries that there are.
        services.fold(|label| label != "b");
        assert_eq!(read(&services).news(&told), None);
    }

    /// The product of what clients may choose and what may become of it would be too long for the agent to take.
    #[test]
    fn ten_thousand_services_that_somebody_tries_everything_on_are_one_message() {
        let number = Arc::new(Numbers::default()).of(&"a-service-of-usual-length".into());
        let mut services = Services::default();
        let key = services.enter(&number);
        let ways = [
            (2, Reason::Ok),
            (3, Reason::Redirect),
            (4, Reason::Ok),
            (4, Reason::BadRequest),
            (4, Reason::Denied),
            (4, Reason::RateLimited),
            (5, Reason::Ok),
            (5, Reason::NoBackend),
            (5, Reason::ResponseTimeout),
            (0, Reason::ClientAbort),
        ];
        for method in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "BREW",
        ] {
            for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
                for (class, reason) in ways {
                    // Some are answered by whatever it is.
                    if class != 2 || ["GET", "HEAD", "POST", "OPTIONS"].contains(&method) {
                        services.count(Some(key), ended(class, reason, method, version));
                    }
                }
            }
        }
        let bytes = encode(&Report::Figures(read(&services))).unwrap().len();
        let all = 10_000 * bytes as u64;
        assert!(all < 128 * 1024 * 1024, "{bytes} bytes for each");
    }
}
