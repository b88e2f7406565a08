//! The bytes of one packet.

/// A packet's bytes, from the link's head on. Whoever implements it never lets anybody outside.
pub trait Bytes {
    /// The `N` bytes from `at` on, if the packet has all of them.
    fn window<const N: usize>(&self, at: usize) -> Option<&[u8; N]>;

    /// The same, to be changed in place.
    fn window_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]>;

    /// How long the packet is.
    fn length(&self) -> usize;

    /// A copy of `N` bytes.
    #[inline(always)]
    fn get<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.window(at).copied()
    }

    /// Writes `N` bytes, if the packet has room for all of them; else none.
    #[inline(always)]
    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        *self.window_mut(at)? = bytes;
        Some(())
    }
}

impl Bytes for [u8] {
    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        self.get(at..)?.first_chunk()
    }

    #[inline(always)]
    fn window_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        self.get_mut(at..)?.first_chunk_mut()
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.len()
    }
}

/// A number of which the compiler knows nothing any more: what bounds it for the verifier stays.
#[inline(always)]
pub fn opaque(number: usize) -> usize {
    word::opaque(number)
}

/// Loads and stores of words. The heads of a packet lie at odd places, which no machine that this is for minds, but the compiler
/// would take every word apart into bytes.
#[cfg(target_arch = "bpf")]
mod word {
    use core::arch::asm;

    macro_rules! word {
        ($load:ident, $store:ident, $word:ty, $kind:literal) => {
            /// # Safety
            /// The word lies inside of a packet.
            #[inline(always)]
            #[expect(
                clippy::cast_possible_truncation,
                reason = "it is as wide as what was read"
            )]
            pub(super) unsafe fn $load<const AT: usize>(window: *const u8) -> $word {
                // As wide as the register: LLVM loses its way with narrower ones.
                let word: u64;
                // SAFETY: the caller's promise; the machine loads words from any place.
                unsafe {
                    asm!(
                        concat!("{word} = *(", $kind, " *)({window} + {at})"),
                        word = lateout(reg) word,
                        window = in(reg) window,
                        at = const AT,
                        options(pure, readonly, nostack, preserves_flags)
                    );
                }
                word as $word
            }

            /// # Safety
            /// The word lies inside of a packet, which nobody else reads.
            #[inline(always)]
            pub(super) unsafe fn $store<const AT: usize>(window: *mut u8, word: $word) {
                // SAFETY: as above.
                unsafe {
                    asm!(
                        concat!("*(", $kind, " *)({window} + {at}) = {word}"),
                        word = in(reg) u64::from(word),
                        window = in(reg) window,
                        at = const AT,
                        options(nostack, preserves_flags)
                    );
                }
            }
        };
    }

    word!(load16, store16, u16, "u16");
    word!(load32, store32, u32, "u32");

    #[inline(always)]
    pub(super) fn opaque(number: usize) -> usize {
        let mut number = number;
        // SAFETY: it changes nothing.
        unsafe {
            asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags));
        }
        number
    }

    /// # Safety
    /// The word lies inside of a packet.
    #[inline(always)]
    pub(super) unsafe fn add32<const AT: usize>(window: *const u8, sum: u64) -> u64 {
        let mut sum = sum;
        // SAFETY: as above.
        unsafe {
            asm!(
                "{word} = *(u32 *)({window} + {at})",
                "{sum} += {word}",
                word = out(reg) _,
                sum = inout(reg) sum,
                window = in(reg) window,
                at = const AT,
                options(pure, readonly, nostack)
            );
        }
        sum
    }
}

/// The same for tests.
#[cfg(not(target_arch = "bpf"))]
mod word {
    macro_rules! word {
        ($load:ident, $store:ident, $word:ty) => {
            /// # Safety
            /// The word lies inside of a packet.
            #[inline(always)]
            pub(super) unsafe fn $load<const AT: usize>(window: *const u8) -> $word {
                // SAFETY: the caller's promise.
                unsafe { window.add(AT).cast::<$word>().read_unaligned() }
            }

            /// # Safety
            /// The word lies inside of a packet, which nobody else reads.
            #[inline(always)]
            pub(super) unsafe fn $store<const AT: usize>(window: *mut u8, word: $word) {
                // SAFETY: the caller's promise.
                unsafe { window.add(AT).cast::<$word>().write_unaligned(word) }
            }
        };
    }

    word!(load16, store16, u16);
    word!(load32, store32, u32);

    #[inline(always)]
    pub(super) fn opaque(number: usize) -> usize {
        number
    }

    /// # Safety
    /// The word lies inside of a packet.
    #[inline(always)]
    pub(super) unsafe fn add32<const AT: usize>(window: *const u8, sum: u64) -> u64 {
        // SAFETY: the caller's promise.
        sum + u64::from(unsafe { load32::<AT>(window) })
    }
}

/// The two bytes at `AT` of a part of a packet, as one integer that is not swapped. Whether they are inside is decided
/// when this is compiled. Not for what lies on the stack, where the kernel
/// wants words at even places.
#[inline(always)]
pub fn raw16<const AT: usize, const N: usize>(window: &[u8; N]) -> u16 {
    const { assert!(AT + 2 <= N) }
    // SAFETY: it lies inside.
    unsafe { word::load16::<AT>(window.as_ptr()) }
}

/// The four bytes at `AT`, as one integer that is not swapped.
#[inline(always)]
pub fn raw32<const AT: usize, const N: usize>(window: &[u8; N]) -> u32 {
    const { assert!(AT + 4 <= N) }
    // SAFETY: it lies inside.
    unsafe { word::load32::<AT>(window.as_ptr()) }
}

/// The sixteen bytes at `AT`, as four integers that are not swapped.
#[inline(always)]
pub fn raw128<const AT: usize, const N: usize>(window: &[u8; N]) -> [u32; 4] {
    const { assert!(AT + 16 <= N) }
    // There always is one: both are known when this is compiled.
    let Some(part) = window[AT..].first_chunk::<16>() else {
        return [0; 4];
    };
    [
        raw32::<0, 16>(part),
        raw32::<4, 16>(part),
        raw32::<8, 16>(part),
        raw32::<12, 16>(part),
    ]
}

/// Writes two bytes at `AT` of a part of a packet.
#[inline(always)]
pub fn set16<const AT: usize, const N: usize>(window: &mut [u8; N], raw: u16) {
    const { assert!(AT + 2 <= N) }
    // SAFETY: they lie inside.
    unsafe { word::store16::<AT>(window.as_mut_ptr(), raw) }
}

/// Writes four bytes at `AT`.
#[inline(always)]
pub fn set32<const AT: usize, const N: usize>(window: &mut [u8; N], raw: u32) {
    const { assert!(AT + 4 <= N) }
    // SAFETY: they lie inside.
    unsafe { word::store32::<AT>(window.as_mut_ptr(), raw) }
}

/// Writes sixteen bytes at `AT`.
#[inline(always)]
pub fn set128<const AT: usize, const N: usize>(window: &mut [u8; N], raw: [u32; 4]) {
    const { assert!(AT + 16 <= N) }
    let Some(part) = window[AT..].first_chunk_mut::<16>() else {
        return;
    };
    set32::<0, 16>(part, raw[0]);
    set32::<4, 16>(part, raw[1]);
    set32::<8, 16>(part, raw[2]);
    set32::<12, 16>(part, raw[3]);
}

/// Adds the four bytes at `AT`, as one integer that is not swapped, to a sum. Many such sums stand one after the other: they are
/// not to be loaded all at once, for which the stack has no room.
#[inline(always)]
pub(super) fn add32<const AT: usize, const N: usize>(window: &[u8; N], sum: u64) -> u64 {
    const { assert!(AT + 4 <= N) }
    // SAFETY: it lies inside.
    unsafe { word::add32::<AT>(window.as_ptr(), sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lies_inside_or_is_none() {
        let mut packet = *b"0123456789";
        let bytes = &mut packet[..];
        assert_eq!(Bytes::get::<4>(bytes, 6), Some(*b"6789"));
        for outside in [7, 10, 11, usize::MAX] {
            assert_eq!(Bytes::get::<4>(bytes, outside), None, "{outside}");
            assert_eq!(bytes.put(outside, *b"abcd"), None, "{outside}");
        }
        assert_eq!(bytes.put(0, *b"ab"), Some(()));
        assert_eq!(&packet, b"ab23456789");
    }

    #[test]
    fn integers_lie_as_they_are_read() {
        let mut window = [0; 20];
        set16::<1, 20>(&mut window, 0x1234_u16.to_be());
        set32::<3, 20>(&mut window, 0x5678_9abc_u32.to_be());
        assert_eq!(window[..8], [0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0]);
        assert_eq!(raw16::<1, 20>(&window), 0x1234_u16.to_be());
        assert_eq!(raw32::<3, 20>(&window), 0x5678_9abc_u32.to_be());
        let address = [1, 2, 3, u32::MAX];
        set128::<4, 20>(&mut window, address);
        assert_eq!(raw128::<4, 20>(&window), address);
        assert_eq!(add32::<4, 20>(&window, 5), u64::from(address[0]) + 5);
    }
}
