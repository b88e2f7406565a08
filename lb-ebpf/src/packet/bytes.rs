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

/// The `SIZE` bytes at `AT` of `N`; whether they are inside is decided when this is compiled.
#[inline(always)]
fn part<const AT: usize, const SIZE: usize, const N: usize>(window: &[u8; N]) -> [u8; SIZE] {
    const { assert!(AT + SIZE <= N) }
    let mut bytes = [0; SIZE];
    bytes.copy_from_slice(&window[AT..AT + SIZE]);
    bytes
}

#[inline(always)]
fn set<const AT: usize, const SIZE: usize, const N: usize>(
    window: &mut [u8; N],
    bytes: [u8; SIZE],
) {
    const { assert!(AT + SIZE <= N) }
    window[AT..AT + SIZE].copy_from_slice(&bytes);
}

/// The two bytes at `AT`, as one integer that is not swapped.
#[inline(always)]
pub fn raw16<const AT: usize, const N: usize>(window: &[u8; N]) -> u16 {
    u16::from_ne_bytes(part::<AT, 2, N>(window))
}

/// The four bytes at `AT`, as one integer that is not swapped.
#[inline(always)]
pub fn raw32<const AT: usize, const N: usize>(window: &[u8; N]) -> u32 {
    u32::from_ne_bytes(part::<AT, 4, N>(window))
}

/// The sixteen bytes at `AT`, as four integers that are not swapped.
#[inline(always)]
pub fn raw128<const AT: usize, const N: usize>(window: &[u8; N]) -> [u32; 4] {
    const { assert!(AT + 16 <= N) }
    let word = |index: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&window[AT + 4 * index..AT + 4 * index + 4]);
        u32::from_ne_bytes(bytes)
    };
    [word(0), word(1), word(2), word(3)]
}

/// Writes two bytes at `AT`.
#[inline(always)]
pub fn set16<const AT: usize, const N: usize>(window: &mut [u8; N], raw: u16) {
    set::<AT, 2, N>(window, raw.to_ne_bytes());
}

/// Writes four bytes at `AT`.
#[inline(always)]
pub fn set32<const AT: usize, const N: usize>(window: &mut [u8; N], raw: u32) {
    set::<AT, 4, N>(window, raw.to_ne_bytes());
}

/// Writes sixteen bytes at `AT`.
#[inline(always)]
pub fn set128<const AT: usize, const N: usize>(window: &mut [u8; N], raw: [u32; 4]) {
    const { assert!(AT + 16 <= N) }
    let mut write = |index: usize, word: u32| {
        window[AT + 4 * index..AT + 4 * index + 4].copy_from_slice(&word.to_ne_bytes());
    };
    write(0, raw[0]);
    write(1, raw[1]);
    write(2, raw[2]);
    write(3, raw[3]);
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
