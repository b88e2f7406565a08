//! The addresses that this host's devices have at the moment, as getifaddrs(3) tells them.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

/// An address of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The device.
    pub(crate) device: String,
    /// The address.
    pub(crate) address: IpAddr,
    /// How much of it is the network's.
    pub(crate) mask: Option<IpAddr>,
    /// What is at the other end, where there is but one.
    pub(crate) peer: Option<IpAddr>,
}

impl Held {
    /// The address with its network; without a mask it is alone.
    pub(crate) fn net(&self) -> IpNet {
        let net = self.mask.and_then(|mask| with_mask(self.address, mask));
        net.unwrap_or_else(|| self.address.into())
    }

    /// The networks that it is in, by its mask.
    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNet> {
        let ends = [Some(self.address), self.peer].into_iter().flatten();
        ends.filter_map(|end| with_mask(end, self.mask?))
    }
}

/// Every address of every device.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn held() -> io::Result<impl Iterator<Item = Held>> {
    Ok(getifaddrs()?.filter_map(|it| {
        Some(Held {
            device: it.interface_name,
            address: it.address.as_ref().and_then(ip)?,
            mask: it.netmask.as_ref().and_then(ip),
            peer: it.destination.as_ref().and_then(ip),
        })
    }))
}

/// The IP address, if it is one.
pub(crate) fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
}

fn with_mask(address: IpAddr, mask: IpAddr) -> Option<IpNet> {
    IpNet::with_netmask(address, mask).ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn one(mask: Option<&str>, peer: Option<&str>) -> Held {
        Held {
            device: "tun0".to_owned(),
            address: [10, 8, 0, 1].into(),
            mask: mask.map(|it| it.parse().unwrap()),
            peer: peer.map(|it| it.parse().unwrap()),
        }
    }

    #[test]
    fn an_address_is_in_the_networks_of_both_ends_of_its_device() {
        let networks = |it: &Held| it.networks().map(|it| it.to_string()).collect::<Vec<_>>();
        let here = one(Some("255.255.255.0"), None);
        assert_eq!(here.net().to_string(), "10.8.0.1/24");
        assert_eq!(networks(&here), ["10.8.0.1/24"]);
        let both = one(Some("255.255.255.255"), Some("10.9.0.1"));
        assert_eq!(networks(&both), ["10.8.0.1/32", "10.9.0.1/32"]);
        let alone = one(None, Some("10.9.0.1"));
        assert_eq!(alone.net().to_string(), "10.8.0.1/32");
        assert_eq!(networks(&alone), Vec::<String>::new());
    }

    #[test]
    fn the_kernel_tells_loopback() {
        let is_loopback = |it: &Held| it.address == Ipv4Addr::LOCALHOST;
        let loopback = held().unwrap().find(is_loopback).unwrap();
        assert_eq!(loopback.device, "lo");
        assert_eq!(loopback.net().to_string(), "127.0.0.1/8");
    }
}
