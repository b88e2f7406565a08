//! Names of addresses: `107.194.18.198.in-addr.arpa` (RFC 1035 section 3.5) and 32 digits below `ip6.arpa`
//! (RFC 3596 section 2.5). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::vip::Pools;

/// The address that `name` is the reverse name of; `None` if it is none, or that of a whole network.
///
/// `name` is in lower case, without the trailing dot.
pub(super) fn address(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".ip6.arpa") {
        let mut bits = 0u128;
        let mut count = 0;
        for digit in digits.rsplit('.') {
            if digit.len() != 1 || count == 32 {
                return None;
            }
            bits = bits << 4 | u128::from_str_radix(digit, 16).ok()?;
            count += 1;
        }
        return (count == 32).then(|| Ipv6Addr::from_bits(bits).into());
    }
    let reversed = name.strip_suffix(".in-addr.arpa")?;
    // The parser knows how many there must be, and refuses leading zeros.
    let parts: Vec<&str> = reversed.rsplit('.').collect();
    parts.join(".").parse::<Ipv4Addr>().ok().map(Into::into)
}

/// How many labels the zone of the pool has in which `address` lies. A pool that ends within a label has several
/// zones.
pub(super) fn zone_labels(pools: Pools, address: IpAddr) -> usize {
    let bits = match address {
        IpAddr::V4(_) => pools.v4.net().prefix_len().div_ceil(8),
        IpAddr::V6(_) => pools.v6.map_or(0, |v6| v6.net().prefix_len().div_ceil(4)),
    };
    usize::from(bits) + 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reverse_name_is_an_address() {
        let own = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.6.7.0.0.2.6.c.6.2.6.d.f.ip6.arpa";
        for (name, expect) in [
            ("1.0.18.198.in-addr.arpa", Some("198.18.0.1")),
            (own, Some("fd62:6c62:76:1::1")),
            ("18.198.in-addr.arpa", None),
            ("1.1.0.18.198.in-addr.arpa", None),
            ("01.0.18.198.in-addr.arpa", None),
            ("256.0.18.198.in-addr.arpa", None),
            ("in-addr.arpa", None),
            (".in-addr.arpa", None),
            (&own[2..], None),
            (&format!("0.{own}"), None),
            (&format!("+{}", &own[1..]), None),
            ("ip6.arpa", None),
            ("www.hello", None),
        ] {
            assert_eq!(
                address(name),
                expect.map(|it| it.parse().unwrap()),
                "{name}"
            );
        }
    }

    #[test]
    fn the_zone_of_a_pool_is_its_prefix() {
        let pools = Pools {
            v6: Some(crate::vip::Pool6::default()),
            ..Pools::default()
        };
        assert_eq!(zone_labels(pools, "198.18.7.7".parse().unwrap()), 4);
        assert_eq!(zone_labels(pools, "fd62:6c62:76:1::7".parse().unwrap()), 18);
    }

    proptest! {
        #[test]
        fn no_name_panics(name in "[0-9a-f.+-]{0,80}") {
            address(&format!("{name}.in-addr.arpa"));
            address(&format!("{name}.ip6.arpa"));
        }

        #[test]
        fn every_address_is_found_again(bits: u128, v4: u32) {
            let v4 = Ipv4Addr::from(v4);
            let [a, b, c, d] = v4.octets();
            prop_assert_eq!(address(&format!("{d}.{c}.{b}.{a}.in-addr.arpa")), Some(v4.into()));
            let mut digits: Vec<String> = format!("{bits:032x}").chars().map(String::from).collect();
            digits.reverse();
            let name = format!("{}.ip6.arpa", digits.join("."));
            prop_assert_eq!(address(&name), Some(Ipv6Addr::from_bits(bits).into()));
        }
    }
}
