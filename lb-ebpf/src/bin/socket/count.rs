//! Figures.

use lb_common::{LATENCY_BUCKETS, Refusal};
use lb_ebpf::bucket;

use crate::{
    kernel::{add, add_u32},
    maps::{ACTIVE, COUNTERS, LATENCIES},
};

/// Counts a flow of a table that was given a backend.
#[inline(always)]
pub(crate) fn count(table: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(table) {
        // SAFETY: array values live as long as the map; the field is aligned and only changed by adds.
        unsafe { add(&raw mut (*counters).flows, 1) };
    }
}

/// Counts one that was refused.
#[inline(always)]
pub(crate) fn refuse(table: u32, reason: Refusal) {
    if let Some(counters) = COUNTERS.get_ptr_mut(table) {
        // SAFETY: as in `count`; the index is one of the four.
        unsafe { add(&raw mut (*counters).refused[(reason as usize) & 3], 1) };
    }
}

/// Counts a decision that could not be told.
#[inline(always)]
pub(crate) fn untold(table: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(table) {
        // SAFETY: as in `count`.
        unsafe { add(&raw mut (*counters).untold, 1) };
    }
}

/// Counts a flow that failed at the address `target`.
#[inline(always)]
pub(crate) fn fail(table: u32, target: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(table) {
        // SAFETY: as in `count`.
        unsafe { add(&raw mut (*counters).failed, 1) };
    }
    if let Some(latency) = LATENCIES.get_ptr_mut(target) {
        // SAFETY: as in `count`.
        unsafe { add(&raw mut (*latency).failed, 1) };
    }
}

/// Counts a handshake with the address `target`.
#[inline(always)]
pub(crate) fn established(target: u32, micros: u32) {
    let bucket = bucket(micros);
    if let Some(latency) = LATENCIES.get_ptr_mut(target) {
        // SAFETY: as in `count`; the bucket is below the number of them, which the verifier checks again.
        unsafe {
            add(&raw mut (*latency).micros, micros.into());
            if bucket < LATENCY_BUCKETS {
                add_u32(
                    (&raw mut (*latency).buckets)
                        .cast::<u32>()
                        .add(bucket as usize),
                    1,
                );
            }
        }
    }
}

/// Counts a flow as open.
#[inline(always)]
pub(crate) fn add_flow(index: u32) {
    if let Some(active) = ACTIVE.get_ptr_mut(index) {
        // SAFETY: as in `count`.
        unsafe { add(&raw mut (*active).flows, 1) };
    }
}

/// And no longer.
#[inline(always)]
pub(crate) fn remove_flow(index: u32) {
    if let Some(active) = ACTIVE.get_ptr_mut(index) {
        // SAFETY: as in `count`. Adding -1 wraps to a subtraction.
        unsafe { add(&raw mut (*active).flows, u64::MAX) };
    }
}
