//! The allocator, which the agent's binary makes the global one.

use std::time::Duration;

/// Gives free memory back to the kernel now. The allocator does so by itself only while it is used, and an idle agent
/// uses it little.
pub fn give_back() {
    // SAFETY: callable at any time from any thread; it touches only memory that nobody has.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Gives memory back to the kernel from now on as soon as it is free, not a while later. The allocator would keep what a
/// large catalog took on its way, which is as much again as what stays of it.
pub fn keep_nothing() {
    // SAFETY: callable at any time from any thread; it sets one number that the allocator reads.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) };
}

/// Gives memory back to the kernel from now on once it has been free for so long: who soon needs it again does not have to
/// ask the kernel for it page by page.
pub fn keep_for(time: Duration) {
    let milliseconds = time.as_millis().try_into().unwrap_or(i32::MAX);
    // SAFETY: as in [`keep_nothing`].
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds.into()) };
}

/// `mi_option_purge_delay` of `mi_option_e` in the allocator's `mimalloc.h` (versions 2 and 3), which the crate does not
/// name: milliseconds.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
