//! Whoever follows the decisions for a service: asks the programs to tell them, as long as somebody is there to hear.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use lb_common::{ANY_PORT, Be32, HOST_VIEW, ServiceKey, Trace};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::broadcast;

use super::{Channels, Stage};
use crate::{
    desired::Endpoint,
    snapshot::ServiceName,
    trace::{Decision, Told, TraceRequest},
};

/// Who follows, by service.
#[derive(Debug, Default)]
pub(super) struct Tracers(BTreeMap<ServiceName, Tracer>);

#[derive(Debug)]
struct Tracer {
    out: broadcast::Sender<Told>,
    /// What the kernel had not been able to tell when that was said last.
    untold: u64,
}

impl Stage {
    /// Lets somebody follow a service. The programs tell its decisions before this is answered.
    pub(super) fn trace(&mut self, request: TraceRequest, channels: &Channels) {
        let TraceRequest { service, reply } = request;
        if let Some(tracer) = self.tracers.0.get(&service) {
            // Whoever asked may have gone.
            drop(reply.send(tracer.out.subscribe()));
            return;
        }
        self.todo.extend(self.wanted.trace(&service, true));
        self.settle(channels);
        let untold = self.untold(&service);
        let (out, hears) = broadcast::channel(WAITING);
        drop(reply.send(hears));
        self.tracers.0.insert(service, Tracer { out, untold });
    }

    /// Tells a decision to those who follow its service.
    pub(super) fn tell(&self, trace: Trace) {
        let Some((_, endpoint)) = self.endpoints_of(trace.vip).next() else {
            return;
        };
        let Some(tracer) = self.tracers.0.get(&endpoint.name) else {
            return;
        };
        let decided = self.endpoints_of(trace.vip).find(|(key, _)| {
            let installed = self.installed.services.get(*key);
            installed.is_some_and(|it| it.table == trace.table)
        });
        let address = self.installed.addresses.get(&trace.backend);
        let address = address.filter(|it| {
            let backend = self.installed.backends.get(*it);
            backend.is_some_and(|it| it.id.generation == trace.detail)
        });
        let decision = Decision {
            at: moment(trace.time_ns),
            trace,
            view: decided.map(|(key, _)| key.view),
            address: address.copied(),
        };
        // Nobody hears it any more: the next tick ends it.
        let _ = tracer.out.send(Told::Decision(decision));
    }

    /// Ends all: the maps outlive the agent, and nobody would hear.
    pub(super) fn end_tracers(&mut self, channels: &Channels) {
        let all = std::mem::take(&mut self.tracers).0;
        for name in all.keys() {
            self.todo.extend(self.wanted.trace(name, false));
        }
        if !all.is_empty() {
            self.settle(channels);
        }
    }

    /// Ends what nobody hears any more, and says what the kernel could not tell.
    pub(super) fn tick_tracers(&mut self, channels: &Channels) {
        let all = self.tracers.0.iter();
        let gone = all.filter(|(_, tracer)| tracer.out.receiver_count() == 0);
        let gone: Vec<ServiceName> = gone.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.tracers.0.remove(name);
            self.todo.extend(self.wanted.trace(name, false));
        }
        if !gone.is_empty() {
            self.settle(channels);
        }
        let mut tracers = std::mem::take(&mut self.tracers);
        for (name, tracer) in &mut tracers.0 {
            let untold = self.untold(name);
            let lost = untold.saturating_sub(tracer.untold);
            tracer.untold = untold;
            if lost > 0 {
                let _ = tracer.out.send(Told::Lost(lost));
            }
        }
        self.tracers = tracers;
    }

    /// Decisions for a service that the kernel could not tell.
    fn untold(&self, name: &ServiceName) -> u64 {
        let vip = self.snapshot.services.get(name).and_then(|it| it.vip);
        let vip = vip.map(|vip| Be32::from_host(vip.into()));
        let keys = vip.into_iter().flat_map(|vip| self.endpoints_of(vip));
        let tables = keys.filter_map(|(key, _)| self.installed.services.get(key));
        let counters = tables.filter_map(|it| self.maps.counters(it.table).ok());
        counters.map(|it| it.untold).sum()
    }

    pub(super) fn endpoints_of(&self, vip: Be32) -> impl Iterator<Item = (&ServiceKey, &Endpoint)> {
        let first = ServiceKey::new(vip, ANY_PORT, 0, HOST_VIEW);
        let services = self.wanted.desired().services.range(first..);
        services.take_while(move |(key, _)| key.vip == vip)
    }
}

/// The wall clock's time of a moment of the kernel's coarse one.
fn moment(time_ns: u64) -> SystemTime {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE);
    let now = now.map_or(Duration::ZERO, Duration::from);
    let ago = now.saturating_sub(Duration::from_nanos(time_ns));
    SystemTime::now() - ago
}

/// Decisions that wait for one who is slow to hear them; older ones are lost to it.
const WAITING: usize = 1024;
