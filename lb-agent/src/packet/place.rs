//! What this host's network is made of: devices and their addresses, read from the kernel whenever something changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};
use rtnetlink::Handle;

use crate::config;

/// The devices of this host, by their index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) devices: BTreeMap<u32, Device>,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    /// Whether what is behind it is on this host: containers and virtual machines.
    pub(super) leads_inside: bool,
    /// The index of the device that it is a VLAN of.
    pub(super) vlan_of: Option<u32>,
    /// Its addresses with their networks, and whether they are good beyond the link.
    pub(super) addresses: Vec<(IpNet, bool)>,
}

impl Place {
    /// Asks the kernel.
    pub(super) async fn read(handle: &Handle) -> Result<Self, rtnetlink::Error> {
        let links: Vec<_> = handle.link().get().execute().try_collect().await?;
        let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
        Ok(Self::new(&links, &addresses))
    }

    fn new(links: &[LinkMessage], addresses: &[AddressMessage]) -> Self {
        let mut devices: BTreeMap<u32, Device> = links
            .iter()
            .filter_map(|link| Some((link.header.index, device(link)?)))
            .collect();
        for message in addresses {
            let device = devices.get_mut(&message.header.index);
            if let (Some(device), Some(address)) = (device, address(message)) {
                let global = message.header.scope == AddressScope::Universe;
                device.addresses.push((address, global));
            }
        }
        Self { devices }
    }

    /// The index of the device `name`.
    pub(super) fn index(&self, name: &str) -> Option<u32> {
        let mut all = self.devices.iter();
        all.find(|(_, it)| it.name == name).map(|(index, _)| *index)
    }

    /// The names of the VLANs of the device `index`.
    pub(super) fn vlans(&self, index: u32) -> Vec<String> {
        let all = self.devices.values();
        all.filter(|it| it.vlan_of == Some(index))
            .map(|it| it.name.clone())
            .collect()
    }

    /// The networks of each device that is meant, by its index and its name.
    pub(super) fn networks(
        &self,
        is_meant: impl Fn(u32, &str) -> bool,
    ) -> impl Iterator<Item = (&str, IpNet)> {
        let all = self.devices.iter();
        let meant = all.filter(move |(index, it)| is_meant(**index, &it.name));
        meant.flat_map(|(_, it)| it.addresses.iter().map(|(net, _)| (it.name.as_str(), *net)))
    }

    /// Every address of this host.
    pub(super) fn own(&self) -> BTreeSet<IpAddr> {
        let all = self.devices.values().flat_map(|it| &it.addresses);
        all.map(|(net, _)| net.addr()).collect()
    }

    /// The networks whose members are on this host, as far as their devices are none of `cards`.
    pub(super) fn inside(&self, cards: &[String]) -> Vec<IpNet> {
        let all = self.devices.values();
        all.filter(|it| it.leads_inside && !cards.contains(&it.name))
            .flat_map(|it| it.addresses.iter().map(|(net, _)| net.trunc()))
            // An address alone says nothing of others.
            .filter(|net| net.prefix_len() < net.max_prefix_len())
            .collect()
    }

    /// The first global address of each family of the device `name`.
    pub(super) fn sources(&self, name: &str) -> Sources {
        let device = self.devices.values().find(|it| it.name == name);
        let all = device.into_iter().flat_map(|it| &it.addresses);
        let mut found = Sources::default();
        for (net, _) in all.filter(|(_, global)| *global) {
            match net.addr() {
                IpAddr::V4(address) => found.v4 = found.v4.or(Some(address)),
                IpAddr::V6(address) => found.v6 = found.v6.or(Some(address)),
            }
        }
        found
    }
}

/// Whom this host is to backends of other hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

/// What is configured, else what the first card has at this moment.
///
/// # Errors
/// When the kernel does not tell its addresses.
pub(super) async fn sources(packet: &config::Packet) -> Result<Sources, std::io::Error> {
    let given = Sources {
        v4: packet.source,
        v6: packet.source6,
    };
    let Some(card) = packet.cards.first() else {
        return Ok(given);
    };
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let place = Place::read(&handle).await;
    connection.abort();
    let place = place.map_err(std::io::Error::other)?;
    Ok(place.sources(card).or(given))
}

impl Sources {
    fn or(self, given: Self) -> Self {
        Self {
            v4: given.v4.or(self.v4),
            v6: given.v6.or(self.v6),
        }
    }
}

fn device(link: &LinkMessage) -> Option<Device> {
    let mut device = Device::default();
    let (mut below, mut is_vlan) = (None, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                is_vlan = infos.contains(&LinkInfo::Kind(InfoKind::Vlan));
                device.leads_inside = infos.iter().any(|it| {
                    matches!(
                        it,
                        LinkInfo::Kind(
                            InfoKind::Bridge | InfoKind::Veth | InfoKind::Tun | InfoKind::Netkit
                        )
                    )
                });
            }
            _ => {}
        }
    }
    device.vlan_of = below.filter(|_| is_vlan);
    (!device.name.is_empty()).then_some(device)
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let told = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    // IPv6 tells the own one alone, IPv4 beside that of the other end.
    let own = told(|it| match it {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let other = || {
        told(|it| match it {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    IpNet::new(own.or_else(other)?, message.header.prefix_len).ok()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{AddressFamily, address::AddressHeader, link::LinkHeader};

    use super::*;

    fn link(index: u32, name: &str, kind: Option<InfoKind>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header = LinkHeader {
            index,
            ..LinkHeader::default()
        };
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let info = kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        message.attributes.extend(info);
        message
    }

    fn has(index: u32, net: &str, scope: AddressScope) -> AddressMessage {
        let net: IpNet = net.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header = AddressHeader {
            family: AddressFamily::Inet,
            prefix_len: net.prefix_len(),
            scope,
            index,
            ..AddressHeader::default()
        };
        message.attributes = vec![AddressAttribute::Address(net.addr())];
        message
    }

    #[test]
    fn what_is_behind_bridges_and_veths_is_on_this_host() {
        let links = [
            link(1, "lo", None),
            link(2, "eth0", None),
            link(3, "docker0", Some(InfoKind::Bridge)),
            link(4, "uplink", Some(InfoKind::Veth)),
        ];
        let (global, host) = (AddressScope::Universe, AddressScope::Host);
        let link_local = AddressScope::Link;
        let addresses = [
            has(1, "127.0.0.1/8", host),
            has(2, "fe80::2/64", link_local),
            has(2, "192.0.2.7/24", global),
            has(2, "192.0.2.8/24", global),
            has(2, "2001:db8::7/64", global),
            has(3, "172.17.0.1/16", global),
            has(4, "10.9.0.1/24", global),
            has(4, "10.9.1.1/32", global),
        ];
        let place = Place::new(&links, &addresses);
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(
            place.inside(&[]),
            [net("172.17.0.0/16"), net("10.9.0.0/24")]
        );
        assert_eq!(place.inside(&["uplink".to_owned()]), [net("172.17.0.0/16")]);
        assert_eq!(place.own().len(), 8);
        let of_bridge = place.networks(|index, name| index == 3 && name == "docker0");
        let expect = [("docker0", net("172.17.0.1/16"))];
        assert_eq!(of_bridge.collect::<Vec<_>>(), expect);
        assert_eq!(place.index("docker0"), Some(3));
        let sources = Sources {
            v4: "192.0.2.7".parse().ok(),
            v6: "2001:db8::7".parse().ok(),
        };
        assert_eq!(place.sources("eth0"), sources);
        assert_eq!(place.sources("lo"), Sources::default());
        assert_eq!(place.sources("eth9"), Sources::default());
    }
}
