//! The sequence of backends that fills the slots of a service.

use std::net::SocketAddr;

use lb_common::SLOTS;

use lb_packet::maglev::{Member, Size, table_of};

/// The slots of Maglev's table. A member is its address, which is the same on every host.
pub(crate) fn by_hash(members: &[(SocketAddr, u16)]) -> Vec<SocketAddr> {
    let names: Vec<String> = members.iter().map(|(it, _)| it.to_string()).collect();
    let shares = names.iter().zip(members).map(|(name, (address, weight))| {
        let share = Member {
            identity: name.as_bytes(),
            weight: *weight,
        };
        (share, *address)
    });
    table_of(shares.collect(), Size::Sockets)
}

/// Each member as often as its weight says, spread as evenly as can be (smooth weighted round robin), in at
/// most [`SLOTS`] slots. Equal weights give every member one slot.
pub(super) fn sequence(members: &[(SocketAddr, u16)]) -> Vec<SocketAddr> {
    let weights: Vec<u64> = members
        .iter()
        .map(|&(_, weight)| u64::from(weight))
        .collect();
    let Some(divisor) = weights.iter().copied().reduce(greatest_common_divisor) else {
        return Vec::new();
    };
    let total: u64 = weights.iter().sum::<u64>() / divisor;
    let capacity = u64::from(SLOTS);
    let shares: Vec<u64> = if total <= capacity {
        weights.iter().map(|weight| weight / divisor).collect()
    } else {
        // One slot for everybody, the rest in proportion.
        let rest = capacity - weights.len() as u64;
        let sum: u64 = weights.iter().sum();
        weights
            .iter()
            .map(|weight| 1 + weight * rest / sum)
            .collect()
    };
    let total = i64::try_from(shares.iter().sum::<u64>()).unwrap_or(i64::MAX);
    let mut credit = vec![0_i64; shares.len()];
    let mut slots = Vec::new();
    for _ in 0..total {
        for (credit, share) in credit.iter_mut().zip(&shares) {
            *credit += i64::try_from(*share).unwrap_or(i64::MAX);
        }
        // The first of the richest: `max_by_key` would answer the last.
        let Some(next) = (0..credit.len()).rev().max_by_key(|&member| credit[member]) else {
            break;
        };
        credit[next] -= total;
        slots.push(members[next].0);
    }
    slots
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    #[track_caller]
    fn check(weights: &[u16], expect: &[u8]) {
        let members: Vec<_> = (1..).map(address).zip(weights.iter().copied()).collect();
        let expect: Vec<_> = expect.iter().copied().map(address).collect();
        assert_eq!(sequence(&members), expect);
    }

    #[test]
    fn equal_weights_give_each_member_one_slot() {
        check(&[7, 7, 7], &[1, 2, 3]);
    }

    #[test]
    fn a_heavier_member_is_spread_among_the_others() {
        check(&[2, 1, 1], &[1, 2, 3, 1]);
    }

    #[test]
    fn no_member_gives_no_slot() {
        check(&[], &[]);
    }

    /// How many slots each of the members with these weights gets.
    fn counts(weights: &[u16]) -> Vec<usize> {
        let members: Vec<_> = (1..).map(address).zip(weights.iter().copied()).collect();
        let slots = sequence(&members);
        let count = |of: &SocketAddr| slots.iter().filter(|it| *it == of).count();
        members.iter().map(|(address, _)| count(address)).collect()
    }

    #[test]
    fn weights_that_share_a_divisor_take_as_few_slots_as_their_proportions_need() {
        assert_eq!(counts(&[6000, 4000]), [3, 2]);
        assert_eq!(counts(&[5, 3]), [5, 3]);
    }

    #[test]
    fn weights_that_fit_are_kept_and_others_are_scaled_down_to_what_fits() {
        assert_eq!(counts(&[1023, 1]), [1023, 1]);
        // One slot for each, and the other 1022 in proportion.
        assert_eq!(counts(&[1024, 1]), [1 + 1021, 1]);
        assert_eq!(counts(&[60_000, 30_001]), [1 + 681, 1 + 340]);
        assert_eq!(counts(&[65_535, 65_535, 65_534]), [341, 341, 341]);
    }

    proptest! {
        #[test]
        fn every_member_gets_a_slot_and_the_half_never_overflows(weights in prop::collection::vec(1..=u16::MAX, 1..200)) {
            let members: Vec<_> = weights.iter().enumerate()
                .map(|(n, &weight)| (SocketAddr::from((Ipv4Addr::from(u32::try_from(n).unwrap()), 80)), weight))
                .collect();
            let slots = sequence(&members);
            prop_assert!(slots.len() <= SLOTS as usize);
            let used: BTreeSet<_> = slots.iter().collect();
            prop_assert_eq!(used.len(), members.len());
        }
    }
}
