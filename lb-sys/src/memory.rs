//! The allocator, which the agent's binary makes the global one.

/// Gives free memory back to the kernel now. The allocator does so by itself only while it is used, and an idle agent
/// uses it little.
pub fn give_back() {
    // SAFETY: callable at any time from any thread; it touches only memory that nobody has.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
