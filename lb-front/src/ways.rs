//! In which ways requests to a service went and ended: two small tables. Clients choose methods and versions, and what they
//! may choose is to add up with the ends, not to multiply with them.

use super::{
    answer::Reason,
    spoken::{Methods, Spoken},
};

/// The figures of one service.
#[derive(Default)]
pub(super) struct Ways {
    asked: Few<(u16, Spoken)>,
    ended: Few<(u16, Reason)>,
    methods: Methods,
}

impl Ways {
    /// Counts a request whose status has this first digit, 0 without one.
    pub(super) fn count(&mut self, class: u16, reason: Reason, spoken: Spoken) {
        // What sends everybody elsewhere knows no method better than another.
        if matches!(class, 1..=3) && reason != Reason::Redirect {
            self.methods.learn(spoken);
        }
        self.asked.add((class, self.methods.known(spoken)), 1);
        self.ended.add((class, reason), 1);
    }

    /// Counts all that `other` has.
    pub(super) fn add(&mut self, other: &Self) {
        for (way, count) in other.asked.iter() {
            self.asked.add(way, count);
        }
        for (way, count) in other.ended.iter() {
            self.ended.add(way, count);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ended.0.is_empty()
    }

    /// By class, method and version.
    pub(super) fn asked(&self) -> impl Iterator<Item = ((u16, Spoken), u64)> {
        self.asked.iter()
    }

    /// The same requests by class and end.
    pub(super) fn ended(&self) -> impl Iterator<Item = ((u16, Reason), u64)> {
        self.ended.iter()
    }
}

/// Counts of few kinds at a time, the usual ones first.
struct Few<K>(Vec<(K, u64)>);

impl<K> Default for Few<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + PartialEq> Few<K> {
    fn add(&mut self, kind: K, many: u64) {
        let Some(at) = self.0.iter().position(|(other, _)| *other == kind) else {
            return self.0.push((kind, many));
        };
        self.0[at].1 += many;
        // A client may try everything there is: what others ask after that must not stand behind it for ever.
        if at >= NEAR {
            self.0.swap(at, at / 2);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (K, u64)> {
        self.0.iter().copied()
    }
}

/// Kinds that are as good as the first.
const NEAR: usize = 8;

#[cfg(test)]
mod tests {
    use hyper::{Method, Version};

    use super::*;

    fn sum(ways: &Ways, method: &str) -> u64 {
        let of = ways.asked().filter(|((_, it), _)| it.method() == method);
        of.map(|(_, count)| count).sum()
    }

    #[test]
    fn each_way_is_counted_and_what_is_usual_comes_to_stand_first() {
        let mut ways = Ways::default();
        let mut count = |method: &Method, class, many| {
            let spoken = Spoken::of(method, Version::HTTP_2);
            (0..many).for_each(|_| ways.count(class, Reason::Ok, spoken));
        };
        // Whatever somebody tries…
        for method in [Method::GET, Method::PUT, Method::TRACE, Method::DELETE] {
            [2, 0, 1, 3, 4, 5]
                .into_iter()
                .for_each(|class| count(&method, class, 1));
        }
        // … the others have the first places soon.
        count(&Method::POST, 2, 10);
        count(&Method::from_bytes(b"BREW").unwrap(), 4, 2);
        let of = |method: &str| ways.asked.0.iter().position(|it| it.0.1.method() == method);
        assert!(of("POST").unwrap() < NEAR, "{:?}", of("POST"));
        let sums = ["GET", "POST", "PUT", "other"].map(|it| sum(&ways, it));
        assert_eq!(sums, [6, 10, 6, 2]);
        assert!(ways.asked().all(|((_, it), _)| it.version() == "2"));
    }

    /// What a scanner does: it must not make series of its own, in the front or anywhere behind it.
    #[test]
    fn whoever_tries_each_method_over_each_version_adds_and_does_not_multiply() {
        let reasons = [
            (4, Reason::Ok),
            (4, Reason::BadRequest),
            (4, Reason::RateLimited),
            (4, Reason::Unauthorized),
            (5, Reason::Ok),
            (5, Reason::NoBackend),
            (5, Reason::QueueTimeout),
            (3, Reason::Redirect),
            (0, Reason::ClientAbort),
        ];
        let (mut ways, mut all) = (Ways::default(), 0);
        for method in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "BREW",
        ] {
            let method: Method = method.parse().unwrap();
            for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
                let spoken = Spoken::of(&method, version);
                for (class, reason) in reasons {
                    ways.count(class, reason, spoken);
                    all += 1;
                }
            }
        }
        // Four classes, three versions, three methods that all know and one for the others.
        assert_eq!(ways.asked().count(), 4 * 3 * 4);
        assert_eq!(ways.ended().count(), reasons.len());
        let sums = [
            ways.asked().map(|it| it.1).sum::<u64>(),
            ways.ended().map(|it| it.1).sum(),
        ];
        assert_eq!(sums, [all; 2]);
    }

    #[test]
    fn a_method_has_its_word_once_the_service_has_answered_it() {
        let mut ways = Ways::default();
        let put = Spoken::of(&Method::PUT, Version::HTTP_11);
        ways.count(4, Reason::Ok, put);
        assert_eq!([sum(&ways, "PUT"), sum(&ways, "other")], [0, 1]);
        ways.count(2, Reason::Ok, put);
        ways.count(5, Reason::Ok, put);
        assert_eq!([sum(&ways, "PUT"), sum(&ways, "other")], [2, 1]);
    }
}
