//! All targets with their states and the queue of probes due. No clock and no IO: time and results come in,
//! probes to start and verdicts go out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{Config, Target, machine::Phase, probe::Outcome};
use crate::{
    options::CheckKind,
    snapshot::{Probe, ProbeState},
};

pub(super) struct Roster {
    config: Config,
    entries: BTreeMap<Target, Entry>,
    /// When which target is due; one in flight is not listed.
    queue: BTreeSet<(Instant, Target)>,
    jobs: u64,
    news: News,
}

/// One moment on both clocks: the first counts, the second is for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) wall: SystemTime,
}

/// A probe to start, or started. The number tells it from an earlier one of a target that left and came back.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) number: u64,
}

/// What changed since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    None,
    /// Only how long probes took.
    Details,
    Verdicts,
}

struct Entry {
    phase: Phase,
    since: SystemTime,
    error: Option<String>,
    took: Option<Duration>,
    turn: Turn,
    /// When the last probe began.
    began: Option<Instant>,
}

/// Where a target is between two probes.
enum Turn {
    /// In the queue, at this moment.
    Queued(Instant),
    /// A probe is under way; `again`: it was suspected after that began.
    InFlight { number: u64, again: bool },
    /// It is never probed.
    Never,
}

impl Now {
    pub(super) fn read() -> Self {
        Self {
            instant: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

impl Roster {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            entries: BTreeMap::new(),
            queue: BTreeSet::new(),
            jobs: 0,
            news: News::None,
        }
    }

    /// Makes `targets` the ones to probe. Those that stay keep their state; a new one is due at once.
    pub(super) fn follow(&mut self, targets: BTreeSet<Target>, now: Now) {
        let Self { entries, queue, .. } = self;
        entries.retain(|target, entry| {
            let stays = targets.contains(target);
            if let (false, Turn::Queued(due)) = (stays, &entry.turn) {
                queue.remove(&(*due, target.clone()));
            }
            stays
        });
        for target in targets {
            if self.entries.contains_key(&target) {
                continue;
            }
            let (phase, turn) = match target.1 {
                CheckKind::Off => (Phase::Off, Turn::Never),
                CheckKind::Tcp | CheckKind::Http(_) => (Phase::NEW, Turn::Queued(now.instant)),
            };
            if let Turn::Queued(due) = turn {
                self.queue.insert((due, target.clone()));
            }
            let entry = Entry {
                phase,
                since: now.wall,
                error: None,
                took: None,
                turn,
                began: None,
            };
            self.entries.insert(target, entry);
            self.news = News::Verdicts;
        }
    }

    /// At most `room` probes that are to start now.
    pub(super) fn due(&mut self, now: Instant, room: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < room {
            let Some((due, target)) = self.queue.pop_first() else {
                break;
            };
            if due > now {
                self.queue.insert((due, target));
                break;
            }
            let Some(entry) = self.entries.get_mut(&target) else {
                continue;
            };
            self.jobs += 1;
            let number = self.jobs;
            let again = false;
            entry.turn = Turn::InFlight { number, again };
            entry.began = Some(now);
            jobs.push(Job { target, number });
        }
        jobs
    }

    /// When the next probe is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Takes the result of a probe. `noise` spreads the next ones, so that targets that came together are not
    /// probed together for ever.
    pub(super) fn finished(&mut self, job: Job, outcome: Outcome, now: Now, noise: u64) {
        let Some(entry) = self.entries.get_mut(&job.target) else {
            return;
        };
        let Turn::InFlight { number, again } = entry.turn else {
            return;
        };
        if number != job.number {
            return;
        }
        let before = (entry.phase.state(), entry.error.clone());
        let mut news = News::None;
        match outcome {
            Outcome::Passed(took) => {
                entry.phase = entry.phase.after_probe(true, &self.config);
                entry.error = None;
                entry.took = Some(took);
                news = News::Details;
            }
            Outcome::Failed(why) => {
                entry.phase = entry.phase.after_probe(false, &self.config);
                entry.error = Some(why);
            }
            // The host's fault, which says nothing of the backend.
            Outcome::Unable(why) => entry.error = Some(why),
        }
        if entry.phase.state() != before.0 {
            entry.since = now.wall;
        }
        if (entry.phase.state(), &entry.error) != (before.0, &before.1) {
            news = News::Verdicts;
        }
        let pause = if entry.phase.wavers() || again {
            HURRY
        } else {
            spread(self.config.interval, noise)
        };
        let due = now.instant + pause;
        entry.turn = Turn::Queued(due);
        self.queue.insert((due, job.target));
        self.news = self.news.max(news);
    }

    /// Brings the probes of `address` forward. They still keep the distance of [`HURRY`], so that clients
    /// cannot make us flood a backend.
    pub(super) fn suspect(&mut self, address: SocketAddr, now: Instant) {
        // `Tcp` sorts before every other kind.
        let from = (address, CheckKind::Tcp);
        let all = self.entries.range_mut(from..);
        for (target, entry) in all.take_while(|(target, _)| target.0 == address) {
            match &mut entry.turn {
                Turn::Queued(due) => {
                    let soon = entry.began.map_or(now, |began| now.max(began + HURRY));
                    if soon < *due {
                        self.queue.remove(&(*due, target.clone()));
                        self.queue.insert((soon, target.clone()));
                        *due = soon;
                    }
                }
                Turn::InFlight { again, .. } => *again = true,
                Turn::Never => {}
            }
        }
    }

    /// Those that still wait for their first verdict.
    pub(super) fn starting(&self) -> impl Iterator<Item = &Target> {
        let starts = |entry: &Entry| entry.phase.state() == ProbeState::Starting;
        self.entries
            .iter()
            .filter_map(move |(target, entry)| starts(entry).then_some(target))
    }

    /// Whether this one does; one that left waits for nothing.
    pub(super) fn starts(&self, target: &Target) -> bool {
        let entry = self.entries.get(target);
        entry.is_some_and(|entry| entry.phase.state() == ProbeState::Starting)
    }

    /// What changed since the last [`Roster::report`].
    pub(super) fn news(&self) -> News {
        self.news
    }

    /// The verdict on every target.
    pub(super) fn report(&mut self) -> BTreeMap<Target, Probe> {
        self.news = News::None;
        let entries = self.entries.iter();
        entries
            .map(|(target, entry)| (target.clone(), entry.verdict()))
            .collect()
    }
}

impl Entry {
    fn verdict(&self) -> Probe {
        Probe {
            state: self.phase.state(),
            since: self.since,
            error: self.error.clone(),
            took: self.took,
        }
    }
}

/// `interval`, up to a tenth shorter or longer.
fn spread(interval: Duration, noise: u64) -> Duration {
    let thousandths = 900 + u32::try_from(noise % 201).unwrap_or(100);
    interval * thousandths / 1000
}

/// Between two probes of a target whose verdict is about to change.
const HURRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
