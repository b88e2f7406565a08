//! What every object needs of the kernel and aya-ebpf lacks: atomics and the storage of any socket.

use core::{
    ffi::c_void,
    hint::cold_path,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg},
    ptr,
};

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    btf_maps::SkStorage,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_sk_storage_get},
};

/// Adds `value` to the integer at `target`, across CPUs.
///
/// # Safety
/// `target` is aligned, in a map value that lives, and changed by atomics only.
#[inline(always)]
pub unsafe fn add(target: *mut u64, value: u64) {
    // SAFETY: the caller's promise. The result is unused, so this is one locked add.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(target, value) };
}

/// The same for an integer of four bytes.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn add_u32(target: *mut u32, value: u32) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(target, value) };
}

/// Adds `value` to the integer at `target`, across CPUs, and answers what it was.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn fetch_add(target: *mut u64, value: u64) -> u64 {
    // AcqRel: with Relaxed and a used result the back end emits an add that fetches nothing.
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(target, value) }
}

/// Puts `value` at `target`, across CPUs, and answers what was there.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn exchange(target: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::AcqRel }>(target, value) }
}

/// Puts `value` at `target`, across CPUs, if `before` is there; whether it was.
///
/// # Safety
/// `target` is aligned and in a map value that lives.
#[inline(always)]
pub unsafe fn replaced(target: *mut u32, before: u32, value: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::AcqRel }, { AtomicOrdering::Acquire }>(
            target, before, value,
        )
        .1
    }
}

/// The value that `map` holds for the socket `sk`, which may be null; null when there is none.
#[inline(always)]
pub fn stored<T>(map: &SkStorage<T>, sk: *mut c_void) -> *mut T {
    if sk.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the verifier knows `sk` as a socket; without the create flag nothing is made.
    unsafe { bpf_sk_storage_get(ptr::from_ref(map).cast_mut().cast(), sk, ptr::null_mut(), 0) }
        .cast()
}

/// The same, made of zeroes if there is none; null when there is no memory.
#[inline(always)]
pub fn stored_or_new<T>(map: &SkStorage<T>, sk: *mut c_void) -> *mut T {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as above; a null initial value asks for zeroes.
    unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(map).cast_mut().cast(),
            sk,
            ptr::null_mut(),
            create,
        )
    }
    .cast()
}

/// Puts the value of a hash map that `look` finds into `value`, whole; whether there is one. The kernel gives the element of a
/// replaced or removed entry to another one at once, even while a program reads it: what is found after the read at the same
/// place was there all the time.
///
/// Not an `Option`: LLVM would read what is in none, which the verifier refuses.
#[inline(always)]
pub fn settled<V: Copy>(look: impl Fn() -> Option<*const V>, value: &mut V) -> bool {
    let Some(found) = look() else {
        return false;
    };
    // SAFETY: elements live as long as the map; any bytes are a value of the integers that it consists of.
    *value = unsafe { *found };
    let again = look();
    if again == Some(found) {
        return true;
    }
    cold_path();
    // It has just been written, and a second time within nanoseconds is out of the question.
    let Some(again) = again else {
        return false;
    };
    // SAFETY: as above.
    *value = unsafe { *again };
    true
}

/// Nanoseconds of the coarse monotonic clock: a read costs a few instructions, not 40 ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a plain helper call.
    unsafe { bpf_ktime_get_coarse_ns() }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
