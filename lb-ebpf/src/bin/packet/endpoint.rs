//! Which endpoint a packet means, and which backend its flow is given.

use core::hint::cold_path;

use lb_common::{
    ANY_PORT, FlowHash,
    packet::{Endpoint, EndpointKey, Fate, Target, endpoint_flag},
};

use crate::{
    family::{Ends as _, Family},
    kernel::settled,
    maps::{ENDPOINTS, MAGLEVS, SLOTS, TARGETS},
};

/// Finds the endpoint of a VIP and a port. One answers on every port or on named ones, never on both: which look-up
/// comes first is only a matter of speed, and most have names.
#[inline(always)]
pub(crate) fn find<F: Family>(ends: &F::Ends, scope: u8, endpoint: &mut Endpoint) -> bool {
    let mut key = EndpointKey {
        vip: ends.vip(),
        port: ends.vip_port(),
        proto: ends.proto(),
        scope,
    };
    if settled(|| ENDPOINTS.get_ptr(key), endpoint) {
        return true;
    }
    key.port = ANY_PORT;
    settled(|| ENDPOINTS.get_ptr(key), endpoint)
}

/// The backend that has the slot of the hash, and its target.
#[inline(always)]
pub(crate) fn pick(endpoint: &Endpoint, hash: FlowHash) -> Result<(u32, *const Target), Fate> {
    if endpoint.flags & endpoint_flag::EMPTY != 0 {
        cold_path();
        return Err(Fate::NoBackend);
    }
    let Some(table) = MAGLEVS.get_ptr(endpoint.table) else {
        return Err(Fate::NoBackend);
    };
    let slot = hash.slot();
    // The verifier wants it again.
    if slot >= SLOTS.load() {
        return Err(Fate::NoBackend);
    }
    // SAFETY: array values live as long as the map; the slot is below the number of them. The agent writes the idle table
    // only.
    let backend = unsafe { *(&raw const (*table).slots).cast::<u16>().add(slot as usize) };
    let target = TARGETS.get_ptr(backend.into());
    match target {
        Some(target) if is_taken(target) => Ok((backend.into(), target)),
        _ => Err(Fate::NoBackend),
    }
}

/// Whether somebody is there.
#[inline(always)]
pub(crate) fn is_taken(target: *const Target) -> bool {
    // SAFETY: array values live as long as the map.
    unsafe { (*target).port.raw() != 0 }
}

/// The target at the index `backend`, if it is still the one of this generation.
#[inline(always)]
pub(crate) fn target(backend: u32, generation: u32) -> Option<*const Target> {
    let target = TARGETS.get_ptr(backend)?;
    // SAFETY: array values live as long as the map.
    let same = unsafe { (*target).generation == generation } && is_taken(target);
    same.then_some(target)
}
