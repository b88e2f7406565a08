//! For what the programs are loaded.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    path::PathBuf,
};

use ipnet::{Ipv4Net, Ipv6Net};
use lb_common::packet::MAX_PACKET_BACKENDS;

use crate::Error;

/// The address that a backend sees when it is its own client: link-local, so that no network leads there.
pub const HAIRPIN4: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 77);

/// The same for IPv6: of the unique local ones, from a prefix that is reserved for this.
pub const HAIRPIN6: Ipv6Addr = Ipv6Addr::new(0xfd6c, 0x6200, 0x7061, 0x636b, 0, 0, 0, 0x4d);

/// Where and for what the programs are loaded.
#[derive(Clone, Debug)]
pub struct Config {
    /// The mounted bpffs; pins go to `lb/packet/` below it.
    pub bpffs: PathBuf,
    /// The VIP pool.
    pub pool: Ipv4Net,
    /// The pool of IPv6 VIPs, each with the host part of an IPv4 one; `None` serves no IPv6 VIP.
    pub pool6: Option<Ipv6Net>,
    /// The agent's own address, which lies in the pool and is never balanced.
    pub own: Ipv4Addr,
    /// This host's address towards backends of other hosts, for full NAT and tunnels; `None` serves neither.
    pub source4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source6: Option<Ipv6Addr>,
    /// Ports of `source4` and `source6` that full NAT may use. Nothing else on this host may.
    pub ports: RangeInclusive<u16>,
    /// Capacities.
    pub limits: Limits,
}

/// How much the maps have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Virtual endpoints: one for each VIP, port and protocol, family and scope. Each takes a quarter of a megabyte.
    pub services: u32,
    /// Backends.
    pub backends: u32,
    /// Flows of each family.
    pub flows: u32,
}

/// Seconds that a flow which nobody goes on with stays when the maps are nearly full, and until it is looked at.
const SHORTEST: u32 = 7;

impl Limits {
    /// New flows for each of so many CPUs and second that the maps take without an end: more of them only keep others out.
    pub fn new_flows(&self, cpus: usize) -> u32 {
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX).max(1);
        (self.flows / SHORTEST / cpus).max(1)
    }
}

/// The most virtual endpoints: their tables are 1 GiB.
const MOST_SERVICES: u32 = 4096;

impl Config {
    /// Says what of it cannot be.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        let Limits {
            services,
            backends,
            flows,
        } = self.limits;
        if !(1..=MOST_SERVICES).contains(&services) {
            return wrong(format!(
                "the packet path has room for 1 to {MOST_SERVICES} endpoints, not for {services}"
            ));
        }
        if !(1..=MAX_PACKET_BACKENDS).contains(&backends) {
            return wrong(format!(
                "the packet path has room for 1 to {MAX_PACKET_BACKENDS} backends, not for {backends}"
            ));
        }
        if flows == 0 {
            return wrong("the packet path needs room for at least one flow".to_owned());
        }
        if self.ports.is_empty() || *self.ports.start() == 0 {
            return wrong(format!(
                "{} to {} is no range of ports: write the lower one, which is at least 1, first",
                self.ports.start(),
                self.ports.end()
            ));
        }
        if !self.pool.contains(&self.own) {
            return wrong(format!(
                "the agent's own address {} is not in the pool {}",
                self.own, self.pool
            ));
        }
        for source in [self.source4.map(|it| self.pool.contains(&it)), {
            let pool6 = self.pool6;
            self.source6
                .map(|it| pool6.is_some_and(|pool| pool.contains(&it)))
        }]
        .into_iter()
        .flatten()
        {
            if source {
                return wrong(
                    "the source of full NAT lies in the pool of VIPs: use an address of the host"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// How many ports full NAT has.
    pub(crate) fn port_count(&self) -> u32 {
        u32::from(*self.ports.end()) - u32::from(*self.ports.start()) + 1
    }
}
