use std::collections::BTreeMap;

use proptest::{collection, prelude::*};

use super::*;

/// Identities as they are: the bytes of an address and a port.
fn identities(count: u16) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            vec![10, 1, high, low, 0x1f, 0x90]
        })
        .collect()
}

fn weighted<'m>(identities: &'m [Vec<u8>], weights: &[u16]) -> Vec<Member<'m>> {
    let both = identities.iter().zip(weights);
    both.map(|(identity, &weight)| Member { identity, weight })
        .collect()
}

fn equal(identities: &[Vec<u8>]) -> Vec<Member<'_>> {
    weighted(identities, &vec![1; identities.len()])
}

/// The identity in each slot.
fn owners<'m>(members: &[Member<'m>], size: Size) -> Vec<&'m [u8]> {
    let table = table(members, size);
    table
        .iter()
        .map(|&it| members[it as usize].identity)
        .collect()
}

/// Slots by member.
fn counts(members: &[Member<'_>], size: Size) -> Vec<usize> {
    let mut counts = vec![0; members.len()];
    for member in table(members, size) {
        counts[member as usize] += 1;
    }
    counts
}

#[test]
fn the_sizes_are_prime_and_the_small_one_fits_the_maps() {
    for size in [Size::Sockets, Size::Packets] {
        let slots = size.slots();
        assert!((2..slots).all(|divisor| slots % divisor != 0), "{slots}");
    }
    assert!(Size::Sockets.slots() <= lb_common::SLOTS as usize);
}

/// Agents of all versions must agree: if this fails, clients change their backends at an upgrade.
#[test]
fn the_table_is_the_same_for_ever() {
    let identities = identities(7);
    let members = weighted(&identities, &[1, 1, 2, 3, 0, 100, 50]);
    let digest = |size| {
        let slots = table(&members, size);
        let bytes: Vec<u8> = slots.iter().map(|&it| it.try_into().unwrap()).collect();
        XxHash64::oneshot(0, &bytes)
    };
    assert_eq!(digest(Size::Sockets), 7_274_263_284_405_976_473);
    assert_eq!(digest(Size::Packets), 8_373_542_858_675_898_631);
}

#[test]
fn nobody_gives_no_table_and_one_has_all_of_it() {
    assert!(table(&[], Size::Sockets).is_empty());
    let identities = identities(2);
    assert!(table(&weighted(&identities, &[0, 0]), Size::Sockets).is_empty());
    let alone = table(&weighted(&identities, &[0, 9]), Size::Sockets);
    assert_eq!(alone, [1; 1021]);
}

#[test]
fn equal_members_have_equal_shares() {
    for (count, size) in [
        (3, Size::Sockets),
        (50, Size::Sockets),
        (100, Size::Packets),
    ] {
        let identities = identities(count);
        let counts = counts(&equal(&identities), size);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 1, "{count} members: {least} to {most}");
    }
}

#[test]
fn shares_follow_the_weights_to_within_a_percent() {
    let weights = [1, 2, 3, 10, 50, 34];
    let identities = identities(6);
    let counts = counts(&weighted(&identities, &weights), Size::Packets);
    for (count, weight) in counts.iter().zip(weights) {
        let share = *count as f64 / 65_537.0;
        let expect = f64::from(weight) / 100.0;
        let off = (share - expect).abs() / expect;
        assert!(off < 0.01, "{weight}: {share}");
    }
}

#[test]
fn even_the_lightest_has_a_slot() {
    let identities = identities(20);
    let mut weights = [1; 20];
    weights[7] = u16::MAX;
    let counts = counts(&weighted(&identities, &weights), Size::Sockets);
    for (member, &count) in counts.iter().enumerate() {
        assert_eq!(count, if member == 7 { 1021 - 19 } else { 1 });
    }
}

#[test]
fn more_members_than_slots_leave_the_last_without() {
    let identities = identities(1100);
    let counts = counts(&equal(&identities), Size::Sockets);
    assert!(counts[..1021].iter().all(|&count| count == 1));
    assert!(counts[1021..].iter().all(|&count| count == 0));
}

/// In a slot that nobody has yet.
const NOBODY: u32 = u32::MAX;

/// As the paper has it: each looks at one slot after the other.
fn plain<const SLOTS: usize>(members: &[Member<'_>]) -> Vec<u32> {
    let mut walks: Vec<Walk<u32, SLOTS>> = (0..)
        .zip(members)
        .filter(|(_, member)| member.weight > 0)
        .map(|(index, member)| Walk::new(index, member))
        .collect();
    walks.sort_by_key(|walk| members[walk.sign as usize].identity);
    let heaviest = walks.iter().map(|walk| walk.weight).max().unwrap();
    for walk in &mut walks {
        walk.credit = heaviest;
    }
    let mut slots = vec![NOBODY; SLOTS];
    let mut left = SLOTS;
    loop {
        for walk in &mut walks {
            if walk.credit >= heaviest {
                walk.credit -= heaviest;
                while slots[walk.at] != NOBODY {
                    walk.at = (walk.at + walk.skip) % SLOTS;
                }
                slots[walk.at] = walk.sign;
                left -= 1;
                if left == 0 {
                    return slots;
                }
            }
            walk.credit += walk.weight;
        }
    }
}

#[test]
fn the_table_is_as_the_paper_has_it() {
    for count in [1, 2, 3, 10, 40, 300] {
        let identities = identities(count);
        let mut weights = vec![1; count.into()];
        for uneven in [1, 7] {
            weights[usize::from(count) / 2] = uneven;
            let members = weighted(&identities, &weights);
            let sockets = plain::<SOCKETS>(&members);
            assert_eq!(table(&members, Size::Sockets), sockets, "{count}");
            let packets = plain::<PACKETS>(&members);
            assert!(table(&members, Size::Packets) == packets, "{count}");
        }
    }
}

/// The share of the slots that one leaves to others and that changed hands all the same, when it goes; the same
/// slots change back when it comes.
fn disruption(count: u16, gone: usize, size: Size) -> f64 {
    let identities = identities(count);
    let all = equal(&identities);
    let mut rest = all.clone();
    let gone = rest.remove(gone).identity;
    let (before, after) = (owners(&all, size), owners(&rest, size));
    let kept = before.iter().zip(&after).filter(|(old, _)| **old != gone);
    let moved = kept.filter(|(old, new)| old != new).count();
    moved as f64 / size.slots() as f64
}

#[test]
fn a_member_that_comes_or_goes_moves_hardly_more_than_its_own_share() {
    for (count, gone, size, limit) in [
        (10, 3, Size::Packets, 0.01),
        (100, 0, Size::Packets, 0.01),
        (100, 99, Size::Packets, 0.01),
        // Fewer slots for each member: the last free ones move more easily.
        (10, 3, Size::Sockets, 0.05),
        (50, 3, Size::Sockets, 0.07),
    ] {
        let moved = disruption(count, gone, size);
        assert!(moved < limit, "{count} members: {moved}");
    }
}

proptest! {
    #[test]
    fn the_order_of_the_list_does_not_matter(
        all in collection::btree_map(any::<[u8; 6]>(), 0..500_u16, 1..60).prop_flat_map(|all| {
            let all: Vec<_> = all.into_iter().collect();
            (Just(all.clone()), Just(all).prop_shuffle())
        }),
    ) {
        let members = |list: &'_ [([u8; 6], u16)]| -> Vec<(Vec<u8>, u16)> {
            list.iter().map(|(identity, weight)| (identity.to_vec(), *weight)).collect()
        };
        let (one, other) = (members(&all.0), members(&all.1));
        let owners = |list: &[(Vec<u8>, u16)]| -> Vec<Vec<u8>> {
            let members: Vec<_> = list.iter().map(|(identity, weight)| Member { identity, weight: *weight }).collect();
            owners(&members, Size::Sockets).into_iter().map(<[u8]>::to_vec).collect()
        };
        prop_assert_eq!(owners(&one), owners(&other));
    }

    #[test]
    fn every_slot_is_taken_and_by_everybody_with_a_weight(weights in collection::vec(any::<u16>(), 1..200)) {
        let identities = identities(weights.len().try_into().unwrap());
        let members = weighted(&identities, &weights);
        let mut slots: BTreeMap<u32, usize> = BTreeMap::new();
        let table = table(&members, Size::Sockets);
        for &member in &table {
            *slots.entry(member).or_default() += 1;
        }
        let weighty = weights.iter().filter(|&&weight| weight > 0).count();
        prop_assert_eq!(slots.len(), weighty);
        prop_assert!(slots.keys().all(|&member| weights[member as usize] > 0));
        prop_assert_eq!(table.len(), if weighty == 0 { 0 } else { 1021 });
    }

    #[test]
    fn weights_in_one_proportion_give_one_table(
        weights in collection::vec(0..1000_u16, 1..30), times in 1..60_u16,
    ) {
        let identities = identities(30);
        let scaled: Vec<u16> = weights.iter().map(|weight| weight * times).collect();
        prop_assert_eq!(
            table(&weighted(&identities, &weights), Size::Sockets),
            table(&weighted(&identities, &scaled), Size::Sockets)
        );
    }

    #[test]
    fn a_heavier_member_has_no_fewer_slots(weights in collection::vec(1..1000_u16, 2..30)) {
        let identities = identities(30);
        let counts = counts(&weighted(&identities, &weights), Size::Sockets);
        for (one, other) in (0..weights.len()).flat_map(|it| (0..weights.len()).map(move |other| (it, other))) {
            // The last round may end between the two.
            if weights[one] >= weights[other] {
                prop_assert!(counts[one] + 1 >= counts[other]);
            }
        }
    }
}
