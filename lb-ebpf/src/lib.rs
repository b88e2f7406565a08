//! The pure part of the kernel programs: what is a VIP, which backend a flow is given, and what becomes of a packet.
//!
//! Nothing here names an aya type or touches memory that the kernel shares; [`Slots`] is what the
//! programs supply from their maps, and the tests from a model.
#![cfg_attr(not(test), no_std)]
// For words of packets.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(all(fuzzing, not(test)))]
extern crate std;

mod affinity;
mod clock;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod latency;
pub mod packet;
mod select;
mod vip;

pub use affinity::Seconds;
pub use clock::whole_seconds;
pub use latency::bucket;
pub use select::{Load, Slots, less_loaded, select, unsuspected_after};
pub use vip::{MAPPED_HIGH, Pools};

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
    fn a_mark_ends_by_itself_and_no_mark_reads_no_clock() {
        assert!(suspected(11, || 10));
        assert!(!suspected(10, || 10));
        assert!(!suspected(0, || panic!("the clock was read")));
    }
}
