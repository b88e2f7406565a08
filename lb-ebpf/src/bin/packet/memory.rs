//! The bytes of a packet where they lie.

use core::arch::asm;

use lb_ebpf::packet::Bytes;

/// A packet's memory, from the link's head on; of one that is in parts, the first. It is void after every helper that
/// changes the packet.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    start: usize,
    end: usize,
}

impl Memory {
    /// What lies from `start` to `end`, which are a context's.
    #[inline(always)]
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// Where `N` bytes from `at` on begin, if they lie inside.
    #[inline(always)]
    fn at<const N: usize>(self, at: usize) -> Option<usize> {
        let mut first = self.start + at;
        // The verifier knows as checked what is compared, and not what is computed again from the same parts.
        // An instruction there must be: the kernel refuses two lines of source at one.
        // SAFETY: it changes nothing.
        unsafe { asm!("{0} = {0}", inout(reg) first, options(pure, nomem, nostack)) };
        (first + N <= self.end).then_some(first)
    }
}

impl Bytes for Memory {
    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        let first = self.at::<N>(at)? as *const [u8; N];
        // SAFETY: inside the packet's memory, which the verifier checks again.
        Some(unsafe { &*first })
    }

    #[inline(always)]
    fn window_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        let first = self.at::<N>(at)? as *mut [u8; N];
        // SAFETY: inside the packet's memory, which the verifier checks again.
        Some(unsafe { &mut *first })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end.saturating_sub(self.start)
    }
}
