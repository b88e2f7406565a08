//! The port that a backend sees, and whose it is.

use lb_common::{Be16, Be32, FlowHash};

/// Most ports that are tried for one flow.
pub const PROBES: u32 = 8;

/// The ports that this host sends from in the name of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first one.
    pub first: u16,
    /// How many; at least 1.
    pub count: u16,
}

impl Ports {
    /// The port that a flow tries after `probe` others. Not the next one up: where many ports are taken, they lie together.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is below `count`")]
    pub const fn probe(self, hash: FlowHash, probe: u32) -> Be16 {
        let offset = hash.draw(probe, self.count as u32) as u16;
        Be16::from_host(self.first.wrapping_add(offset))
    }

    /// Whether a port is one of them.
    #[inline(always)]
    pub const fn holds(self, port: Be16) -> bool {
        port.host().wrapping_sub(self.first) < self.count
    }
}

/// An IPv4 address in the form of [`lb_common::packet::Reply::client`]: `::ffff:a.b.c.d`.
#[inline(always)]
pub const fn mapped(address: Be32) -> [u32; 4] {
    let [first, second, third] = crate::MAPPED_HIGH;
    [first, second, third, address.raw()]
}

#[cfg(test)]
mod tests {
    use lb_common::flow_hash4;
    use proptest::prelude::*;

    use super::*;
    use crate::packet::samples::address;

    fn hash(client_port: u16) -> FlowHash {
        let (client, vip) = (Be32::from_host(0x0a00_0001), Be32::from_host(0xc612_0102));
        flow_hash4(
            client,
            Be16::from_host(client_port),
            vip,
            Be16::from_host(80),
            6,
        )
    }

    proptest! {
        #[test]
        fn a_probe_is_a_port_of_the_pool(
            first in 1..=u16::MAX, count in 1..=u16::MAX, port: u16, probe in 0..PROBES,
        ) {
            let count = count.min(u16::MAX - first + 1).max(1);
            let ports = Ports { first, count };
            let probed = ports.probe(hash(port), probe);
            prop_assert!(ports.holds(probed));
            prop_assert!((first..=first + (count - 1)).contains(&probed.host()));
        }
    }

    #[test]
    fn a_pool_ends_at_its_ends() {
        let ports = Ports {
            first: 61_000,
            count: 4_536,
        };
        for (port, inside) in [(60_999, false), (61_000, true), (65_535, true), (0, false)] {
            assert_eq!(ports.holds(Be16::from_host(port)), inside, "{port}");
        }
    }

    #[test]
    fn an_ipv4_client_is_written_as_an_ipv6_one() {
        let [.., client] = address("10.1.2.3");
        assert_eq!(mapped(Be32::from_raw(client)), address("::ffff:10.1.2.3"));
    }

    #[test]
    fn a_pool_that_is_half_full_has_a_port_for_nearly_every_flow() {
        let ports = Ports {
            first: 1024,
            count: 4096,
        };
        let mut taken = vec![false; 1 << 16];
        let mut refused = 0;
        for client_port in 0..2048 {
            let hash = hash(client_port);
            let port = (0..PROBES)
                .map(|probe| usize::from(ports.probe(hash, probe).host()))
                .find(|&port| !taken[port]);
            match port {
                Some(port) => taken[port] = true,
                None => refused += 1,
            }
        }
        // At the end it is 1 in 256.
        assert!(refused <= 8, "{refused}");
    }
}
