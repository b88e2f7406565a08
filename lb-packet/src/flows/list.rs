//! Flows as people see them: which are meant, and what is told of each.

use std::{
    collections::{HashMap as Table, HashSet},
    net::{IpAddr, SocketAddr},
};

use lb_common::packet::{Flow, Reply, Way};

use super::{
    Backends, Context,
    entry::{Ends, Family, Peer},
    maps::{Maps, belong},
};
use crate::{Error, address::address4};

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// IANA protocol number.
    pub proto: u8,
    /// The client.
    pub client: SocketAddr,
    /// The VIP as the client knows it, and its port.
    pub vip: SocketAddr,
    /// The backend, while it is the one that the flow was given.
    pub backend: Option<SocketAddr>,
    /// Its index in the maps.
    pub index: u32,
    /// How packets get there; `None` if the maps hold an integer that names no way.
    pub way: Option<Way>,
    /// The port that the backend sees.
    pub local_port: u16,
    /// The client's side, unless the kernel evicted it.
    pub from_client: Option<Sight>,
    /// The backend's side: there is none where answers do not come by here.
    pub from_backend: Option<Sight>,
    /// Seconds since the first packet, where the client's side is there.
    pub age_seconds: Option<u32>,
}

/// What was seen of one side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// [`lb_common::packet::seen`] bits.
    pub seen: u8,
    /// Seconds since its last packet.
    pub idle_seconds: u32,
}

/// Which flows are meant: those that all of it fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this protocol.
    pub proto: Option<u8>,
    /// Of this client.
    pub client: Option<IpAddr>,
    /// From this port of its.
    pub client_port: Option<u16>,
    /// To this VIP, in either of its forms.
    pub vip: Option<IpAddr>,
    /// To this port of it.
    pub vip_port: Option<u16>,
    /// Given this backend.
    pub backend: Option<SocketAddr>,
}

pub(super) struct List {
    pub(super) backends: Backends,
    pub(super) context: Context,
    pub(super) filter: Filter,
    pub(super) most: usize,
    pub(super) now: u32,
    pub(super) found: Vec<FlowEntry>,
    pub(super) more: u64,
}

impl Filter {
    pub(super) fn means(
        &self,
        ends: &Ends,
        backend: Option<SocketAddr>,
        context: &Context,
    ) -> bool {
        let vips = || [address4(ends.vip).into(), context.vip(ends.vip, true)];
        self.proto.is_none_or(|it| it == ends.proto)
            && self.client.is_none_or(|it| it == ends.client)
            && self.client_port.is_none_or(|it| it == ends.client_port)
            && self.vip_port.is_none_or(|it| it == ends.vip_port)
            && self.vip.is_none_or(|it| vips().contains(&it))
            && self.backend.is_none_or(|it| backend == Some(it))
    }
}

impl<F: Family> Maps<F> {
    pub(super) fn list(&self, list: &mut List) -> Result<(), Error> {
        let mut answers: Table<Ends, (Peer, Reply)> = Table::new();
        Self::each_reply(&self.replies_fd, |peer, ends, reply| {
            let backend = list.backends.get(reply.backend, reply.generation);
            if list.filter.means(&ends, backend, &list.context) {
                answers.insert(ends, (peer, reply));
            }
            Ok(())
        })?;
        Self::each_flow(&self.flows_fd, |ends, flow| {
            let backend = list.backends.get(flow.backend, flow.generation);
            if list.filter.means(&ends, backend, &list.context) {
                let reply = answers
                    .remove(&ends)
                    .filter(|(peer, reply)| belong(&flow, peer, reply));
                list.tell(&ends, Some(&flow), reply.as_ref());
            }
            Ok(())
        })?;
        for (ends, reply) in answers {
            list.tell(&ends, None, Some(&reply));
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, meant: impl Fn(&Ends, u32, u32) -> bool) -> Result<u64, Error> {
        let mut flows = Vec::new();
        Self::each_flow(&self.flows_fd, |ends, flow| {
            if meant(&ends, flow.backend, flow.generation) {
                flows.push(ends);
            }
            Ok(())
        })?;
        let mut replies = Vec::new();
        Self::each_reply(&self.replies_fd, |peer, ends, reply| {
            if meant(&ends, reply.backend, reply.generation) {
                replies.push((ends, peer));
            }
            Ok(())
        })?;
        let mut forgotten = 0;
        for ends in &flows {
            forgotten += self.remove_flow(ends)?;
        }
        let known: HashSet<&Ends> = flows.iter().collect();
        for (ends, peer) in &replies {
            let removed = self.remove_reply(peer)?;
            if !known.contains(ends) {
                forgotten += removed;
            }
        }
        // A packet may have written one down anew while its answers were known.
        for ends in &flows {
            self.remove_flow(ends)?;
        }
        Ok(forgotten)
    }
}

impl List {
    fn tell(&mut self, ends: &Ends, flow: Option<&Flow>, reply: Option<&(Peer, Reply)>) {
        if self.found.len() >= self.most {
            self.more += 1;
            return;
        }
        let idle = |last: u32| {
            let idle = self.now.wrapping_sub(last);
            if idle > u32::MAX / 2 { 0 } else { idle }
        };
        let (index, generation, way, local_port) = match (flow, reply) {
            (Some(it), _) => (it.backend, it.generation, it.way, it.local_port.host()),
            (None, Some((peer, it))) => (it.backend, it.generation, it.way, peer.local_port),
            (None, None) => return,
        };
        let vip = self.context.vip(ends.vip, ends.client.is_ipv6());
        self.found.push(FlowEntry {
            proto: ends.proto,
            client: SocketAddr::new(ends.client, ends.client_port),
            vip: SocketAddr::new(vip, ends.vip_port),
            backend: self.backends.get(index, generation),
            index,
            way: Way::try_from(way).ok(),
            local_port,
            from_client: flow.map(|it| Sight {
                seen: it.seen,
                idle_seconds: idle(it.last_seconds),
            }),
            from_backend: reply.map(|(_, it)| Sight {
                seen: it.seen,
                idle_seconds: idle(it.last_seconds),
            }),
            age_seconds: flow.map(|it| idle(it.start_seconds)),
        });
    }
}
