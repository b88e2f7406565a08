//! Of which services it is told that their flows stay where the table leads no more: once for many changes in a row.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_packet::Census;

use crate::snapshot::ServiceName;

/// Between two lines on one service: the weight of an instance that starts slowly changes each second.
const QUIET: Duration = Duration::from_secs(10);

/// What was told last, by service; only of those that have flows.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<ServiceName, Last>);

#[derive(Clone, Copy, Debug, Default)]
struct Last {
    at: Option<Instant>,
    /// So many flows were elsewhere then, or fewer since.
    elsewhere: u64,
    /// Whether a change since then is not told of.
    waits: bool,
}

impl Told {
    /// The flows that were there before anything changed are no news.
    pub(super) fn begin(&mut self, found: &BTreeMap<ServiceName, Census>) {
        let each = found.iter();
        self.0 = each
            .map(|(name, census)| {
                let last = Last {
                    elsewhere: census.elsewhere,
                    ..Last::default()
                };
                (name.clone(), last)
            })
            .collect();
    }

    /// The services to tell of now; `changed` says whether tables have.
    pub(super) fn news(
        &mut self,
        found: &BTreeMap<ServiceName, Census>,
        changed: bool,
        now: Instant,
    ) -> Vec<ServiceName> {
        self.0.retain(|name, _| found.contains_key(name));
        let mut news = Vec::new();
        for (name, census) in found {
            let last = self.0.entry(name.clone()).or_default();
            last.waits |= changed;
            if !last.waits || census.elsewhere <= last.elsewhere {
                last.waits = false;
                last.elsewhere = census.elsewhere;
                continue;
            }
            if last.at.is_none_or(|at| now.duration_since(at) >= QUIET) {
                *last = Last {
                    at: Some(now),
                    elsewhere: census.elsewhere,
                    waits: false,
                };
                news.push(name.clone());
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(elsewhere: u64) -> BTreeMap<ServiceName, Census> {
        let census = Census {
            flows: 9,
            elsewhere,
            ..Census::default()
        };
        BTreeMap::from([(ServiceName::whole("www"), census)])
    }

    #[test]
    fn many_changes_in_a_row_are_told_of_once_and_what_came_of_them_later() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut news = |elsewhere, changed, seconds| {
            let now = start + Duration::from_secs(seconds);
            told.news(&found(elsewhere), changed, now).len()
        };
        assert_eq!(news(0, true, 0), 0);
        assert_eq!(news(1, true, 1), 1);
        for second in 2..=10 {
            assert_eq!(news(second, true, second), 0, "{second}");
        }
        // The last step was not told of yet.
        assert_eq!(news(10, false, 11), 1);
        assert_eq!(news(10, false, 22), 0);
        // Fewer, and what no change has brought.
        assert_eq!(news(5, true, 33), 0);
        assert_eq!(news(6, false, 34), 0);
        assert_eq!(news(7, true, 35), 1);
    }

    #[test]
    fn what_was_there_before_is_no_news_and_another_service_waits_for_none() {
        let (mut told, start) = (Told::default(), Instant::now());
        told.begin(&found(3));
        assert_eq!(told.news(&found(3), true, start), []);
        let www = ServiceName::whole("www");
        assert_eq!(told.news(&found(4), true, start), [www]);
        let mut both = found(9);
        let api = ServiceName::whole("api");
        both.extend([(api.clone(), both[&ServiceName::whole("www")])]);
        assert_eq!(told.news(&both, true, start), [api]);
    }
}
