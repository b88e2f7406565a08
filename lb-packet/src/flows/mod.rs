//! The flows that the programs have written down: listing, flushing, and the collection of those that are over.
//!
//! A flow has two entries: that of its client's side may be evicted by the kernel, that of the answers never is, so it
//! has to be collected here. What is removed is removed from the client's side first: answers without an entry would
//! reach the client from an address that it never spoke to.

mod age;
mod census;
mod collect;
mod entry;
mod list;
mod maps;

use std::{
    collections::HashMap as Table,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::Ipv6Net;
use lb_common::{
    Be32,
    packet::{Flow, Way},
};

pub(crate) use self::entry::{Ends, Peer, V4, V6};
pub use self::{
    age::Pressure,
    census::Census,
    collect::{Collected, Fill},
    list::{Filter, FlowEntry, Sight},
};
use self::{collect::Collection, list::List, maps::Maps};
use crate::{
    Error, HAIRPIN4, HAIRPIN6, Programs, Publisher,
    address::{address4, socket},
    publisher::Tables,
};

/// The maps of flows of both families.
pub struct Flows {
    v4: Maps<V4>,
    v6: Maps<V6>,
    /// Who is in which slot.
    tables: Tables,
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

impl Flows {
    /// Opens the maps.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(programs: &mut Programs) -> Result<Self, Error> {
        Ok(Self {
            v4: Maps::open(programs)?,
            v6: Maps::open(programs)?,
            tables: Tables::open(programs)?,
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

/// The address of a target, as flows name it.
pub(crate) fn backend_of(target: &lb_common::packet::Target) -> SocketAddr {
    socket(target.address, target.port)
}
