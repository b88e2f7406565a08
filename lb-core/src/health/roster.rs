//! All targets with their states and the queue of probes due. No clock and no IO: time and results come in,
//! probes to start and verdicts go out.

mod listing;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{Config, Outcome, Target, Verdicts, machine::Phase, queue::Queue};
use crate::{
    options::CheckKind,
    snapshot::{Probe, ProbeState},
};

/// All targets, and when each is due.
pub struct Roster {
    config: Config,
    /// Those that are probed.
    entries: BTreeMap<Target, Entry>,
    /// How often each one that is not probed is listed.
    off: BTreeMap<SocketAddr, usize>,
    /// The verdict on every entry.
    verdicts: Verdicts,
    states: States,
    /// Entries that are waited for.
    awaited: usize,
    queue: Queue,
    jobs: u64,
    news: News,
}

/// One moment on both clocks: the first counts, the second is for people.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The clock that only goes on.
    pub instant: Instant,
    /// The time of day.
    pub wall: SystemTime,
}

/// A probe to start, or started. The number tells it from an earlier one of a target that left and came back.
#[derive(Clone, Debug)]
pub struct Job {
    /// Whom to ask, and what.
    pub target: Target,
    /// Rises with each probe.
    pub number: u64,
    /// What was known of the target when it began.
    pub state: ProbeState,
}

/// What changed since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// Nothing.
    None,
    /// Only how long probes took.
    Details,
    /// A verdict, or who is judged.
    Verdicts,
}

/// How many targets there are of each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States {
    /// Not judged yet.
    pub starting: usize,
    /// They answer.
    pub up: usize,
    /// They do not.
    pub down: usize,
    /// Addresses that are not probed.
    pub off: usize,
}

struct Entry {
    /// How often it is listed: by services, and by their parts.
    listed: usize,
    /// The containers that it is listed for, and how often each is.
    containers: BTreeMap<Arc<str>, usize>,
    /// Whether somebody waits for its first verdict.
    awaited: bool,
    phase: Phase,
    since: SystemTime,
    error: Option<String>,
    took: Option<Duration>,
    /// Since when this host could not ask; `None` if it could the last time.
    unable: Option<Instant>,
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
}

impl Roster {
    /// Without targets.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            entries: BTreeMap::new(),
            off: BTreeMap::new(),
            verdicts: Verdicts::NONE,
            states: States::default(),
            awaited: 0,
            queue: Queue::default(),
            jobs: 0,
            news: News::None,
        }
    }

    /// At most `room` probes that are to start now; half of [`PROBES_AT_ONCE`](super::PROBES_AT_ONCE) are for targets that
    /// are not down.
    pub fn due(&mut self, now: Instant, room: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < room {
            let Some(target) = self.queue.start(now) else {
                break;
            };
            let Some(entry) = self.entries.get_mut(&target) else {
                continue;
            };
            self.jobs += 1;
            let number = self.jobs;
            let again = false;
            entry.turn = Turn::InFlight { number, again };
            entry.began = Some(now);
            let state = entry.phase.state();
            jobs.push(Job {
                target,
                number,
                state,
            });
        }
        jobs
    }

    /// When the next probe is due that may start then.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.next()
    }

    /// Takes the result of a probe. `noise` spreads the next ones, so that targets that came together are not
    /// probed together for ever.
    pub fn finished(&mut self, job: Job, outcome: Outcome, now: Now, noise: u64) {
        self.queue.ended(job.state);
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
        let unable = entry.unable.take();
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
            Outcome::Unable(why) => {
                entry.error = Some(why);
                let since = *entry.unable.insert(unable.unwrap_or(now.instant));
                if now.instant.saturating_duration_since(since) >= UNABLE_AT_MOST
                    && std::mem::take(&mut entry.awaited)
                {
                    self.awaited -= 1;
                }
            }
        }
        if entry.phase.state() != before.0 {
            entry.since = now.wall;
            *self.states.of(before.0) -= 1;
            *self.states.of(entry.phase.state()) += 1;
            if std::mem::take(&mut entry.awaited) {
                self.awaited -= 1;
            }
        }
        if (entry.phase.state(), &entry.error) != (before.0, &before.1) {
            news = News::Verdicts;
        }
        if news != News::None {
            let target = job.target.clone();
            self.verdicts.put_on(target, entry.names(), entry.verdict());
        }
        let pause = if entry.phase.wavers() || again {
            HURRY
        } else {
            spread(self.config.interval, noise)
        };
        let due = now.instant + pause;
        entry.turn = Turn::Queued(due);
        let state = entry.phase.state();
        self.queue.insert(due, job.target, state);
        self.news = self.news.max(news);
    }

    /// Brings the probes of `address` forward. They still keep the distance of `HURRY`, so that clients
    /// cannot make us flood a backend.
    pub fn suspect(&mut self, address: SocketAddr, now: Instant) {
        // `Tcp` sorts before every other kind.
        let from = (address, CheckKind::Tcp);
        let all = self.entries.range_mut(from..);
        for (target, entry) in all.take_while(|(target, _)| target.0 == address) {
            let state = entry.phase.state();
            match &mut entry.turn {
                Turn::Queued(due) => {
                    let soon = entry.began.map_or(now, |began| now.max(began + HURRY));
                    if soon < *due {
                        self.queue.remove(*due, target.clone(), state);
                        self.queue.insert(soon, target.clone(), state);
                        *due = soon;
                    }
                }
                Turn::InFlight { again, .. } => *again = true,
            }
        }
    }

    /// Waits from now on for the first verdict of each target that has none.
    pub fn wait_for_starting(&mut self) {
        for entry in self.entries.values_mut() {
            entry.awaited = entry.phase.state() == ProbeState::Starting;
            self.awaited += usize::from(entry.awaited);
        }
    }

    /// Whether one of those still has none; one that left is not waited for.
    pub fn is_waiting(&self) -> bool {
        self.awaited > 0
    }

    /// How many targets there are of each state.
    pub fn states(&self) -> States {
        States {
            off: self.off.len(),
            ..self.states
        }
    }

    /// What changed since the last [`Roster::report`].
    pub fn news(&self) -> News {
        self.news
    }

    /// The verdict on every target that is probed.
    pub fn report(&mut self) -> Verdicts {
        self.news = News::None;
        self.verdicts.clone()
    }
}

impl States {
    fn of(&mut self, state: ProbeState) -> &mut usize {
        match state {
            ProbeState::Starting => &mut self.starting,
            ProbeState::Up => &mut self.up,
            ProbeState::Down => &mut self.down,
            ProbeState::Off => &mut self.off,
        }
    }
}

impl Entry {
    /// The containers that it is listed for.
    fn names(&self) -> impl Iterator<Item = Arc<str>> {
        self.containers.keys().cloned()
    }

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

/// For how long a first verdict is waited for that this host cannot come by: as long as ports stay in TIME_WAIT, for until
/// then it may be over by itself, and what the maps hold of the backend is not known to be wrong.
const UNABLE_AT_MOST: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
