//! The collection of flows that are over.

use std::{collections::HashSet, os::fd::AsFd as _};

use lb_common::{
    PROTO_TCP,
    packet::{Flow, Way, seen},
};

use super::{
    Backends, Context,
    age::{Pressure, Side, Sides, goes_on, is_over, may_end},
    census::is_under_way,
    entry::{Ends, Family},
    maps::{Maps, belong},
};
use crate::Error;

/// What a collection found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Of IPv4.
    pub v4: Fill,
    /// Of IPv6.
    pub v6: Fill,
}

/// How full the maps of one family are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Entries of clients' sides that stay.
    pub flows: u64,
    /// Entries for answers that stay.
    pub replies: u64,
    /// Entries that were over and are gone, of both kinds.
    pub removed: u64,
    /// Flows among them that were under way, after their handshake and before an end: their backend is gone.
    pub ended: u64,
    /// Entries that each of the two maps has room for.
    pub room: u32,
}

impl Fill {
    /// What follows from it: the maps for answers are never evicted from.
    pub fn pressure(&self) -> Pressure {
        Pressure::of(self.replies, self.room)
    }
}

pub(super) struct Collection {
    pub(super) backends: Backends,
    pub(super) context: Context,
    pub(super) now: u32,
    pub(super) udp_seconds: u32,
    pub(super) pressure: Pressure,
}

impl<F: Family> Maps<F> {
    pub(super) fn collect(&mut self, collection: &Collection) -> Result<Fill, Error> {
        let mut fill = Fill {
            room: collection.context.room,
            ..Fill::default()
        };
        // A descriptor of its own: entries go while the walk goes on.
        let replies = self
            .replies_fd
            .as_fd()
            .try_clone_to_owned()
            .map_err(Error::system("read", F::REPLIES))?;
        Self::each_reply(&replies, |peer, ends, reply| {
            let side = Side {
                seen: reply.seen,
                last_seconds: reply.last_seconds,
            };
            let mut sides = Sides {
                proto: peer.proto,
                way: reply.way,
                client: None,
                backend: Some(side),
                start_seconds: None,
            };
            let gone = collection
                .backends
                .get(reply.backend, reply.generation)
                .is_none();
            // The other side is asked only where this one alone does not keep it: a system call for each idle flow is too much.
            if !gone && collection.goes_on(&sides) && !self.ending.contains(&ends) {
                fill.replies += 1;
                return Ok(());
            }
            let flow = self.find(&ends)?.filter(|flow| belong(flow, &peer, &reply));
            if let Some(flow) = &flow {
                sides.client = Some(Side {
                    seen: flow.seen,
                    last_seconds: flow.last_seconds,
                });
                sides.start_seconds = Some(flow.start_seconds);
            }
            if !gone && !collection.is_over(&sides) {
                fill.replies += 1;
                return Ok(());
            }
            // What has changed since goes on, or is another flow's by now: it is looked at the next time.
            if self.answers(&peer)? != Some(reply) {
                fill.replies += 1;
                return Ok(());
            }
            if let Some(flow) = flow {
                if self.find(&ends)? != Some(flow) {
                    fill.replies += 1;
                    return Ok(());
                }
                fill.removed += self.remove_flow(&ends)?;
            }
            let removed = self.remove_reply(&peer)?;
            fill.removed += removed;
            // Either side may end it; that its handshake is done is told by the client's, where that is known.
            let begun = sides.client.map_or(reply.seen, |it| it.seen);
            let bits = begun | reply.seen & (seen::FIN | seen::RST);
            fill.ended += if gone && is_under_way(peer.proto, bits) {
                removed
            } else {
                0
            };
            Ok(())
        })?;
        let flows = self
            .flows_fd
            .as_fd()
            .try_clone_to_owned()
            .map_err(Error::system("read", F::FLOWS))?;
        // A flood would leave room for millions.
        self.ending = HashSet::new();
        Self::each_flow(&flows, |ends, flow| {
            if self.keeps(collection, &ends, &flow)? {
                fill.flows += 1;
                if ends.proto == PROTO_TCP && may_end(flow.seen) {
                    self.ending.insert(ends);
                }
            } else {
                let removed = self.remove_flow(&ends)?;
                fill.removed += removed;
                // All others had an entry for their answers, and are counted with that.
                let gone = || {
                    let backends = &collection.backends;
                    backends.get(flow.backend, flow.generation).is_none()
                };
                let in_tunnel = flow.way == Way::Tunnel as u8;
                fill.ended += if in_tunnel && is_under_way(ends.proto, flow.seen) && gone() {
                    removed
                } else {
                    0
                };
            }
            Ok(())
        })?;
        Ok(fill)
    }

    /// Whether a flow goes on, of which the client's side is known. One that has answers ends where those are looked at.
    fn keeps(&self, collection: &Collection, ends: &Ends, flow: &Flow) -> Result<bool, Error> {
        if let Some(backend) = collection.backends.get(flow.backend, flow.generation) {
            let sides = Sides {
                proto: ends.proto,
                way: flow.way,
                client: Some(Side {
                    seen: flow.seen,
                    last_seconds: flow.last_seconds,
                }),
                backend: None,
                start_seconds: Some(flow.start_seconds),
            };
            if !collection.is_over(&sides) {
                return Ok(true);
            }
            if let Some(peer) = collection.context.peer(ends, flow, backend) {
                let reply = self.answers(&peer)?;
                if reply.is_some_and(|reply| belong(flow, &peer, &reply)) {
                    return Ok(true);
                }
            }
        }
        // It may have begun anew, or go on, since it was read.
        Ok(self.find(ends)?.is_some_and(|now| now != *flow))
    }
}

impl Collection {
    pub(super) fn goes_on(&self, sides: &Sides) -> bool {
        goes_on(sides, self.now, self.pressure, self.udp_seconds)
    }

    pub(super) fn is_over(&self, sides: &Sides) -> bool {
        is_over(sides, self.now, self.pressure, self.udp_seconds)
    }
}
