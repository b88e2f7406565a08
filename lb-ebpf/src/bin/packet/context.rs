//! The context of an XDP program.

use core::{arch::asm, ffi::c_void, mem::offset_of};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{
        bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
    },
};

use lb_ebpf::packet::{Bytes as _, opaque};

use crate::{memory::Memory, sample::Source};

/// What the kernel passes, valid while the program runs.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Ctx(*mut xdp_md);

const _: () = assert!(
    offset_of!(xdp_md, data) == 0
        && offset_of!(xdp_md, data_end) == 4
        && offset_of!(xdp_md, data_meta) == 8
);

impl Ctx {
    #[inline(always)]
    pub(crate) const fn new(raw: *mut xdp_md) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub(crate) const fn raw(self) -> *mut xdp_md {
        self.0
    }

    /// The packet's memory.
    #[inline(always)]
    pub(crate) fn memory(self) -> Memory {
        Memory::new(self.word::<0>(), self.word::<4>())
    }

    /// What lies before the packet, once there is something.
    #[inline(always)]
    pub(crate) fn metadata(self) -> Memory {
        Memory::new(self.word::<8>(), self.word::<0>())
    }

    /// One of the pointers of the context, which are four bytes there and eight for who reads them: the compiler must not
    /// cut off what the kernel adds.
    #[inline(always)]
    fn word<const AT: usize>(self) -> usize {
        let word: usize;
        // SAFETY: the kernel passes a valid context.
        unsafe {
            asm!(
                "{word} = *(u32 *)({context} + {at})",
                word = lateout(reg) word,
                context = in(reg) self.0,
                at = const AT,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        word
    }

    /// Interface index of the device that the packet came by.
    #[inline(always)]
    pub(crate) fn device(self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// The same place, of which the verifier forgets which of the three it is that a head of IP may begin at: it would look at all
    /// that follows for each. No device has so many queues that it changes anything.
    #[inline(always)]
    pub(crate) fn some_place(self, network: usize) -> usize {
        // SAFETY: the kernel passes a valid context.
        let queue = unsafe { (*self.0).rx_queue_index };
        opaque(network ^ (queue >> 27) as usize) & 31
    }

    /// Whether the frame is for several hosts.
    #[inline(always)]
    pub(crate) fn is_for_group(self) -> bool {
        let memory = self.memory();
        memory.window::<1>(0).is_some_and(|first| first[0] & 1 != 0)
    }

    /// Gives the frame `bytes` more at its beginning, or takes some; whether that was possible.
    #[inline(always)]
    pub(crate) fn grow_head(self, bytes: isize) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_xdp_adjust_head(self.0, short(-bytes)) == 0 }
    }

    /// Gives the frame `bytes` more at its end, or takes some; whether that was possible.
    #[inline(always)]
    pub(crate) fn grow_tail(self, bytes: isize) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_xdp_adjust_tail(self.0, short(bytes)) == 0 }
    }

    /// Makes room for `bytes` bytes before the packet; whether that was possible.
    #[inline(always)]
    pub(crate) fn grow_metadata(self, bytes: isize) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_xdp_adjust_meta(self.0, short(-bytes)) == 0 }
    }
}

/// A length as helpers of the kernel take it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "frames are short")]
const fn short(bytes: isize) -> i32 {
    bytes as i32
}

impl Source for Ctx {
    #[inline(always)]
    fn device(&self) -> u32 {
        Self::device(*self)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a frame is shorter")]
    fn length(&self) -> u32 {
        self.memory().length() as u32
    }

    #[inline(always)]
    unsafe fn copy(&self, to: *mut c_void, count: u32) -> bool {
        // SAFETY: the kernel passes a valid context; the caller's promise.
        unsafe { bpf_xdp_load_bytes(self.0, 0, to, count) == 0 }
    }
}
