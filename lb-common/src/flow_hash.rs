//! Which slot of a Maglev table is a flow's, and which ports it may have: the programs choose by it, and the agent
//! foretells it. Every host and every version gives a flow the same, so that it may come by another host at any moment.

use crate::{Be16, Be32, packet::MAGLEV_SLOTS, random_slot, slot::finish};

/// What a flow draws its slot and its ports from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowHash(u64);

/// Odd, with its bits evenly set: 2^64 divided by the golden ratio.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

impl FlowHash {
    /// The flow's slot of a Maglev table.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        random_slot((self.0 >> 32) as u32, MAGLEV_SLOTS).0
    }

    /// The `draw`th of the flow's integers below `count`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    pub const fn draw(self, draw: u32, count: u32) -> u32 {
        let mixed = finish(self.0.wrapping_add(STRIDE.wrapping_mul(draw as u64 + 1)));
        random_slot(mixed as u32, count).0
    }
}

/// Takes eight bytes into a state.
#[inline(always)]
const fn absorb(state: u64, word: u64) -> u64 {
    let state = (state ^ word).wrapping_mul(STRIDE);
    state ^ (state >> 32)
}

/// Two integers as they lie in a packet, the same on every machine.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    (u32::from_le(first) as u64) << 32 | u32::from_le(second) as u64
}

#[inline(always)]
const fn rest(client_port: Be16, vip_port: Be16, proto: u8) -> u64 {
    let (client, vip) = (
        u16::from_le(client_port.raw()),
        u16::from_le(vip_port.raw()),
    );
    (proto as u64) << 32 | (client as u64) << 16 | vip as u64
}

/// The hash of an IPv4 flow.
#[inline(always)]
pub const fn flow_hash4(
    client: Be32,
    client_port: Be16,
    vip: Be32,
    vip_port: Be16,
    proto: u8,
) -> FlowHash {
    let state = absorb(0, pair(client.raw(), vip.raw()));
    FlowHash(finish(state ^ rest(client_port, vip_port, proto)))
}

/// The hash of an IPv6 flow; the client's address as raw integers in network order, the VIP as the IPv4 one that
/// stands for it.
#[inline(always)]
pub const fn flow_hash6(
    client: [u32; 4],
    client_port: Be16,
    vip: Be32,
    vip_port: Be16,
    proto: u8,
) -> FlowHash {
    let state = absorb(0, pair(client[0], client[1]));
    let state = absorb(state, pair(client[2], client[3]));
    let state = absorb(state, u32::from_le(vip.raw()) as u64);
    FlowHash(finish(state ^ rest(client_port, vip_port, proto)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Be32 = Be32::from_host(0xc612_0102);

    fn v4(client: u32, port: u16) -> FlowHash {
        flow_hash4(
            Be32::from_host(client),
            Be16::from_host(port),
            VIP,
            Be16::from_host(80),
            6,
        )
    }

    fn v6(host: u32, port: u16) -> FlowHash {
        let client = [0x2001_0db8, 0, 0, host].map(u32::to_be);
        flow_hash6(client, Be16::from_host(port), VIP, Be16::from_host(80), 6)
    }

    /// Hosts of all versions must agree: if this fails, flows change their backends at an upgrade.
    #[test]
    fn the_slot_of_a_flow_is_the_same_for_ever() {
        let slots = [
            v4(0x0a00_0001, 40_000).slot(),
            v4(0x0a00_0001, 40_001).slot(),
            v4(0x0a00_0002, 40_000).slot(),
            v6(1, 40_000).slot(),
            v6(1, 40_001).slot(),
            v6(2, 40_000).slot(),
        ];
        assert_eq!(slots, [56432, 34685, 60085, 42544, 21352, 28682]);
        let draws = [0, 1, 2, 3].map(|draw| v4(1, 1).draw(draw, 28_232));
        assert_eq!(draws, [23628, 10263, 20411, 27935]);
    }

    #[test]
    fn flows_that_differ_little_spread_evenly() {
        let mut slots = [0_u32; 16];
        let mut draws = [0_u32; 16];
        for index in 0..16_000_u32 {
            let (client, port) = (0x0a00_0000 + index / 160, 32_768 + (index % 160) as u16);
            for hash in [v4(client, port), v6(client, port)] {
                slots[(hash.slot() * 16 / MAGLEV_SLOTS) as usize] += 1;
                draws[hash.draw(0, 16) as usize] += 1;
            }
        }
        for times in [slots, draws] {
            assert!(times.iter().all(|&n| n.abs_diff(2000) < 250), "{times:?}");
        }
    }

    #[test]
    fn every_part_of_a_flow_matters_and_draws_differ() {
        let of = |client, client_port, vip, vip_port, proto| {
            flow_hash4(
                Be32::from_host(client),
                Be16::from_host(client_port),
                Be32::from_host(vip),
                Be16::from_host(vip_port),
                proto,
            )
        };
        let flow = of(1, 2, 3, 4, 6);
        for other in [
            of(3, 2, 1, 4, 6),
            of(1, 4, 3, 2, 6),
            of(1, 2, 3, 4, 17),
            of(1, 2, 3, 5, 6),
        ] {
            assert_ne!(flow, other);
        }
        for word in 0..4 {
            let mut client = [0; 4];
            client[word] = 1;
            let hash = flow_hash6(client, Be16::from_host(2), VIP, Be16::from_host(4), 6);
            let zero = flow_hash6([0; 4], Be16::from_host(2), VIP, Be16::from_host(4), 6);
            assert_ne!(hash, zero, "{word}");
        }
        for draw in 1..8 {
            assert_ne!(flow.draw(0, u32::MAX), flow.draw(draw, u32::MAX));
        }
    }
}
