//! The devices that VIPs are announced on: how they are, and a socket of each for ARP and for neighbour discovery.
//!
//! The sockets are opened at the start, which takes CAP_NET_RAW. They follow a device that comes later, or comes again,
//! without it. No address and no setting of a device is ever changed.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
};

use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::socket::{LinkAddr, SockaddrStorage, bind},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{
    Error,
    frame::{self, Mac},
};
use crate::{network, vip::Pools};

/// A device as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its first address, of IPv4 if it has one, else one of IPv6 that others can reach.
    pub address: Option<IpAddr>,
    /// Whether it is up and something is at its other end.
    pub has_link: bool,
    /// Where it is found; `None` for one without an address of its own, such as a tunnel.
    place: Option<LinkAddr>,
}

impl Link {
    /// Whether frames of Ethernet go over it.
    pub fn is_ethernet(&self) -> bool {
        self.place.is_some_and(|it| it.hatype() == ETHERNET)
    }

    pub(super) fn index(&self) -> Option<u32> {
        u32::try_from(self.place?.ifindex()).ok()
    }

    pub(super) fn mac(&self) -> Option<Mac> {
        self.place?.addr()
    }
}

/// ARPHRD_ETHER of linux/if_arp.h.
const ETHERNET: u16 = 1;

/// All devices of this network namespace, by name.
///
/// # Errors
/// When the kernel does not tell.
pub fn links() -> io::Result<BTreeMap<String, Link>> {
    let mut links = BTreeMap::new();
    for entry in getifaddrs()? {
        let live = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let link = links.entry(entry.interface_name).or_insert(Link {
            address: None,
            has_link: entry.flags.contains(live),
            place: None,
        });
        let Some(storage) = entry.address else {
            continue;
        };
        if let Some(place) = storage.as_link_addr() {
            link.place = Some(*place);
        }
        let better = address(&storage).filter(|new| match link.address {
            None => true,
            Some(old) => old.is_ipv6() && new.is_ipv4(),
        });
        link.address = better.or(link.address);
    }
    Ok(links)
}

/// What keeps a device from being used, and what to do.
pub fn trouble(link: Option<&Link>) -> Option<(&'static str, &'static str)> {
    match link {
        None => Some((
            "there is no such device",
            "make it, or correct [announce] devices",
        )),
        Some(link) if !link.is_ethernet() => Some((
            "it carries no Ethernet, so nobody asks there for addresses",
            "name another one in [announce] devices",
        )),
        Some(link) if !link.has_link => Some((
            "it is down, or nothing is at its other end",
            "set it up, and see to the cable",
        )),
        Some(_) => None,
    }
}

fn address(storage: &SockaddrStorage) -> Option<IpAddr> {
    // One of the link alone says little to people.
    let of_the_link = |it: &IpAddr| matches!(it, IpAddr::V6(it) if it.is_unicast_link_local());
    network::ip(storage).filter(|it| !of_the_link(it))
}

/// The devices, each with its sockets, which hear nothing yet.
#[derive(Debug, Default)]
pub struct Devices(pub(super) Vec<Device>);

impl Devices {
    /// Opens the sockets of these devices, whether they are there or not.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or when no descriptor is left.
    pub fn open(names: &[String]) -> Result<Self, Error> {
        let open = |name: &String| {
            Ok(Device {
                name: name.clone(),
                arp: Ear::open(ETH_P_ARP)?,
                ndp: Ear::open(ETH_P_IPV6)?,
            })
        };
        let devices: io::Result<_> = names.iter().map(open).collect();
        devices.map(Self).map_err(Error::Socket)
    }
}

/// Of linux/if_ether.h.
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;

/// One device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) arp: Ear,
    pub(super) ndp: Ear,
}

/// A socket for the frames of one protocol. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Ear(Arc<Socket>);

impl Ear {
    fn open(protocol: u16) -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(protocol.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        // Until it is bound it would hear all devices.
        socket.attach_filter(&frame::nothing())?;
        socket.set_nonblocking(true)?;
        Ok(Self(Arc::new(socket)))
    }

    /// Hears the device at `link`, and nothing of what was heard elsewhere before.
    pub(super) fn attend(&self, link: &Link, filter: &[SockFilter]) -> io::Result<()> {
        let place = link.place.ok_or(io::ErrorKind::NotFound)?;
        self.0.attach_filter(&frame::nothing())?;
        bind(self.0.as_raw_fd(), &place)?;
        let mut buffer = [0; BUFFER];
        while let Ok(1..) = self.hear(&mut buffer) {}
        self.0.attach_filter(filter)
    }

    /// The next frame.
    pub(super) fn hear(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }

    /// Sends a frame out of the device that it hears.
    pub(super) fn say(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
    }
}

impl AsRawFd for Ear {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Holds every question; what is longer is cut off.
pub(super) const BUFFER: usize = 2048;

/// What is heard of ARP for these pools.
pub(super) fn arp_filter(pools: Pools) -> Vec<SockFilter> {
    frame::arp_filter(pools.v4.net())
}

/// What is heard of neighbour discovery.
pub(super) fn ndp_filter(pools: Pools) -> Vec<SockFilter> {
    let v6 = pools.v6.map(|it| frame::ndp_filter(it.net()));
    v6.unwrap_or_else(frame::nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_no_ethernet() {
        let links = links().unwrap();
        let lo = &links["lo"];
        assert!(!lo.is_ethernet());
        assert_eq!(lo.index(), Some(1));
        let (what, _) = trouble(Some(lo)).unwrap();
        assert!(what.contains("no Ethernet"), "{what}");
        assert!(trouble(None).is_some());
    }
}
