//! Who is probed: each target for as long as somebody lists it, and anew for another container.

use std::sync::Arc;

use super::{Entry, News, Now, Roster, Turn};
use crate::{
    health::{Target, machine::Phase},
    options::CheckKind,
};

impl Roster {
    /// Probes `target`, which runs in this container, from now on, once more than so far. One that is listed already keeps its
    /// state; a new one is due at once. So is one of another container: what was there before says nothing of it.
    pub fn list(&mut self, target: Target, container: Option<&Arc<str>>, now: Now) {
        if target.1 == CheckKind::Off {
            *self.off.entry(target.0).or_default() += 1;
            return;
        }
        if let Some(entry) = self.entries.get_mut(&target) {
            entry.listed += 1;
            let Some(container) = container else {
                return;
            };
            let of_another = !entry.containers.is_empty();
            let times = entry.containers.entry(container.clone()).or_default();
            *times += 1;
            if *times > 1 {
                return;
            }
            if of_another {
                let before = entry.phase.state();
                if let Turn::Queued(due) = entry.turn {
                    self.queue.remove(due, target.clone(), before);
                }
                entry.begin(now);
                let state = entry.phase.state();
                *self.states.of(before) -= 1;
                *self.states.of(state) += 1;
                self.queue.insert(now.instant, target.clone(), state);
            }
            self.verdicts.put_on(target, entry.names(), entry.verdict());
            self.news = News::Verdicts;
            return;
        }
        let entry = Entry {
            listed: 1,
            containers: container.map(|it| (it.clone(), 1)).into_iter().collect(),
            awaited: false,
            phase: Phase::NEW,
            since: now.wall,
            error: None,
            took: None,
            unable: None,
            turn: Turn::Queued(now.instant),
            began: None,
        };
        let state = entry.phase.state();
        self.queue.insert(now.instant, target.clone(), state);
        *self.states.of(state) += 1;
        self.verdicts
            .put_on(target.clone(), entry.names(), entry.verdict());
        self.entries.insert(target, entry);
        self.news = News::Verdicts;
    }

    /// Takes one listing of `target` back; without any it is forgotten.
    pub fn unlist(&mut self, target: &Target, container: Option<&str>) {
        if target.1 == CheckKind::Off {
            if let Some(listed) = self.off.get_mut(&target.0) {
                *listed -= 1;
                if *listed == 0 {
                    self.off.remove(&target.0);
                }
            }
            return;
        }
        let Some(entry) = self.entries.get_mut(target) else {
            return;
        };
        entry.listed -= 1;
        if entry.listed > 0 {
            let Some(container) = container else {
                return;
            };
            if let Some(times) = entry.containers.get_mut(container) {
                *times -= 1;
                if *times > 0 {
                    return;
                }
                entry.containers.remove(container);
                self.verdicts
                    .put_on(target.clone(), entry.names(), entry.verdict());
                self.news = News::Verdicts;
            }
            return;
        }
        if let Turn::Queued(due) = entry.turn {
            let state = entry.phase.state();
            self.queue.remove(due, target.clone(), state);
        }
        *self.states.of(entry.phase.state()) -= 1;
        self.awaited -= usize::from(entry.awaited);
        self.entries.remove(target);
        self.verdicts.remove(target);
        // Or what was said of it would be believed of who comes next to its address.
        self.news = News::Verdicts;
    }
}

impl Entry {
    /// As if nothing were known of it. A probe under way is of who was there before.
    fn begin(&mut self, now: Now) {
        self.phase = Phase::NEW;
        self.since = now.wall;
        self.error = None;
        self.took = None;
        self.unable = None;
        self.turn = Turn::Queued(now.instant);
    }
}
