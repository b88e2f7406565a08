//! What is known of every container, and which of them have to be looked at: without input, output or clock.
//!
//! A look that began before an event of its container says nothing about what came after: it is thrown away and
//! made again. So events and looks may come in any order, and twice.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Container, Containers, NetworkMode, State,
    event::{Action, Event},
    inspect::Inspected,
};

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Table {
    known: BTreeMap<String, Entry>,
    /// Containers that were removed, and when that was heard.
    gone: BTreeMap<String, Instant>,
    /// Those that have to be looked at, each once, in the order of their turn.
    waiting: VecDeque<String>,
    /// Those that are being looked at; `true` if something has happened since.
    looking: BTreeMap<String, bool>,
    /// Those that a look failed for, and why.
    failed: BTreeMap<String, String>,
    /// What was sent to containers that no look has found yet, in its order.
    signals: BTreeMap<String, Vec<Sent>>,
    /// `None` before the first list.
    first: Option<First>,
}

#[derive(Debug)]
struct First {
    came: Instant,
    /// Those of it that no look has found yet, and that are still waited for.
    left: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    /// As it is shown, the ending included.
    shown: Arc<Container>,
    inspected: Inspected,
    ending: Option<Ending>,
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    /// By the engine's clock, in nanoseconds since 1970.
    signalled: u64,
    heard: Instant,
}

/// A signal, and what it means to who ends by it.
#[derive(Clone, Copy, Debug)]
struct Sent {
    signal: i32,
    ending: Ending,
}

impl Table {
    /// Every container that could be read; `None` before all of the first list are known, or have been waited for for
    /// long enough.
    pub(super) fn containers(&self) -> Option<Containers> {
        let complete = self.first.as_ref().is_some_and(|it| it.left.is_empty());
        let all = self.known.iter();
        complete.then(|| {
            all.map(|(id, entry)| (id.clone(), entry.shown.clone()))
                .collect()
        })
    }

    /// The containers that nothing new may be sent to: they are ending, have ended, are connected to nothing any more,
    /// or were removed.
    pub(super) fn departed(&self) -> BTreeSet<String> {
        let ended = self
            .known
            .iter()
            .filter(|(_, entry)| has_departed(&entry.shown));
        let ended = ended.map(|(id, _)| id);
        ended.chain(self.gone.keys()).cloned().collect()
    }

    /// Those that are there and of which nothing is known.
    pub(super) fn unread(&self) -> BTreeSet<String> {
        let failed = self.failed.keys();
        failed
            .filter(|id| !self.known.contains_key(*id))
            .cloned()
            .collect()
    }

    /// Whether some of the first list have to be looked at [`Table::again`].
    pub(super) fn lacks_some(&self) -> bool {
        let left = self.first.iter().flat_map(|it| &it.left);
        left.into_iter().any(|id| self.failed.contains_key(id))
    }

    /// Looks again at those of the first list that could not be read, for a while: they keep all others waiting.
    pub(super) fn again(&mut self, now: Instant) {
        let Some(first) = &mut self.first else {
            return;
        };
        let failed = |id: &String| self.failed.contains_key(id);
        if now.saturating_duration_since(first.came) >= PATIENCE {
            first.left.retain(|id| !failed(id));
            return;
        }
        let all: Vec<_> = first.left.iter().filter(|id| failed(id)).cloned().collect();
        for id in all {
            self.want(&id);
        }
    }

    /// Why some containers are not known as they are now.
    pub(super) fn hitch(&self) -> Option<String> {
        let (id, why) = self.failed.first_key_value()?;
        let others = match self.failed.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} others)"),
        };
        Some(format!("container {}{others}: {why}", short(id)))
    }

    /// The ids that are known now: what a list that begins now may find missing.
    pub(super) fn ids(&self) -> BTreeSet<String> {
        self.known.keys().cloned().collect()
    }

    /// Takes in a list. `before` are the [`Table::ids`] of when it began: what was created meanwhile may be missing in
    /// it without being gone.
    pub(super) fn list(
        &mut self,
        before: &BTreeSet<String>,
        listed: BTreeSet<String>,
        now: Instant,
    ) {
        for id in before.difference(&listed) {
            self.remove(id, now);
        }
        for id in &listed {
            self.want(id);
        }
        if self.first.is_none() {
            self.first = Some(First {
                came: now,
                left: listed,
            });
        }
    }

    /// Takes in an event. The end of a container is believed at once.
    pub(super) fn happened(&mut self, event: Event, now: Instant) {
        let Event {
            container: id,
            time,
            action,
        } = event;
        if action == Action::Destroy {
            self.remove(&id, now);
        } else if let Action::Kill(signal) = action {
            let ending = Ending {
                signalled: time,
                heard: now,
            };
            self.signalled(&id, Sent { signal, ending }, now);
        } else if let Some(entry) = self.known.get_mut(&id) {
            // An event from before the last start is history.
            let timely = time >= entry.inspected.started;
            match action {
                Action::Die(code) if timely => {
                    entry.inspected.container.state = State::Exited(code);
                }
                Action::Disconnect(network) => {
                    entry.inspected.container.networks.remove(&network);
                }
                _ => {}
            }
            entry.show();
        }
        self.want(&id);
    }

    /// Takes in what containers were sent before `until`, by the engine's clock, when nobody listened. Whatever else
    /// happened then, a look tells.
    pub(super) fn happened_before(&mut self, until: u64, events: Vec<Event>, now: Instant) {
        for event in events {
            let Action::Kill(signal) = event.action else {
                continue;
            };
            let age = Duration::from_nanos(until.saturating_sub(event.time));
            let ending = Ending {
                signalled: event.time,
                heard: now.checked_sub(age).unwrap_or(now),
            };
            self.signalled(&event.container, Sent { signal, ending }, now);
        }
    }

    fn signalled(&mut self, id: &str, sent: Sent, now: Instant) {
        match self.known.get_mut(id) {
            Some(entry) => {
                entry.hear(sent, now);
                entry.show();
            }
            None => self.signals.entry(id.to_owned()).or_default().push(sent),
        }
    }

    /// The next container to look at.
    pub(super) fn next(&mut self) -> Option<String> {
        // One that is being looked at has its turn when that look is over.
        let free = self
            .waiting
            .iter()
            .position(|id| !self.looking.contains_key(id))?;
        let id = self.waiting.remove(free)?;
        self.looking.insert(id.clone(), false);
        Some(id)
    }

    /// Takes in what a look found; `None` if there is no such container.
    pub(super) fn looked(
        &mut self,
        id: &str,
        found: Result<Option<Inspected>, String>,
        now: Instant,
    ) {
        let outdated = self.looking.remove(id).unwrap_or_default();
        if outdated {
            return;
        }
        self.failed.remove(id);
        match found {
            Ok(Some(inspected)) => {
                self.gone.remove(id);
                let shown = || Arc::new(inspected.container.clone());
                let entry = self.known.entry(id.to_owned()).or_insert_with(|| Entry {
                    shown: shown(),
                    inspected: inspected.clone(),
                    ending: None,
                });
                entry.inspected = inspected;
                for sent in self.signals.remove(id).into_iter().flatten() {
                    entry.hear(sent, now);
                }
                entry.show();
            }
            Ok(None) => self.remove(id, now),
            Err(why) => {
                self.failed.insert(id.to_owned(), why);
                return;
            }
        }
        if let Some(first) = &mut self.first {
            first.left.remove(id);
        }
    }

    /// Forgets the looks that are under way: their answers will not come.
    pub(super) fn disconnected(&mut self) {
        self.looking.clear();
        self.waiting.clear();
        // The next session asks for them.
        self.signals.clear();
    }

    /// Looks again at what could not be read, and forgets what is over.
    pub(super) fn pass(&mut self, now: Instant) {
        // They count as failed until a look finds them.
        let failed: Vec<_> = self.failed.keys().cloned().collect();
        for id in failed {
            self.want(&id);
        }
        for entry in self.known.values_mut() {
            if entry
                .ending
                .is_some_and(|it| entry.inspected.survived(it, now))
            {
                entry.ending = None;
                entry.show();
            }
        }
    }

    fn want(&mut self, id: &str) {
        if let Some(outdated) = self.looking.get_mut(id) {
            *outdated = true;
        }
        if !self.waiting.iter().any(|waiting| waiting == id) {
            self.waiting.push_back(id.to_owned());
        }
    }

    fn remove(&mut self, id: &str, now: Instant) {
        if self.known.remove(id).is_some() {
            self.gone.insert(id.to_owned(), now);
        }
        if self.gone.len() > REMEMBERED
            && let Some((first, _)) = self.gone.iter().min_by_key(|(_, heard)| **heard)
        {
            let first = first.clone();
            self.gone.remove(&first);
        }
        self.failed.remove(id);
        self.signals.remove(id);
        if let Some(first) = &mut self.first {
            first.left.remove(id);
        }
    }
}

impl Entry {
    /// Takes in what it was sent.
    fn hear(&mut self, Sent { signal, ending }: Sent, now: Instant) {
        let inspected = &self.inspected;
        // An event from before the last start is history.
        let timely = ending.signalled >= inspected.started;
        if timely && inspected.ends_by(signal) && !inspected.survived(ending, now) {
            self.ending = Some(ending);
        }
    }

    /// Makes `shown` of the rest; the same allocation for the same content.
    fn show(&mut self) {
        let inspected = &self.inspected;
        let lives = matches!(inspected.container.state, State::Running | State::Paused);
        let ending = self
            .ending
            .filter(|it| lives && it.signalled >= inspected.started);
        self.ending = ending;
        let mut container = inspected.container.clone();
        if ending.is_some() {
            container.state = State::Ending;
        }
        if *self.shown != container {
            self.shown = Arc::new(container);
        }
    }
}

impl Inspected {
    /// Whether a container that gets `signal` is about to end.
    fn ends_by(&self, signal: i32) -> bool {
        signal == self.stop_signal || matches!(signal, 9 | 15)
    }

    /// Whether it has lived for too long since then.
    fn survived(&self, ending: Ending, now: Instant) -> bool {
        let limit = self.stop_timeout.saturating_add(SURVIVED);
        now.saturating_duration_since(ending.heard) > limit
    }
}

fn has_departed(container: &Container) -> bool {
    match container.state {
        State::Created => false,
        State::Ending | State::Exited(_) => true,
        State::Running | State::Paused => {
            container.network == NetworkMode::Networks && container.networks.is_empty()
        }
    }
}

/// As people know a container.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// How many removed containers are remembered: whoever registered one elsewhere may be away for long before it says that it is
/// gone, and another one may have its address then. Ids never come back.
const REMEMBERED: usize = 1_000;

/// How long the others wait for those of the first list that cannot be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container that lives so much longer than its time to end has ignored the signal.
const SURVIVED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
