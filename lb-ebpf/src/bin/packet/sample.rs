//! Packets that are told as they came, with what became of them.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    helpers::generated::{bpf_get_prandom_u32, bpf_skb_load_bytes},
    programs::TcContext,
};
use lb_common::packet::{Endpoint, Fate, SAMPLE_BYTES, Sample, endpoint_flag, oddity};

use crate::{
    count::place,
    endpoint::find,
    family::Family,
    kernel::now,
    maps::{SAMPLES, SETTINGS},
};

/// Where a packet can be read from.
pub(crate) trait Source {
    /// Interface index of the device that it came by, or leaves by.
    fn device(&self) -> u32;
    /// Its length with the link's head.
    fn length(&self) -> u32;
    /// Copies its first `count` bytes, from 1 to [`SAMPLE_BYTES`], to `to`; whether that was possible.
    ///
    /// # Safety
    /// There are as many at `to`.
    unsafe fn copy(&self, to: *mut c_void, count: u32) -> bool;
}

impl Source for TcContext {
    #[inline(always)]
    fn device(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    unsafe fn copy(&self, to: *mut c_void, count: u32) -> bool {
        // SAFETY: the kernel passes a valid context; the caller's promise.
        unsafe { bpf_skb_load_bytes(self.skb.skb.cast(), 0, to, count) == 0 }
    }
}

/// Tells one in so many of the packets that concern VIPs. To be called before the packet is changed.
#[inline(always)]
pub(crate) fn some(source: &impl Source, fate: Fate) {
    let every = SETTINGS.get(0).map_or(0, |settings| settings.sample);
    if every != 0 && is_drawn(every) {
        tell(source, fate);
    }
}

/// The same for a packet of a client; all of them where the endpoint wants that, of which `trace` says what is known already.
#[inline(always)]
pub(crate) fn some_of<F: Family>(
    source: &impl Source,
    fate: Fate,
    ends: &F::Ends,
    scope: u8,
    trace: bool,
) {
    let Some(settings) = SETTINGS.get(0) else {
        return;
    };
    if settings.sample | settings.traced == 0 {
        return;
    }
    if trace
        || (settings.traced != 0 && is_traced::<F>(ends, F::SCOPE | scope))
        || (settings.sample != 0 && is_drawn(settings.sample))
    {
        tell(source, fate);
    }
}

/// Of the number of kept bytes less one.
const KEPT_MASK: u64 = SAMPLE_BYTES as u64 - 1;
const _: () = assert!(SAMPLE_BYTES.is_power_of_two());

#[inline(always)]
fn is_drawn(every: u32) -> bool {
    // SAFETY: a plain helper call.
    unsafe { bpf_get_prandom_u32() }.is_multiple_of(every)
}

#[inline(never)]
fn is_traced<F: Family>(ends: &F::Ends, scope: u8) -> bool {
    let mut endpoint = Endpoint::default();
    find::<F>(ends, scope, &mut endpoint) && endpoint.flags & endpoint_flag::TRACE != 0
}

#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "no sample holds as much")]
fn tell(source: &impl Source, fate: Fate) {
    let Some(mut entry) = SAMPLES.reserve(0) else {
        // Whoever reads too slowly misses some, and is told how many.
        place(oddity::UNTOLD);
        return;
    };
    let sample: *mut Sample = entry.as_mut_ptr();
    let length = source.length();
    let mut kept = u64::from(length.min(SAMPLE_BYTES as u32));
    // To be bounded below by a mask, which the compiler would drop if it saw what this is.
    // SAFETY: it changes nothing.
    unsafe { asm!("{0} = {0}", inout(reg) kept, options(pure, nomem, nostack)) };
    // SAFETY: the ring buffer gave as many bytes as a sample has; what is not written has bytes of
    // earlier samples, or zeros.
    let copied = unsafe {
        (*sample).time_ns = now();
        (*sample).device = source.device();
        (*sample).length = length;
        (*sample).kept = kept as u32;
        (*sample).fate = fate as u32;
        // Nobody reads what lies behind the kept bytes, and zeroing it would be a loop that the verifier follows each time.
        let bytes = (&raw mut (*sample).bytes).cast();
        // Of a number that was compared, less one, the verifier of Linux 6.1 does not know that it is bounded; it knows it of
        // one that was masked. An empty packet is asked for more than it has, and not copied.
        source.copy(bytes, (kept.wrapping_sub(1) & KEPT_MASK) as u32 + 1)
    };
    if copied {
        entry.submit(0);
    } else {
        entry.discard(0);
        place(oddity::UNTOLD);
    }
}
