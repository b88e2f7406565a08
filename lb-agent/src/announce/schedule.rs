//! When which VIP is announced: three times with growing distance, because a frame may be lost and a neighbour may look
//! away, and never more than a few frames at once. Pure: time is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use tokio::time::Instant;

/// Between the announcements of one VIP.
const DISTANCES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// So many VIPs at once, so that no queue of a card or a switch runs over.
const BURST: usize = 64;
/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(5);

/// What is still to be announced.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// By time and VIP: how often it was announced before.
    due: BTreeMap<(Instant, Ipv4Addr), usize>,
    /// After a burst.
    rest: Option<Instant>,
}

impl Schedule {
    /// Announces these from the beginning.
    pub(super) fn add(&mut self, vips: impl IntoIterator<Item = Ipv4Addr>, now: Instant) {
        let vips: BTreeSet<_> = vips.into_iter().collect();
        self.due.retain(|(_, vip), _| !vips.contains(vip));
        self.due.extend(vips.into_iter().map(|vip| ((now, vip), 0)));
    }

    /// Announces none but these any more.
    pub(super) fn retain(&mut self, keep: impl Fn(Ipv4Addr) -> bool) {
        self.due.retain(|(_, vip), _| keep(*vip));
    }

    /// When something is to be announced next.
    pub(super) fn next(&self) -> Option<Instant> {
        let (first, _) = self.due.first_key_value()?.0;
        Some(self.rest.map_or(*first, |rest| rest.max(*first)))
    }

    /// What is to be announced now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Ipv4Addr> {
        if self.next().is_none_or(|next| next > now) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        while taken.len() < BURST
            && let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            let ((_, vip), before) = entry.remove_entry();
            taken.push(vip);
            if let Some(distance) = DISTANCES.get(before) {
                self.due.insert((now + *distance, vip), before + 1);
            }
        }
        self.rest = (taken.len() == BURST).then(|| now + PAUSE);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0xc612_0000 + number)
    }

    /// At which millisecond which VIP is announced.
    fn play(schedule: &mut Schedule, start: Instant) -> Vec<(u128, Ipv4Addr)> {
        let mut told = Vec::new();
        while let Some(next) = schedule.next() {
            let taken = schedule.take(next);
            assert!(!taken.is_empty() && taken.len() <= BURST);
            let at = next.duration_since(start).as_millis();
            told.extend(taken.into_iter().map(|vip| (at, vip)));
        }
        told
    }

    #[test]
    fn each_vip_is_announced_three_times_with_growing_distance() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.add([vip(1)], start);
        let told = play(&mut schedule, start);
        assert_eq!(told, [(0, vip(1)), (1000, vip(1)), (3000, vip(1))]);
    }

    #[test]
    fn many_are_announced_in_bursts_and_each_as_often_as_one() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.add((0..1000).map(vip), start);
        let told = play(&mut schedule, start);
        assert_eq!(told.len(), 3000);
        let of_one = told.iter().filter(|it| it.1 == vip(999)).count();
        assert_eq!(of_one, 3);
        // Sixteen bursts.
        assert_eq!(told[999].0, 75);
    }

    #[test]
    fn what_is_gone_is_announced_no_more_and_what_comes_back_begins_anew() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.add([vip(1), vip(2)], start);
        assert_eq!(schedule.take(start), [vip(1), vip(2)]);
        schedule.retain(|it| it == vip(2));
        let later = start + Duration::from_millis(1);
        schedule.add([vip(2)], later);
        assert_eq!(play(&mut schedule, later).len(), 3);
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        assert_eq!(schedule.next(), None);
        schedule.add([vip(1)], start + Duration::from_secs(1));
        assert!(schedule.take(start).is_empty());
    }
}
