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

/// Integers at any place of a window. In a program, the compiler would take them together byte by byte, since it takes no
/// alignment for granted, and the verifier would follow each; the machines that we run on read and write them at once.
#[cfg(target_arch = "bpf")]
mod unaligned {
    use core::arch::asm;

    macro_rules! unaligned {
        ($load:ident, $store:ident, $integer:ty, $width:literal) => {
            #[inline(always)]
            #[expect(clippy::cast_possible_truncation, reason = "it is as wide as what was read")]
            pub(super) fn $load<const AT: usize, const N: usize>(window: &[u8; N]) -> $integer {
                const { assert!(AT + size_of::<$integer>() <= N) }
                let value: u64;
                // SAFETY: it lies in the window, and the machine takes any alignment.
                unsafe {
                    asm!(
                        concat!("{value} = *(", $width, " *)({window} + {at})"),
                        value = lateout(reg) value,
                        window = in(reg) window,
                        at = const AT,
                        options(pure, readonly, nostack),
                    );
                }
                value as $integer
            }

            #[inline(always)]
            pub(super) fn $store<const AT: usize, const N: usize>(window: &mut [u8; N], value: $integer) {
                const { assert!(AT + size_of::<$integer>() <= N) }
                // SAFETY: as above.
                unsafe {
                    asm!(
                        concat!("*(", $width, " *)({window} + {at}) = {value}"),
                        value = in(reg) u64::from(value),
                        window = in(reg) window,
                        at = const AT,
                        options(nostack),
                    );
                }
            }
        };
    }

    unaligned!(load16, store16, u16, "u16");
    unaligned!(load32, store32, u32, "u32");
}

/// The same on the host, where the compiler knows that.
#[cfg(not(target_arch = "bpf"))]
mod unaligned {
    macro_rules! unaligned {
        ($load:ident, $store:ident, $integer:ty) => {
            #[inline(always)]
            pub(super) fn $load<const AT: usize, const N: usize>(window: &[u8; N]) -> $integer {
                const { assert!(AT + size_of::<$integer>() <= N) }
                let mut bytes = [0; size_of::<$integer>()];
                bytes.copy_from_slice(&window[AT..AT + size_of::<$integer>()]);
                <$integer>::from_ne_bytes(bytes)
            }

            #[inline(always)]
            pub(super) fn $store<const AT: usize, const N: usize>(
                window: &mut [u8; N],
                value: $integer,
            ) {
                const { assert!(AT + size_of::<$integer>() <= N) }
                window[AT..AT + size_of::<$integer>()].copy_from_slice(&value.to_ne_bytes());
            }
        };
    }

    unaligned!(load16, store16, u16);
    unaligned!(load32, store32, u32);
}

/// The two bytes at `AT`, as one integer that is not swapped.
#[inline(always)]
pub fn raw16<const AT: usize, const N: usize>(window: &[u8; N]) -> u16 {
    unaligned::load16::<AT, N>(window)
}

/// The four bytes at `AT`, as one integer that is not swapped.
#[inline(always)]
pub fn raw32<const AT: usize, const N: usize>(window: &[u8; N]) -> u32 {
    unaligned::load32::<AT, N>(window)
}

/// The sixteen bytes at `AT`, as four integers that are not swapped.
#[inline(always)]
pub fn raw128<const AT: usize, const N: usize>(window: &[u8; N]) -> [u32; 4] {
    const { assert!(AT + 16 <= N) }
    let words: &[u8; 16] = part::<AT, 16, N>(window);
    [
        raw32::<0, 16>(words),
        raw32::<4, 16>(words),
        raw32::<8, 16>(words),
        raw32::<12, 16>(words),
    ]
}

/// Writes two bytes at `AT`.
#[inline(always)]
pub fn set16<const AT: usize, const N: usize>(window: &mut [u8; N], raw: u16) {
    unaligned::store16::<AT, N>(window, raw);
}

/// Writes four bytes at `AT`.
#[inline(always)]
pub fn set32<const AT: usize, const N: usize>(window: &mut [u8; N], raw: u32) {
    unaligned::store32::<AT, N>(window, raw);
}

/// Writes sixteen bytes at `AT`.
#[inline(always)]
pub fn set128<const AT: usize, const N: usize>(window: &mut [u8; N], raw: [u32; 4]) {
    const { assert!(AT + 16 <= N) }
    let words: &mut [u8; 16] = part_mut::<AT, 16, N>(window);
    set32::<0, 16>(words, raw[0]);
    set32::<4, 16>(words, raw[1]);
    set32::<8, 16>(words, raw[2]);
    set32::<12, 16>(words, raw[3]);
}

/// The `SIZE` bytes at `AT` of `N`; whether they are inside is decided when this is compiled.
#[inline(always)]
fn part<const AT: usize, const SIZE: usize, const N: usize>(window: &[u8; N]) -> &[u8; SIZE] {
    const { assert!(AT + SIZE <= N) }
    // SAFETY: they lie in the window.
    unsafe { &*window.as_ptr().add(AT).cast() }
}

#[inline(always)]
fn part_mut<const AT: usize, const SIZE: usize, const N: usize>(
    window: &mut [u8; N],
) -> &mut [u8; SIZE] {
    const { assert!(AT + SIZE <= N) }
    // SAFETY: they lie in the window.
    unsafe { &mut *window.as_mut_ptr().add(AT).cast() }
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
    }
}
