//! Whose turn it is to be read again, among the services without a blocking query. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::checks::Told;

/// What matters of one service.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// When it changed last.
    pub(super) changed: Instant,
    /// Whether an instance has no check of its own: then nothing but reading it tells.
    pub(super) unchecked: bool,
    /// What its last answer says of its checks; `None` before the first.
    pub(super) told: Option<Told>,
}

/// A round over all services, each once.
#[derive(Debug, Default)]
pub(super) struct Turns {
    round: VecDeque<Arc<str>>,
    /// Whether another round is wanted after this one. A round is never begun anew before its end: else
    /// those at its end would never have a turn while others change.
    again: bool,
}

impl Turns {
    /// Something changed somewhere: everybody has to be read.
    pub(super) fn want_all(&mut self, services: &BTreeMap<Arc<str>, Standing>) {
        if !self.round.is_empty() {
            self.again = true;
            return;
        }
        let mut order: Vec<_> = services.iter().collect();
        order.sort_by_key(|(_, it)| (!it.unchecked, std::cmp::Reverse(it.changed)));
        self.round = order
            .into_iter()
            .map(|(service, _)| service.clone())
            .collect();
        self.again = false;
    }

    /// The next one.
    pub(super) fn next(&mut self, services: &BTreeMap<Arc<str>, Standing>) -> Option<Arc<str>> {
        if self.round.is_empty() && std::mem::take(&mut self.again) {
            self.want_all(services);
        }
        // Those that are gone meanwhile take nobody's turn.
        std::iter::from_fn(|| self.round.pop_front()).find(|it| services.contains_key(it))
    }

    /// Whether somebody is waiting for a turn.
    pub(super) fn are_left(&self) -> bool {
        self.again || !self.round.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn services(entries: &[(&str, u64, bool)]) -> BTreeMap<Arc<str>, Standing> {
        let start = Instant::now();
        let standing = |&(name, second, unchecked): &(&str, u64, bool)| {
            let changed = start + Duration::from_secs(second);
            let standing = Standing {
                changed,
                unchecked,
                told: None,
            };
            (Arc::from(name), standing)
        };
        entries.iter().map(standing).collect()
    }

    fn round(turns: &mut Turns, services: &BTreeMap<Arc<str>, Standing>) -> Vec<String> {
        let mut order = Vec::new();
        while let Some(service) = turns.next(services) {
            order.push(service.to_string());
        }
        order
    }

    #[test]
    fn those_without_a_check_come_first_and_then_what_changed_last() {
        let services = services(&[
            ("a", 1, false),
            ("b", 3, false),
            ("c", 1, true),
            ("d", 2, true),
        ]);
        let mut turns = Turns::default();
        assert_eq!(round(&mut turns, &services), [""; 0]);
        turns.want_all(&services);
        assert_eq!(round(&mut turns, &services), ["d", "c", "b", "a"]);
        assert!(!turns.are_left());
    }

    #[test]
    fn those_that_are_gone_have_no_turn_and_take_none() {
        let mut services = services(&[("a", 1, false), ("b", 3, false), ("c", 2, false)]);
        let mut turns = Turns::default();
        turns.want_all(&services);
        services.remove("b");
        services.remove("c");
        assert_eq!(turns.next(&services).as_deref(), Some("a"));
        assert!(!turns.are_left());
    }

    #[test]
    fn changes_during_a_round_make_one_more_and_starve_nobody() {
        let services = services(&[("a", 1, false), ("b", 3, false)]);
        let mut turns = Turns::default();
        turns.want_all(&services);
        assert_eq!(turns.next(&services).as_deref(), Some("b"));
        turns.want_all(&services);
        turns.want_all(&services);
        assert_eq!(round(&mut turns, &services), ["a", "b", "a"]);
    }
}
