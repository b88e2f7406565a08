//! One network segment: a bridge with a Consul, hosts with an agent each, and a client with none.

mod host;
mod segment;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use lb_testkit::Process;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub(crate) use self::{host::Host, segment::Segment};
use crate::wire::Mac;

/// How long a test waits for what must come.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
/// Of a session here. Consul takes so little because it is told to; with less, a busy machine loses sessions that nobody took.
pub(crate) const TTL: Duration = Duration::from_secs(4);
/// Consul ends a session within twice its time, and gives its lock to nobody for a second; the rest is for a busy machine.
pub(crate) const FOLLOWS: Duration = Duration::from_secs(2 * 4 + 1 + 6);

const CONSUL: &str = "10.77.0.1:8500";

trait Signalled {
    fn signal(&self, signal: Signal);
}

impl Signalled for Process {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.id()).unwrap());
        kill(pid, signal).unwrap();
    }
}

fn mac(text: &str) -> Mac {
    let bytes = text
        .split(':')
        .map(|it| u8::from_str_radix(it, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

/// The twin of a VIP in the usual pools.
pub(crate) fn twin(vip: Ipv4Addr) -> Ipv6Addr {
    let host = u128::from(u32::from(vip) - 0xc612_0000);
    let pool: Ipv6Addr = "fd62:6c62:76:1::".parse().unwrap();
    Ipv6Addr::from_bits(pool.to_bits() | host)
}
