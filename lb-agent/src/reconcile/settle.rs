//! Carries out what is to be done: steps in an order that leaves no gap, where clients stand, and the hooks for datagrams.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use lb_common::PROTO_UDP;

use super::{Channels, Stage, counted};
use crate::{
    catalog::Problem,
    causes::error_chain,
    maps,
    plan::{Round, Step, free},
    programs,
};

/// How long the hooks for datagrams stay after the last UDP service: as long as flows may by default.
const LINGER: Duration = Duration::from_secs(30);

impl Stage {
    /// Carries out what is to be done, up to the first step that the kernel refuses; the next tick tries again.
    pub(super) fn settle(&mut self, channels: &Channels) {
        let started = Instant::now();
        let endpoints = self.todo.services.clone();
        let mut round = Round::new(std::mem::take(&mut self.todo));
        let mut steps = 0_u64;
        let mut refused = None;
        let mut told = None;
        while refused.is_none() {
            // An unreadable count keeps the backend: unknown is not zero.
            let active = |index| self.maps.active(index).unwrap_or(u64::MAX);
            let desired = self.wanted.desired();
            let Some(step) = round.next(&mut self.installed, desired, active, started) else {
                break;
            };
            // Between the new elements and the end of the old ones: a client in a view without any would be taken
            // for one of another view.
            if matches!(step, Step::RemoveService { .. }) && told.is_none() {
                told = Some(self.tell_clients());
            }
            match self.carry_out(&step) {
                Ok(()) => steps += 1,
                Err(problem) => refused = Some((step, problem)),
            }
        }
        let (left, unfit) = round.end(refused.as_ref().map(|(step, _)| step));
        self.todo = left;
        let pending = (self.todo.backends.len() + self.todo.services.len()) as u64;
        self.metrics.pending.store(pending, Ordering::Relaxed);
        if steps > 0 {
            let took = started.elapsed();
            self.metrics.durations.observe(took);
            tracing::debug!(steps, ?took, "changed the maps");
        }
        for key in endpoints {
            let table = self.installed.services.get(&key).map(|it| it.table);
            let wanted = self.wanted.desired().services.get(&key);
            let read = |table| self.maps.counters(table).unwrap_or_default();
            self.books.hold(key, table, wanted.map(|it| &it.name), read);
        }
        let installed = &self.installed;
        self.leaving
            .retain(|address, _| installed.backends.contains_key(address));
        let settled = refused.is_none();
        let mut problems: Vec<Problem> = self.wanted.problems().cloned().collect();
        problems.extend_from_slice(self.programs.problems());
        problems.extend(unfit);
        problems.extend(refused.map(|(_, problem)| problem));
        self.refused = false;
        if settled && let Err(error) = told.unwrap_or_else(|| self.tell_clients()) {
            let message = format!(
                "{}; some containers are taken for the host; trying again",
                error_chain(&error)
            );
            problems.push(Problem::new("clients", message));
            self.refused = true;
        }
        if settled && let Err(error) = self.serve_datagrams() {
            let message = format!("{}; trying again", error_chain(&error));
            problems.push(Problem::new("datagrams", message));
            self.refused = true;
        }
        channels.problems.send_if_modified(|old| {
            let changed = *old != problems;
            *old = problems;
            changed
        });
        if settled && self.is_all_in() {
            let number = self.snapshot.reached();
            channels
                .installed
                .send_if_modified(|done| std::mem::replace(done, number) != number);
        }
    }

    /// Whether the maps hold what there is to hold: after the first complete snapshot, or, while a source is away,
    /// all that was kept and was probed.
    fn is_all_in(&self) -> bool {
        let wanted = self.wanted.desired();
        let is_proven = || wanted.services.values().all(|endpoint| endpoint.proven);
        wanted.complete || self.snapshot.stopgap && is_proven()
    }

    /// Tells the programs where clients stand: after the services are there that a new view sees.
    fn tell_clients(&mut self) -> Result<(), maps::Error> {
        match &self.views {
            Some(views) => self.maps.set_clients(&mut self.told, &views.clients),
            None => Ok(()),
        }
    }

    /// The hooks that run for each datagram are there while a service needs them, and a while longer: answers on their
    /// way are to bear the name that was asked.
    fn serve_datagrams(&mut self) -> Result<(), programs::Error> {
        let wanted = self.wanted.desired();
        if wanted.services.keys().any(|key| key.proto == PROTO_UDP) {
            self.lingers = None;
            return self.programs.serve_datagrams(true);
        }
        // Unknown is not empty: an earlier agent's stay until all is known.
        if !wanted.complete || !self.programs.serves_datagrams() {
            return Ok(());
        }
        if self.lingers.get_or_insert_with(Instant::now).elapsed() >= LINGER {
            self.programs.serve_datagrams(false)?;
            self.lingers = None;
        }
        Ok(())
    }

    /// Carries one step out.
    fn carry_out(&mut self, step: &Step) -> Result<(), Problem> {
        if let Err(error) = self.maps.carry_out(step, &mut self.installed) {
            self.metrics.failures.fetch_add(1, Ordering::Relaxed);
            let error = error_chain(&error);
            tracing::warn!(?step, error, "a map write failed and will be tried again");
            return Err(Problem::new("data plane", format!("{error}; trying again")));
        }
        self.metrics.operations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Frees backends that left and have lost their last flow.
    pub(super) fn free_leaving(&mut self) {
        // An unreadable count keeps the backend: unknown is not zero.
        let active = |index| self.maps.active(index).unwrap_or(u64::MAX);
        let steps = free(
            &self.installed,
            self.wanted.desired(),
            active,
            Instant::now(),
        );
        let mut gone = BTreeMap::new();
        for step in steps {
            let counted = match &step {
                Step::FreeBackend { address } => counted(&self.maps, &self.installed, *address)
                    .map(|counted| (*address, counted)),
                _ => None,
            };
            // A refused step is logged and counted, and tried again.
            if self.carry_out(&step).is_err() {
                break;
            }
            gone.extend(counted);
        }
        self.books.free(&gone);
    }
}
