//! Figures.

use lb_common::packet::{Fate, Traffic};

use crate::maps::{FATES, SERVICE_TRAFFIC, TARGET_TRAFFIC};

/// Adds to a figure of this CPU. Programs of this object do not interrupt each other: see the maps.
///
/// # Safety
/// `figure` is aligned and in the value of a per-CPU map.
#[inline(always)]
unsafe fn add(figure: *mut u64, value: u64) {
    // SAFETY: the caller's promise. Volatile, so that it stays one load and one store.
    unsafe { figure.write_volatile(figure.read_volatile().wrapping_add(value)) };
}

/// Counts a packet by what became of it.
#[inline(always)]
pub(crate) fn fate(fate: Fate) {
    place(fate as u32);
}

/// Counts at one of the places of `FATES` that are no fate: an [`oddity`](lb_common::packet::oddity).
#[inline(always)]
pub(crate) fn place(index: u32) {
    if let Some(count) = FATES.get_ptr_mut(index) {
        // SAFETY: array values live as long as the map.
        unsafe { add(count, 1) };
    }
}

/// Counts a packet of `bytes` bytes that went towards a backend.
#[inline(always)]
pub(crate) fn traffic(service: u32, backend: u32, bytes: u32) {
    let add_to = |traffic: *mut Traffic| {
        // SAFETY: array values live as long as the map.
        unsafe {
            add(&raw mut (*traffic).packets, 1);
            add(&raw mut (*traffic).bytes, bytes.into());
        }
    };
    if let Some(traffic) = SERVICE_TRAFFIC.get_ptr_mut(service) {
        add_to(traffic);
    }
    if let Some(traffic) = TARGET_TRAFFIC.get_ptr_mut(backend) {
        add_to(traffic);
    }
}

/// Counts a flow that began.
#[inline(always)]
pub(crate) fn began(service: u32, backend: u32) {
    if let Some(traffic) = SERVICE_TRAFFIC.get_ptr_mut(service) {
        // SAFETY: as in `traffic`.
        unsafe { add(&raw mut (*traffic).flows, 1) };
    }
    if let Some(traffic) = TARGET_TRAFFIC.get_ptr_mut(backend) {
        // SAFETY: as in `traffic`.
        unsafe { add(&raw mut (*traffic).flows, 1) };
    }
}

/// Counts a packet of a service that was dropped.
#[inline(always)]
pub(crate) fn dropped(service: u32) {
    if let Some(traffic) = SERVICE_TRAFFIC.get_ptr_mut(service) {
        // SAFETY: as in `traffic`.
        unsafe { add(&raw mut (*traffic).dropped, 1) };
    }
}
