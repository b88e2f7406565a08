//! The flows that the programs have written down: listing, flushing, and the collection of those that are over.
//!
//! A flow has two entries: that of its client's side may be evicted by the kernel, that of the answers never is, so it
//! has to be collected here. What is removed is removed from the client's side first: answers without an entry would
//! reach the client from an address that it never spoke to.

mod age;
mod entry;

use std::{
    collections::HashMap as Table,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::{HashMap, MapData, MapError};
use ipnet::Ipv6Net;
use lb_common::{
    Be32,
    packet::{Flow, Reply, Way},
};
use lb_sys::bpf::Batches;

pub use self::age::Pressure;
pub(crate) use self::entry::{Ends, Family, Peer, V4, V6};
use self::{
    age::{Side, Sides, goes_on, is_over},
    entry::{flow, reply},
};
use crate::{
    Error, HAIRPIN4, HAIRPIN6, Programs, Publisher,
    address::{address4, socket},
};

/// The maps of flows of both families.
pub struct Flows {
    v4: Maps<V4>,
    v6: Maps<V6>,
    context: Context,
}

/// What flows are told with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) pool6: Option<Ipv6Net>,
    pub(crate) source4: Option<Ipv4Addr>,
    pub(crate) source6: Option<Ipv6Addr>,
    /// Bits of an IPv4 VIP that are its host part.
    pub(crate) host_mask: u32,
    /// Entries that each map of flows has room for.
    pub(crate) room: u32,
}

/// The two maps of one family.
struct Maps<F: Family> {
    flows: HashMap<MapData, F::FlowKey, Flow>,
    replies: HashMap<MapData, F::ReplyKey, Reply>,
    flows_fd: OwnedFd,
    replies_fd: OwnedFd,
}

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
    /// Entries that each of the two maps has room for.
    pub room: u32,
}

impl Fill {
    /// What follows from it: the maps for answers are never evicted from.
    pub fn pressure(&self) -> Pressure {
        Pressure::of(self.replies, self.room)
    }
}

impl Flows {
    /// Opens the maps.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(programs: &mut Programs) -> Result<Self, Error> {
        Ok(Self {
            v4: Maps::open(programs)?,
            v6: Maps::open(programs)?,
            context: programs.context(),
        })
    }

    /// The flows that `filter` means, at most `most` of them, and how many there are beyond. `publisher` knows the backends.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn list(
        &self,
        publisher: &Publisher,
        filter: &Filter,
        most: usize,
    ) -> Result<(Vec<FlowEntry>, u64), Error> {
        let mut list = List {
            backends: Backends::of(publisher),
            context: self.context,
            filter: *filter,
            most,
            now: now_seconds(),
            found: Vec::new(),
            more: 0,
        };
        self.v4.list(&mut list)?;
        self.v6.list(&mut list)?;
        Ok((list.found, list.more))
    }

    /// Forgets the flows that `filter` means, and tells how many. The next packet of each is one of no flow.
    ///
    /// # Errors
    /// When the kernel refuses; some are forgotten then.
    pub fn flush(&mut self, publisher: &Publisher, filter: &Filter) -> Result<u64, Error> {
        let backends = Backends::of(publisher);
        let context = self.context;
        let meant = |ends: &Ends, index, generation| {
            filter.means(ends, backends.get(index, generation), &context)
        };
        Ok(self.v4.flush(meant)? + self.v6.flush(meant)?)
    }

    /// Forgets what is over, to be called every few seconds: `last` is what the call before answered, whose pressure
    /// says for how long flows without a handshake are kept.
    ///
    /// # Errors
    /// When the kernel refuses; some are forgotten then.
    pub fn collect(&mut self, publisher: &Publisher, last: &Collected) -> Result<Collected, Error> {
        let mut collection = Collection {
            backends: Backends::of(publisher),
            context: self.context,
            now: now_seconds(),
            udp_seconds: publisher.settings().udp_seconds,
            pressure: last.v4.pressure(),
        };
        let v4 = self.v4.collect(&collection)?;
        collection.pressure = last.v6.pressure();
        let v6 = self.v6.collect(&collection)?;
        Ok(Collected { v4, v6 })
    }

    /// The client's side of one flow.
    pub(crate) fn find(&self, ends: &Ends) -> Result<Option<Flow>, Error> {
        match ends.client {
            IpAddr::V4(_) => self.v4.find(ends),
            IpAddr::V6(_) => self.v6.find(ends),
        }
    }
}

/// The clock of the entries: coarse monotonic seconds.
pub(crate) fn now_seconds() -> u32 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC_COARSE;
    // Every kernel has it. The programs' seconds go round after 136 years, too.
    clock.now().map_or(0, |now| {
        u32::try_from(now.tv_sec() & i64::from(u32::MAX)).unwrap_or(0)
    })
}

/// Who is at which index.
struct Backends(Table<(u32, u32), SocketAddr>);

impl Backends {
    fn of(publisher: &Publisher) -> Self {
        let ids = publisher
            .targets()
            .map(|(address, index, target)| ((index, target.generation), address));
        Self(ids.collect())
    }

    fn get(&self, index: u32, generation: u32) -> Option<SocketAddr> {
        self.0.get(&(index, generation)).copied()
    }
}

struct List {
    backends: Backends,
    context: Context,
    filter: Filter,
    most: usize,
    now: u32,
    found: Vec<FlowEntry>,
    more: u64,
}

struct Collection {
    backends: Backends,
    context: Context,
    now: u32,
    udp_seconds: u32,
    pressure: Pressure,
}

impl Context {
    /// The VIP as clients of the family know it.
    pub(crate) fn vip(&self, vip: Be32, v6: bool) -> IpAddr {
        let low = address4(vip);
        match self.pool6.filter(|_| v6) {
            Some(pool) => {
                let mut octets = pool.network().octets();
                // The host part of the IPv4 VIP, as far as the pool has no bits there.
                let host = u32::from(low) & self.host_mask;
                octets[12..].copy_from_slice(&host.to_be_bytes());
                Ipv6Addr::from(octets).into()
            }
            None => low.into(),
        }
    }

    /// Where the answers of a flow are looked up.
    fn peer(&self, ends: &Ends, flow: &Flow, backend: SocketAddr) -> Option<Peer> {
        let v6 = ends.client.is_ipv6();
        let local = match Way::try_from(flow.way).ok()? {
            Way::Destination => ends.client,
            Way::Hairpin if v6 => HAIRPIN6.into(),
            Way::Hairpin => HAIRPIN4.into(),
            Way::Full if v6 => self.source6?.into(),
            Way::Full => self.source4?.into(),
            Way::Tunnel => return None,
        };
        Some(Peer {
            backend: backend.ip(),
            backend_port: backend.port(),
            local,
            local_port: flow.local_port.host(),
            proto: ends.proto,
        })
    }
}

impl Filter {
    fn means(&self, ends: &Ends, backend: Option<SocketAddr>, context: &Context) -> bool {
        let vips = || [address4(ends.vip).into(), context.vip(ends.vip, true)];
        self.proto.is_none_or(|it| it == ends.proto)
            && self.client.is_none_or(|it| it == ends.client)
            && self.client_port.is_none_or(|it| it == ends.client_port)
            && self.vip_port.is_none_or(|it| it == ends.vip_port)
            && self.vip.is_none_or(|it| vips().contains(&it))
            && self.backend.is_none_or(|it| backend == Some(it))
    }
}

/// What is not there any more is no fault.
fn there<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl<F: Family> Maps<F> {
    fn open(programs: &Programs) -> Result<Self, Error> {
        Ok(Self {
            flows: programs.map(F::FLOWS)?,
            replies: programs.map(F::REPLIES)?,
            flows_fd: programs.descriptor(F::FLOWS)?,
            replies_fd: programs.descriptor(F::REPLIES)?,
        })
    }

    fn each_flow(
        fd: &OwnedFd,
        mut told: impl FnMut(Ends, Flow) -> Result<(), Error>,
    ) -> Result<(), Error> {
        walk(fd, F::FLOWS, |key, value| told(F::ends(key), flow(value)))
    }

    fn each_reply(
        fd: &OwnedFd,
        mut told: impl FnMut(Peer, Ends, Reply) -> Result<(), Error>,
    ) -> Result<(), Error> {
        walk(fd, F::REPLIES, |key, value| {
            let (peer, reply) = (F::peer(key), reply(value));
            told(peer, Ends::of(&reply, &peer, F::V6), reply)
        })
    }

    fn find(&self, ends: &Ends) -> Result<Option<Flow>, Error> {
        let Some(key) = F::flow_key(ends) else {
            return Ok(None);
        };
        there(self.flows.get(&key, 0)).map_err(Error::map("read", F::FLOWS))
    }

    fn answers(&self, peer: &Peer) -> Result<Option<Reply>, Error> {
        let Some(key) = F::reply_key(peer) else {
            return Ok(None);
        };
        there(self.replies.get(&key, 0)).map_err(Error::map("read", F::REPLIES))
    }

    fn remove_flow(&mut self, ends: &Ends) -> Result<u64, Error> {
        let Some(key) = F::flow_key(ends) else {
            return Ok(0);
        };
        let removed =
            there(self.flows.remove(&key)).map_err(Error::map("remove from", F::FLOWS))?;
        Ok(removed.is_some().into())
    }

    fn remove_reply(&mut self, peer: &Peer) -> Result<u64, Error> {
        let Some(key) = F::reply_key(peer) else {
            return Ok(0);
        };
        let removed =
            there(self.replies.remove(&key)).map_err(Error::map("remove from", F::REPLIES))?;
        Ok(removed.is_some().into())
    }

    fn list(&self, list: &mut List) -> Result<(), Error> {
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

    fn flush(&mut self, meant: impl Fn(&Ends, u32, u32) -> bool) -> Result<u64, Error> {
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
        let known: std::collections::HashSet<&Ends> = flows.iter().collect();
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

    fn collect(&mut self, collection: &Collection) -> Result<Fill, Error> {
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
            // The other side is asked only where this one alone does not keep it.
            if !gone && collection.goes_on(&sides) {
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
            fill.removed += self.remove_reply(&peer)?;
            Ok(())
        })?;
        let flows = self
            .flows_fd
            .as_fd()
            .try_clone_to_owned()
            .map_err(Error::system("read", F::FLOWS))?;
        Self::each_flow(&flows, |ends, flow| {
            if self.keeps(collection, &ends, &flow)? {
                fill.flows += 1;
            } else {
                fill.removed += self.remove_flow(&ends)?;
            }
            Ok(())
        })?;
        Ok(fill)
    }

    /// Whether a flow goes on, of which the client's side is known.
    fn keeps(&self, collection: &Collection, ends: &Ends, flow: &Flow) -> Result<bool, Error> {
        let side = Side {
            seen: flow.seen,
            last_seconds: flow.last_seconds,
        };
        let mut sides = Sides {
            proto: ends.proto,
            way: flow.way,
            client: Some(side),
            backend: None,
            start_seconds: Some(flow.start_seconds),
        };
        if let Some(backend) = collection.backends.get(flow.backend, flow.generation) {
            let mut is_over = collection.is_over(&sides);
            // The other side is asked only where it may matter.
            if is_over && let Some(peer) = collection.context.peer(ends, flow, backend) {
                let reply = self
                    .answers(&peer)?
                    .filter(|reply| belong(flow, &peer, reply));
                sides.backend = reply.map(|it| Side {
                    seen: it.seen,
                    last_seconds: it.last_seconds,
                });
                is_over = collection.is_over(&sides);
            }
            if !is_over {
                return Ok(true);
            }
        }
        // It may have begun anew, or go on, since it was read.
        Ok(self.find(ends)?.is_some_and(|now| now != *flow))
    }
}

impl Collection {
    fn goes_on(&self, sides: &Sides) -> bool {
        goes_on(sides, self.now, self.pressure, self.udp_seconds)
    }

    fn is_over(&self, sides: &Sides) -> bool {
        is_over(sides, self.now, self.pressure, self.udp_seconds)
    }
}

/// Whether both are of one flow: ends alone may be those of one before.
fn belong(flow: &Flow, peer: &Peer, reply: &Reply) -> bool {
    (flow.backend, flow.generation) == (reply.backend, reply.generation)
        && flow.local_port.host() == peer.local_port
}

fn walk(
    map: &OwnedFd,
    name: &'static str,
    mut told: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = || Error::system("read", name);
    let mut batches = Batches::new(map.as_fd()).map_err(failed())?;
    while let Some(entries) = batches.step().map_err(failed())? {
        for (key, value) in entries {
            told(key, value)?;
        }
    }
    Ok(())
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

/// The address of a target, as flows name it.
pub(crate) fn backend_of(target: &lb_common::packet::Target) -> SocketAddr {
    socket(target.address, target.port)
}
