//! Which slot of a table is a client's: the programs choose by it, and the agent foretells it.

/// A well-spread integer of a cookie: those of network namespaces follow one another.
#[inline(always)]
pub const fn mix(cookie: u64) -> u32 {
    (finish(cookie) >> 32) as u32
}

/// The finalizer of MurmurHash3's 64-bit variant, by Austin Appleby, who put it in the public domain.
#[inline(always)]
pub(crate) const fn finish(state: u64) -> u64 {
    let mut x = state;
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Maps a random integer to 0..count by its high bits: a multiplication instead of a division. The second is what
/// is left of it, a random integer again, good for one more slot: a call of the kernel's generator is dear.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the product is below count << 32, and its lower half is wanted"
)]
pub const fn random_slot(random: u32, count: u32) -> (u32, u32) {
    let product = random as u64 * count as u64;
    ((product >> 32) as u32, product as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_that_follow_one_another_spread_evenly() {
        let mut times = [0_u32; 16];
        for cookie in 0..16_000 {
            times[(mix(cookie) >> 28) as usize] += 1;
        }
        assert!(times.iter().all(|&n| n.abs_diff(1000) < 150), "{times:?}");
    }

    #[test]
    fn what_is_left_of_an_integer_is_good_for_one_more_slot() {
        assert_eq!(random_slot(0x8000_0000, 6), (3, 0));
        assert_eq!(random_slot(0xffff_ffff, 6), (5, 0xffff_fffa));
        let mut times = [0_u32; 16];
        for cookie in 0..16_000 {
            let (_, left) = random_slot(mix(cookie), 3);
            times[random_slot(left, 16).0 as usize] += 1;
        }
        assert!(times.iter().all(|&n| n.abs_diff(1000) < 150), "{times:?}");
    }

    /// Agents of all versions must agree: if this fails, clients change their backends at an upgrade.
    #[test]
    fn the_slot_of_a_client_is_the_same_for_ever() {
        let slots = [0, 1, 4107, u64::MAX].map(|cookie| random_slot(mix(cookie), 1021).0);
        assert_eq!(slots, [0, 719, 491, 401]);
    }
}
