//! The pure part of the kernel programs: which backend a connect is given.
//!
//! Nothing here names an aya type or touches memory that the kernel shares; [`Slots`] is what the
//! programs supply from their maps, and the tests from a model.
#![cfg_attr(not(test), no_std)]

mod select;

pub use select::{Load, Slots, less_loaded, random_slot, select};

/// Whether `address` lies in the pool. All three are raw network-order integers.
#[inline(always)]
pub const fn in_pool(address: u32, prefix: u32, mask: u32) -> bool {
    address & mask == prefix
}

/// Whether a mark that lasts until `until_ns` still counts at the moment that `now_ns` tells. The clock
/// is only read when there is a mark.
#[inline(always)]
pub fn suspected(until_ns: u64, now_ns: impl FnOnce() -> u64) -> bool {
    until_ns != 0 && until_ns > now_ns()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_pool_by_its_prefix_alone() {
        let pool = |text: &str| u32::from(text.parse::<std::net::Ipv4Addr>().unwrap()).to_be();
        let (prefix, mask) = (pool("198.18.0.0"), pool("255.255.0.0"));
        for (address, inside) in [
            ("198.18.0.0", true),
            ("198.18.255.255", true),
            ("198.19.0.0", false),
            ("198.17.255.255", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(in_pool(pool(address), prefix, mask), inside, "{address}");
        }
    }

    #[test]
    fn a_mark_ends_by_itself_and_no_mark_reads_no_clock() {
        assert!(suspected(11, || 10));
        assert!(!suspected(10, || 10));
        assert!(!suspected(0, || panic!("the clock was read")));
    }
}
