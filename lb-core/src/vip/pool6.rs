//! The IPv6 twin of a VIP: the same host part below another prefix. Pure.
//!
//! No twin is ever recorded or chosen: who knows the IPv4 address knows the other, on every host.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv6Net;

use super::Pool;

/// The network of the IPv6 twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool6(Ipv6Net);

/// Why a network cannot hold the twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Pool6Error {
    /// The last 32 bits hold the IPv4 host part; a prefix shorter than a subnet's serves nobody.
    #[error("write a network from /64 to /96")]
    Length,
    /// More was typed than the network.
    #[error("its host part is not zero; write {0}")]
    HostPart(Ipv6Net),
    /// Not addresses that a host may take for itself.
    #[error(
        "these addresses have another meaning; write a network of fc00::/7, such as fd62:6c62:76:1::/64"
    )]
    Meaning,
}

/// Unique local (RFC 4193).
const DEFAULT: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd62, 0x6c62, 0x0076, 0x0001, 0, 0, 0, 0),
    64,
);

impl Default for Pool6 {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl TryFrom<Ipv6Net> for Pool6 {
    type Error = Pool6Error;

    fn try_from(net: Ipv6Net) -> Result<Self, Pool6Error> {
        if !(64..=96).contains(&net.prefix_len()) {
            return Err(Pool6Error::Length);
        }
        if net.addr() != net.network() {
            return Err(Pool6Error::HostPart(net.trunc()));
        }
        let first = net.network();
        // The first eight bits are zero for loopback, mapped and translated addresses.
        let foreign = first.segments()[0] >> 8 == 0;
        if foreign || first.is_multicast() || first.is_unicast_link_local() {
            return Err(Pool6Error::Meaning);
        }
        Ok(Self(net))
    }
}

impl Pool6 {
    /// The whole network.
    pub fn net(self) -> Ipv6Net {
        self.0
    }
}

impl fmt::Display for Pool6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The pools of both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// The pool that VIPs come from.
    pub v4: Pool,
    /// Where their twins are; `None` while the host or its data plane serves no IPv6.
    pub v6: Option<Pool6>,
}

impl Pools {
    /// The agent's own address.
    pub fn own(self) -> Ipv4Addr {
        self.v4.own()
    }

    /// The twin of `vip`, if there are twins.
    pub fn twin(self, vip: Ipv4Addr) -> Option<Ipv6Addr> {
        self.v6.map(|v6| v6_of(self.v4, v6, vip))
    }

    /// Whether `address` lies in one of them.
    pub fn contain(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.net().contains(&address),
            IpAddr::V6(address) => self.v6.is_some_and(|v6| v6.net().contains(&address)),
        }
    }

    /// The VIP that `address` is or whose twin it is; `None` for what no service can have.
    pub fn vip(self, address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(address) => self.v4.net().contains(&address).then_some(address),
            IpAddr::V6(address) => v4_of(self.v4, self.v6?, address),
        }
    }
}

/// The twin of `vip`: `pool6` with the host part of `vip` in `pool` as its last 32 bits. The agent's own address has
/// one too.
pub fn v6_of(pool: Pool, pool6: Pool6, vip: Ipv4Addr) -> Ipv6Addr {
    let host = u32::from(vip).wrapping_sub(u32::from(pool.net().network()));
    Ipv6Addr::from_bits(pool6.0.network().to_bits() | u128::from(host))
}

/// The address whose twin `twin` is; `None` if it is nobody's.
pub fn v4_of(pool: Pool, pool6: Pool6, twin: Ipv6Addr) -> Option<Ipv4Addr> {
    let host = u32::try_from(twin.to_bits() ^ pool6.0.network().to_bits()).ok()?;
    let address = u32::from(pool.net().network()).checked_add(host)?;
    Some(Ipv4Addr::from(address)).filter(|address| pool.net().contains(address))
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::*;

    fn pool6(net: &str) -> Result<Pool6, Pool6Error> {
        Pool6::try_from(net.parse::<Ipv6Net>().unwrap())
    }

    #[test]
    fn a_twin_has_the_host_part_of_its_vip() {
        let (pool, default) = (Pool::default(), Pool6::default());
        for (vip, twin) in [
            ("198.18.0.1", "fd62:6c62:76:1::1"),
            ("198.18.194.107", "fd62:6c62:76:1::c26b"),
        ] {
            let vip = vip.parse().unwrap();
            let twin: Ipv6Addr = twin.parse().unwrap();
            assert_eq!(v6_of(pool, default, vip), twin);
            assert_eq!(v4_of(pool, default, twin), Some(vip));
        }
        let small = Pool::try_from("10.1.2.0/24".parse::<Ipv4Net>().unwrap()).unwrap();
        let low = pool6("fd00::7:0:0/96").unwrap();
        let twin: Ipv6Addr = "fd00::7:0:9".parse().unwrap();
        assert_eq!(v6_of(small, low, Ipv4Addr::new(10, 1, 2, 9)), twin);
    }

    #[test]
    fn what_lies_beyond_the_ipv4_pool_is_nobodys_twin() {
        let (pool, pool6) = (Pool::default(), Pool6::default());
        for address in [
            "fd62:6c62:76:1::1:0",
            "fd62:6c62:76:1:1::1",
            "fd62:6c62:76:2::1",
            "fd62:6c62:76:1::ffff:ffff",
            "::1",
        ] {
            assert_eq!(v4_of(pool, pool6, address.parse().unwrap()), None);
        }
    }

    proptest! {
        #[test]
        fn every_address_of_a_pool_has_a_twin_of_its_own(host in 0u32..1 << 24, length in 64u8..=96) {
            let pool = Pool::try_from("10.0.0.0/8".parse::<Ipv4Net>().unwrap()).unwrap();
            let pool6 = Pool6::try_from(Ipv6Net::new(DEFAULT.network(), length).unwrap()).unwrap();
            let vip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + host);
            let twin = v6_of(pool, pool6, vip);
            prop_assert!(pool6.net().contains(&twin));
            prop_assert_eq!(v4_of(pool, pool6, twin), Some(vip));
        }
    }

    #[test]
    fn a_network_that_cannot_hold_twins_is_refused_with_the_remedy() {
        use Pool6Error::{HostPart, Length, Meaning};
        for (net, error) in [
            ("fd00::/63", Length),
            ("fd00::/97", Length),
            ("fd00::1/64", HostPart("fd00::/64".parse().unwrap())),
            ("::/64", Meaning),
            ("64:ff9b::/96", Meaning),
            ("::ffff:0:0/96", Meaning),
            ("fe80::/64", Meaning),
            ("ff02::/64", Meaning),
        ] {
            assert_eq!(pool6(net), Err(error), "{net}");
        }
        assert_eq!(pool6("fd62:6c62:76:1::/64"), Ok(Pool6::default()));
    }

    #[test]
    fn an_address_is_found_in_the_pool_of_its_family() {
        let v4 = Pool::try_from("10.1.2.0/24".parse::<Ipv4Net>().unwrap()).unwrap();
        let v6 = Some(pool6("fd00:1::/64").unwrap());
        let pools = Pools { v4, v6 };
        let [vip, own] = [9, 1].map(|last| Ipv4Addr::new(10, 1, 2, last));
        let twin: Ipv6Addr = "fd00:1::9".parse().unwrap();
        assert_eq!((pools.own(), pools.twin(vip)), (own, Some(twin)));
        let far: Ipv6Addr = "fd00:1::1:0:0:9".parse().unwrap();
        for (address, inside, found) in [
            (IpAddr::V4(vip), true, Some(vip)),
            (IpAddr::V6(twin), true, Some(vip)),
            // In the network, and nobody's twin.
            (IpAddr::V6(far), true, None),
            ("10.1.3.9".parse().unwrap(), false, None),
            ("fd00:2::9".parse().unwrap(), false, None),
        ] {
            assert_eq!(pools.contain(address), inside, "{address}");
            assert_eq!(pools.vip(address), found, "{address}");
        }
        let without = Pools { v4, v6: None };
        assert_eq!(without.twin(vip), None);
        assert!(!without.contain(twin.into()));
        assert_eq!(without.vip(twin.into()), None);
    }

    #[test]
    fn a_pool_is_shown_as_its_network() {
        let shown = (Pool::default().to_string(), Pool6::default().to_string());
        let expected = ("198.18.0.0/16".to_owned(), "fd62:6c62:76:1::/64".to_owned());
        assert_eq!(shown, expected);
    }
}
