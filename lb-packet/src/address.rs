//! Addresses in the forms of the maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{Be16, Be32};

/// Four integers in network order; an IPv4 address as `::ffff:a.b.c.d`.
pub(crate) fn words(address: IpAddr) -> [u32; 4] {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    words6(address)
}

/// The same of an IPv6 address.
pub(crate) fn words6(address: Ipv6Addr) -> [u32; 4] {
    let octets = address.octets();
    let word = |at: usize| {
        u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    };
    [word(0), word(4), word(8), word(12)]
}

/// What [`words`] made.
pub(crate) fn address(words: [u32; 4]) -> IpAddr {
    IpAddr::V6(address6(words)).to_canonical()
}

/// What [`words6`] made.
pub(crate) fn address6(words: [u32; 4]) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets)
}

/// An IPv4 address as it lies in a packet.
pub(crate) fn be32(address: Ipv4Addr) -> Be32 {
    Be32::from_host(u32::from(address))
}

/// What [`be32`] made.
pub(crate) fn address4(raw: Be32) -> Ipv4Addr {
    Ipv4Addr::from(raw.host())
}

/// Address and port from their forms in the maps.
pub(crate) fn socket(ip: [u32; 4], port: Be16) -> SocketAddr {
    SocketAddr::new(address(ip), port.host())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_come_back_as_they_were(octets: [u8; 16], four: [u8; 4]) {
            let six = Ipv6Addr::from(octets);
            prop_assert_eq!(address6(words6(six)), six);
            let four = Ipv4Addr::from(four);
            prop_assert_eq!(address(words(four.into())), IpAddr::V4(four));
            prop_assert_eq!(address4(be32(four)), four);
        }
    }

    #[test]
    fn words_lie_in_memory_as_in_a_packet() {
        let words = words("10.1.2.3".parse().unwrap());
        assert_eq!(words[3].to_ne_bytes(), [10, 1, 2, 3]);
        assert_eq!(words[2].to_ne_bytes(), [0, 0, 0xff, 0xff]);
    }
}
