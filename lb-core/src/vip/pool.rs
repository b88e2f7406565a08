//! The range that VIPs come from, and the address in it that a name is born with. Pure.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive};

use ipnet::Ipv4Net;

use crate::snapshot::ServiceName;

/// A range of IPv4 addresses. The first host address is the agent's own; network and broadcast address are
/// nobody's; services share the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    net: Ipv4Net,
    /// Addresses for services, at least one.
    size: u32,
}

/// Why a range is no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} cannot be the pool of virtual addresses; give a network of /{widest} to /{narrowest}, such as 198.18.0.0/16",
    widest = Pool::PREFIXES.start(),
    narrowest = Pool::PREFIXES.end()
)]
pub struct PoolError(pub Ipv4Net);

/// Reserved for benchmarks (RFC 2544), so no other network has it.
const DEFAULT: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 16);

impl Default for Pool {
    fn default() -> Self {
        Self {
            net: DEFAULT,
            size: (1 << 16) - 3,
        }
    }
}

impl TryFrom<Ipv4Net> for Pool {
    type Error = PoolError;

    fn try_from(net: Ipv4Net) -> Result<Self, PoolError> {
        match net.prefix_len() {
            length @ 8..=30 => Ok(Self {
                net: net.trunc(),
                size: (1 << (32 - length)) - 3,
            }),
            _ => Err(PoolError(net)),
        }
    }
}

impl Pool {
    /// What an operator may give. A narrower pool works as long as it has an address for a service, and is full at once.
    pub const PREFIXES: RangeInclusive<u8> = 8..=28;

    /// The whole range.
    pub fn net(self) -> Ipv4Net {
        self.net
    }

    /// The agent's own address.
    pub fn own(self) -> Ipv4Addr {
        self.nth(0)
    }

    /// How many services it has room for.
    pub(super) fn size(self) -> usize {
        self.size as usize
    }

    /// Whether a service may have `address`.
    pub fn serves(self, address: Ipv4Addr) -> bool {
        let first = u32::from(self.nth(1));
        u32::from(address)
            .checked_sub(first)
            .is_some_and(|offset| offset < self.size)
    }

    /// The address that `name` has unless another wants it too: every host works out the same.
    ///
    /// The 64-bit FNV-1a hash of the datacenter, a zero byte and the service, and for a tagged part another
    /// zero byte and the tag; modulo the number of addresses. Changing this would move every VIP.
    pub(super) fn home(self, datacenter: &str, name: &ServiceName) -> Ipv4Addr {
        let mut hash = Fnv::default();
        hash.write(datacenter.as_bytes());
        hash.write(&[0]);
        hash.write(name.service.as_bytes());
        if let Some(tag) = &name.tag {
            hash.write(&[0]);
            hash.write(tag.as_bytes());
        }
        let index = u32::try_from(hash.0 % u64::from(self.size)).unwrap_or(0);
        self.nth(1 + index)
    }

    /// The next address in the order in which a name looks for a free one.
    pub(super) fn after(self, address: Ipv4Addr) -> Ipv4Addr {
        let next = Ipv4Addr::from(u32::from(address).wrapping_add(1));
        if self.serves(next) { next } else { self.nth(1) }
    }

    /// The host address with index `n`; the first has 0.
    fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.net.network()) + 1 + n)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.net.fmt(f)
    }
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(net: &str) -> Pool {
        Pool::try_from(net.parse::<Ipv4Net>().unwrap()).unwrap()
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the reference's table of test vectors.
        for (text, value) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut hash = Fnv::default();
            hash.write(text.as_bytes());
            assert_eq!(hash.0, value, "{text}");
        }
    }

    #[test]
    fn homes_never_change_from_version_to_version() {
        let home = |name| Pool::default().home("dc1", &name).to_string();
        assert_eq!(home(ServiceName::whole("www_hello")), "198.18.194.107");
        assert_eq!(home(ServiceName::whole("www")), "198.18.242.171");
        assert_eq!(home(ServiceName::part("www", "hello")), "198.18.192.232");
        let elsewhere = Pool::default().home("dc2", &ServiceName::whole("www"));
        assert_eq!(elsewhere.to_string(), "198.18.128.153");
    }

    #[test]
    fn names_spread_over_the_pool() {
        let homes: std::collections::BTreeSet<_> = (0..4000)
            .map(|n| Pool::default().home("dc1", &ServiceName::whole(format!("service-{n}"))))
            .collect();
        // 4000 chosen by chance among 65,533 would leave 3,880 distinct.
        assert!((3800..3960).contains(&homes.len()), "{}", homes.len());
    }

    #[test]
    fn the_agent_network_and_broadcast_addresses_are_no_services() {
        let pool = pool("10.1.2.3/29");
        assert_eq!(pool.own(), Ipv4Addr::new(10, 1, 2, 1));
        assert_eq!(pool.size(), 5);
        let serving: Vec<_> = (0..=15)
            .map(|last| Ipv4Addr::new(10, 1, 2, last))
            .filter(|address| pool.serves(*address))
            .map(|address| address.octets()[3])
            .collect();
        assert_eq!(serving, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn looking_for_a_free_address_visits_each_once() {
        let pool = pool("10.0.0.0/28");
        let mut address = pool.home("dc1", &ServiceName::whole("a"));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..pool.size() {
            assert!(pool.serves(address) && seen.insert(address));
            address = pool.after(address);
        }
        assert!(seen.contains(&address));
    }

    #[test]
    fn a_range_that_is_too_small_or_too_large_is_refused_with_the_remedy() {
        for net in ["10.0.0.0/31", "10.0.0.1/32", "0.0.0.0/0", "0.0.0.0/7"] {
            let error = Pool::try_from(net.parse::<Ipv4Net>().unwrap()).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("a network of /8 to /28, such as 198.18.0.0/16"),
                "{error}"
            );
        }
        assert_eq!(pool("10.0.0.0/30").size(), 1);
        assert_eq!(pool("198.18.0.0/16"), Pool::default());
    }
}
