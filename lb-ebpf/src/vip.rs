//! What of an address is a VIP. An IPv6 VIP has the host part of the IPv4 one, so that one key serves both.
//!
//! All integers are raw and in network order, as they lie in a context.

use lb_common::Form;

/// The pools of virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// The first address of the IPv4 pool.
    pub prefix: u32,
    /// Its mask.
    pub mask: u32,
    /// The first twelve bytes of the IPv6 pool.
    pub high: [u32; 3],
}

/// The third word of an IPv4 address that is written as an IPv6 one.
const MAPPED: u32 = 0xffff_u32.to_be();

/// The first three words of an IPv4 address that is written as an IPv6 one.
pub const MAPPED_HIGH: [u32; 3] = [0, 0, MAPPED];

impl Pools {
    /// Whether an IPv4 address is virtual.
    #[inline(always)]
    pub const fn holds(self, address: u32) -> bool {
        address & self.mask == self.prefix
    }

    /// The IPv4 VIP that an IPv6 address stands for, and how it says so.
    #[inline(always)]
    pub const fn stands_for(self, address: [u32; 4]) -> Option<(u32, Form)> {
        let [first, second, third, last] = address;
        if first == self.high[0] && second == self.high[1] && third == self.high[2] {
            // Beyond the IPv4 pool nobody has an address; the pool's own bits tell.
            return if last & self.mask == 0 {
                Some((self.prefix | last, Form::V6))
            } else {
                None
            };
        }
        if first == 0 && second == 0 && third == MAPPED && self.holds(last) {
            Some((last, Form::Mapped))
        } else {
            None
        }
    }

    /// Whether an IPv6 address lies in the IPv6 pool.
    #[inline(always)]
    pub const fn holds_v6(self, address: [u32; 4]) -> bool {
        address[0] == self.high[0] && address[1] == self.high[1] && address[2] == self.high[2]
    }

    /// The VIP as an IPv6 socket wrote it: the inverse of [`Pools::stands_for`].
    #[inline(always)]
    pub const fn written(self, vip: u32, v6: bool) -> [u32; 4] {
        if v6 {
            let [first, second, third] = self.high;
            [first, second, third, vip & !self.mask]
        } else {
            [0, 0, MAPPED, vip]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn v4(text: &str) -> u32 {
        u32::from(text.parse::<Ipv4Addr>().unwrap()).to_be()
    }

    fn v6(text: &str) -> [u32; 4] {
        let octets = text.parse::<Ipv6Addr>().unwrap().octets();
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        words
    }

    fn pools() -> Pools {
        let [first, second, third, _] = v6("fd62:6c62:76:1::");
        Pools {
            prefix: v4("198.18.0.0"),
            mask: v4("255.255.0.0"),
            high: [first, second, third],
        }
    }

    #[test]
    fn an_address_is_virtual_by_its_prefix_alone() {
        for (address, inside) in [
            ("198.18.0.0", true),
            ("198.18.255.255", true),
            ("198.19.0.0", false),
            ("198.17.255.255", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(pools().holds(v4(address)), inside, "{address}");
        }
    }

    #[test]
    fn an_ipv6_address_lies_in_the_pool_by_its_first_twelve_bytes() {
        for (address, inside) in [
            ("fd62:6c62:76:1::", true),
            ("fd62:6c62:76:1::ffff:ffff", true),
            ("fd63:6c62:76:1::1", false),
            ("fd62:6c62:76:2::1", false),
            ("fd62:6c62:76:1:0:1::1", false),
            ("::", false),
        ] {
            assert_eq!(pools().holds_v6(v6(address)), inside, "{address}");
        }
    }

    #[test]
    fn an_ipv6_vip_has_the_host_part_of_the_ipv4_one() {
        for (address, expect) in [
            ("fd62:6c62:76:1::1:2", None),
            ("fd62:6c62:76:1::102", Some(("198.18.1.2", Form::V6))),
            ("fd62:6c62:76:1::ffff", Some(("198.18.255.255", Form::V6))),
            ("fd62:6c62:76:2::102", None),
            ("fd62:6c62:76:1:0:1:0:102", None),
            ("::ffff:198.18.1.2", Some(("198.18.1.2", Form::Mapped))),
            ("::ffff:198.19.1.2", None),
            ("::198.18.1.2", None),
            ("1::ffff:198.18.1.2", None),
            ("0:0:1::ffff:198.18.1.2", None),
            ("::1", None),
        ] {
            let expect = expect.map(|(vip, form)| (v4(vip), form));
            assert_eq!(pools().stands_for(v6(address)), expect, "{address}");
            if let Some((vip, form)) = expect {
                assert_eq!(
                    pools().written(vip, form == Form::V6),
                    v6(address),
                    "{address}"
                );
            }
        }
    }
}
