//! What happened of late: a bounded list of numbered events, in which changes by people have a place of their own, and their stream. It is fed by what makes the snapshot and by
//! the audit; it decides nothing, and ends with the agent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::{guard::Access, published, refusals::asked, router::Desk};

/// What happened, before it has a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Happened {
    /// What it is about.
    pub kind: Kind,
    /// Which one: `instance n/a of service www_hello`.
    pub subject: String,
    /// How it was before; `null` if it was not there, or that is not known.
    pub from: Option<String>,
    /// How it is now; `null` if it is gone.
    pub to: Option<String>,
    /// Why, where that is known; of a change it says from where it was asked for, and is `null` where the page is published.
    pub cause: Option<String>,
    /// Who did it: `uid 0`, `token`, `session 3`; `null` if nobody asked for it, or the page is published there.
    pub actor: Option<String>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A service came or went.
    Service,
    /// An instance came, went, moved or is in another state.
    Backend,
    /// Something is wrong, or no more.
    Problem,
    /// A source of services cannot be read, or can again.
    Source,
    /// All that there is to know at the start is known.
    Agent,
    /// This host answers for the VIPs on its network from now on, or no more.
    Announce,
    /// Somebody changed something, or tried to.
    Change,
}

impl Kind {
    /// The word in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Backend => "backend",
            Self::Problem => "problem",
            Self::Source => "source",
            Self::Agent => "agent",
            Self::Announce => "announce",
            Self::Change => "change",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// Rises by one with each; begins at 1 with each start of the agent.
    pub number: u64,
    /// When, in seconds since 1970.
    pub unix: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// The list, shared by who adds and who reads.
#[derive(Clone, Debug)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rings: Mutex<Rings>,
    stream: broadcast::Sender<Arc<Event>>,
}

/// The newest of both kinds, each by their numbers: what people did is not pushed out by what happens by itself.
#[derive(Debug, Default)]
struct Rings {
    last: u64,
    /// The number of the newest that is kept no more; 0 if all are kept.
    dropped: u64,
    changes: VecDeque<Arc<Event>>,
    others: VecDeque<Arc<Event>>,
}

impl Rings {
    fn push(&mut self, event: Arc<Event>) {
        let ring = match event.what.kind {
            Kind::Change => &mut self.changes,
            _ => &mut self.others,
        };
        if ring.len() >= KEPT
            && let Some(oldest) = ring.pop_front()
        {
            self.dropped = self.dropped.max(oldest.number);
        }
        ring.push_back(event);
    }

    /// Those after this number, the oldest first.
    fn after(&self, number: u64) -> Vec<Arc<Event>> {
        let of = |ring: &VecDeque<Arc<Event>>| {
            let known = ring.partition_point(|it| it.number <= number);
            ring.iter().skip(known).cloned().collect::<Vec<_>>()
        };
        let mut events = [of(&self.changes), of(&self.others)].concat();
        events.sort_by_key(|it| it.number);
        events
    }
}

impl Default for Events {
    fn default() -> Self {
        Self(Arc::new(Inner {
            rings: Mutex::default(),
            stream: broadcast::channel(UNREAD).0,
        }))
    }
}

impl Events {
    /// Adds what just happened.
    pub fn add(&self, mut what: Happened) {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix = unix.map_or(0, |since| since.as_secs());
        cut(&mut what.subject);
        for text in [
            &mut what.from,
            &mut what.to,
            &mut what.cause,
            &mut what.actor,
        ] {
            text.iter_mut().for_each(cut);
        }
        let mut rings = self.lock();
        rings.last += 1;
        let event = Arc::new(Event {
            number: rings.last,
            unix,
            what,
        });
        rings.push(Arc::clone(&event));
        // Under the lock, so that the stream has the order of the numbers. Nobody may listen.
        let _ = self.0.stream.send(event);
    }

    /// Every event from now on. Who reads too slowly is told how many it has lost.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.stream.subscribe()
    }

    /// At most `limit` events, the oldest first: the first ones after number `after`, or the newest.
    pub fn read(&self, after: Option<u64>, limit: usize) -> EventList {
        let rings = self.lock();
        let mut events = rings.after(after.unwrap_or(0));
        match after {
            Some(_) => events.truncate(limit),
            None => drop(events.drain(..events.len().saturating_sub(limit))),
        }
        EventList {
            events,
            last: rings.last,
            missed: after.is_some_and(|after| after < rings.dropped),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.0.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to `GET /api/v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventList {
    /// The oldest first.
    pub events: Vec<Arc<Event>>,
    /// The number of the last event that there was; 0 if there was none.
    pub last: u64,
    /// Whether some after the number asked for are kept no more.
    pub missed: bool,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /api/v1/events`.
pub(super) async fn list(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    wish: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Response> {
    let Asked { after, limit } = asked(wish)?;
    let limit = limit.unwrap_or(USUAL).min(MOST);
    Ok(Json(desk.events_for(&access, after, limit)).into_response())
}

impl Desk {
    /// As [`Events::read`], for who may know less where the page is published.
    pub(super) fn events_for(
        &self,
        access: &Access,
        after: Option<u64>,
        limit: usize,
    ) -> EventList {
        let list = self.events.read(after, limit);
        match access.published {
            true => published::events(list),
            false => list,
        }
    }
}

/// What others wrote has an end.
fn cut(text: &mut String) {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
}

/// The path of the events.
pub const EVENTS_PATH: &str = "/api/v1/events";
/// Changes that are kept, and as many of what happens beside them.
const KEPT: usize = 1000;
/// Those of one answer at most: all.
pub const MOST: usize = 2 * KEPT;
/// Those of one answer, if nobody says how many.
pub(super) const USUAL: usize = 100;
/// Events that a subscriber may have before it.
const UNREAD: usize = 256;
/// Bytes of one text.
const LONGEST: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;

    fn happened(subject: impl Into<String>) -> Happened {
        Happened {
            kind: Kind::Service,
            subject: subject.into(),
            from: None,
            to: Some("there".to_owned()),
            cause: None,
            actor: None,
        }
    }

    fn numbers(list: &EventList) -> Vec<u64> {
        list.events.iter().map(|it| it.number).collect()
    }

    #[test]
    fn they_are_read_from_where_one_has_come_to() {
        let events = Events::default();
        assert_eq!(events.read(Some(0), 10).last, 0);
        for at in 0..5 {
            events.add(happened(at.to_string()));
        }
        assert_eq!(numbers(&events.read(Some(2), 2)), [3, 4]);
        assert_eq!(numbers(&events.read(None, 2)), [4, 5]);
        assert_eq!(numbers(&events.read(Some(5), 2)), [0; 0]);
        let all = events.read(Some(0), 10);
        assert!(!all.missed && all.last == 5);
        assert_eq!(all.events[4].what.subject, "4");
    }

    #[test]
    fn a_thousand_are_kept_and_who_comes_late_is_told() {
        let events = Events::default();
        for at in 0..KEPT + 10 {
            events.add(happened(at.to_string()));
        }
        let all = events.read(Some(0), KEPT);
        assert_eq!(all.events.len(), KEPT);
        assert_eq!(all.events[0].number, 11);
        assert!(all.missed);
        assert!(!events.read(Some(10), 1).missed);
        assert!(events.read(Some(9), 1).missed);
    }

    #[test]
    fn what_people_did_outlives_a_service_that_flaps() {
        let events = Events::default();
        let change = |subject: &str| Happened {
            kind: Kind::Change,
            ..happened(subject)
        };
        events.add(change("first"));
        for at in 0..KEPT + 10 {
            events.add(happened(at.to_string()));
        }
        events.add(change("last"));
        events.add(happened("after that"));
        let all = events.read(Some(0), MOST);
        assert_eq!(all.events.len(), KEPT + 2);
        assert!(all.missed && numbers(&all).is_sorted());
        let [first, .., last, _] = &all.events[..] else {
            panic!("too few")
        };
        assert_eq!((&*first.what.subject, first.number), ("first", 1));
        assert_eq!(last.what.subject, "last");
        // Whoever has read past what was dropped misses nothing.
        assert!(!events.read(Some(12), 1).missed);
        assert!(events.read(Some(11), 1).missed);
        for _ in 0..=KEPT {
            events.add(change("more"));
        }
        let all = events.read(Some(0), MOST);
        assert_eq!(all.events.len(), MOST);
    }

    #[test]
    fn a_subscriber_gets_each_one_and_a_slow_one_is_told_what_it_lost() {
        let events = Events::default();
        let mut stream = events.subscribe();
        events.add(happened("a"));
        assert_eq!(stream.try_recv().unwrap().what.subject, "a");
        assert_eq!(stream.try_recv(), Err(TryRecvError::Empty));
        for at in 0..=UNREAD {
            events.add(happened(at.to_string()));
        }
        assert_eq!(stream.try_recv(), Err(TryRecvError::Lagged(1)));
    }

    #[test]
    fn no_text_is_longer_than_it_may_be() {
        let events = Events::default();
        events.add(happened("ü".repeat(5000)));
        let list = events.read(None, 1);
        let subject = &list.events[0].what.subject;
        assert!(
            subject.len() <= LONGEST + '…'.len_utf8(),
            "{}",
            subject.len()
        );
    }
}
