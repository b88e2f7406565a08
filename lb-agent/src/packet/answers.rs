//! The stage's answers: flows, explanations and traced packets.

use std::{collections::BTreeSet, sync::Arc};

use lb_packet::{Explainer, Filter, Flows, Packet, Publisher, Samples};
use tokio::sync::mpsc;

use super::ask::{Answer, Explained, List, MOST, Meant, Request, Told, Trace};
use crate::{causes::error_chain, snapshot::ServiceName};

/// What answers are made of.
pub(super) struct Desk {
    pub(super) flows: Flows,
    pub(super) explainer: Explainer,
    pub(super) samples: Samples,
    pub(super) tracers: Vec<Tracer>,
}

/// Who follows packets.
pub(super) struct Tracer {
    trace: Trace,
    tells: mpsc::Sender<Told>,
    lost: u64,
}

impl Desk {
    /// Answers. Says whether other packets are to be sampled from now on.
    pub(super) fn answer(&mut self, request: Request, publisher: &Publisher) -> bool {
        // Who asked may have left.
        match request {
            Request::Flows(meant, reply) => drop(reply.send(self.list(&meant, publisher))),
            Request::Flush(meant, reply) => drop(reply.send(self.flush(&meant, publisher))),
            Request::Explain(question, reply) => {
                let explain = |local| {
                    let question = lb_packet::Question { local, ..question };
                    self.explainer.explain(&self.flows, &question)
                };
                let told = explain(false).and_then(|all| {
                    let local = explain(true)?;
                    Ok(Explained { all, local })
                });
                drop(reply.send(told.map_err(|error| failed(&error))));
            }
            Request::Trace(trace, reply) => {
                if self.tracers.is_empty() {
                    // What nobody followed is nobody's.
                    while self.samples.take().is_some() {}
                }
                let (tells, hears) = mpsc::channel(WAITING);
                if reply.send(hears).is_ok() {
                    let lost = 0;
                    self.tracers.push(Tracer { trace, tells, lost });
                    return true;
                }
            }
        }
        false
    }

    fn list(&self, meant: &Meant, publisher: &Publisher) -> Answer<List> {
        let mut list = List::default();
        for filter in filters(meant) {
            let most = MOST - list.flows.len();
            let listed = self.flows.list(publisher, &filter, most);
            let (flows, left_out) = listed.map_err(|error| failed(&error))?;
            list.flows.extend(flows);
            list.left_out += left_out;
        }
        Ok(list)
    }

    fn flush(&mut self, meant: &Meant, publisher: &Publisher) -> Answer<u64> {
        let mut forgotten = 0;
        for filter in filters(meant) {
            let flushed = self.flows.flush(publisher, &filter);
            forgotten += flushed.map_err(|error| failed(&error))?;
        }
        Ok(forgotten)
    }

    /// Tells the packets that were sampled. Says whether other packets are to be sampled from now on.
    pub(super) fn tell(&mut self, name: impl Fn(u32) -> Option<Arc<str>>) -> bool {
        // A flood must not hold up everything else.
        for _ in 0..AT_ONCE {
            let Some(packet) = self.samples.take() else {
                break;
            };
            let device = name(packet.device);
            for tracer in &mut self.tracers {
                tracer.tell(&packet, device.as_ref());
            }
        }
        let before = self.tracers.len();
        self.tracers.retain(|it| !it.tells.is_closed());
        self.tracers.len() != before
    }

    /// Services of which all packets are to be sampled, and of how many others one is.
    pub(super) fn wanted(&self) -> (BTreeSet<ServiceName>, u32) {
        let traces = self.tracers.iter().map(|it| &it.trace);
        let services = traces.clone().filter_map(|it| it.service.clone());
        let sample = traces.map(|it| it.sample).filter(|it| *it > 0).min();
        (services.collect(), sample.unwrap_or(0))
    }
}

impl Tracer {
    fn tell(&mut self, packet: &Packet, device: Option<&Arc<str>>) {
        if self.lost > 0 && self.tells.try_send(Told::Lost(self.lost)).is_ok() {
            self.lost = 0;
        }
        let told = Told::Packet(packet.clone(), device.cloned());
        if self.lost > 0 || self.tells.try_send(told).is_err() {
            self.lost += 1;
        }
    }
}

/// One for each VIP that is meant.
fn filters(meant: &Meant) -> Vec<Filter> {
    match &meant.vips {
        None => vec![meant.filter],
        Some(vips) => vips
            .iter()
            .map(|vip| Filter {
                vip: Some((*vip).into()),
                ..meant.filter
            })
            .collect(),
    }
}

fn failed(error: &lb_packet::Error) -> String {
    format!("{}: see the agent's log", error_chain(error))
}

/// Packets that may wait for one who follows them.
const WAITING: usize = 1024;
/// Packets that are told before everything else gets its turn.
const AT_ONCE: usize = 4096;
