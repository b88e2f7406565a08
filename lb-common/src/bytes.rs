//! Integers whose byte order is part of the type.

/// A 16-bit integer in network byte order, exactly as it lies in a packet or a socket address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Be16(u16);

impl Be16 {
    /// From a value in host byte order.
    pub const fn from_host(value: u16) -> Self {
        Self(value.to_be())
    }

    /// From the bytes of a packet or of a kernel context, read as one native integer and not swapped.
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// The value in host byte order.
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The bytes as they lie in memory, read as one native integer.
    pub const fn raw(self) -> u16 {
        self.0
    }
}

/// A 32-bit integer in network byte order, exactly as it lies in a packet or a socket address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Be32(u32);

impl Be32 {
    /// From a value in host byte order, such as `u32::from(Ipv4Addr)`.
    pub const fn from_host(value: u32) -> Self {
        Self(value.to_be())
    }

    /// From the bytes of a packet or of a kernel context, read as one native integer and not swapped.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The value in host byte order, ready for `Ipv4Addr::from`.
    pub const fn host(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The bytes as they lie in memory, read as one native integer.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_lies_in_memory_as_it_lies_in_a_packet() {
        let (port, address) = (Be16::from_host(0x1234), Be32::from_host(0x1234_5678));
        assert_eq!(port.raw().to_ne_bytes(), [0x12, 0x34]);
        assert_eq!(address.raw().to_ne_bytes(), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!((port.host(), address.host()), (0x1234, 0x1234_5678));
        assert_eq!(Be16::from_raw(u16::from_ne_bytes([0x12, 0x34])), port);
        let raw = u32::from_ne_bytes([0x12, 0x34, 0x56, 0x78]);
        assert_eq!(Be32::from_raw(raw), address);
    }
}
