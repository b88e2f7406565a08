//! Which devices packets are balanced at. Pure.

use std::collections::{BTreeMap, BTreeSet};

use lb_packet::{Role, XdpMode};

use super::place::Place;
use crate::config::{Packet, Pattern, Xdp};

/// The devices that are there, by their index, with their names and what they are; and the names of those that should be.
pub(super) fn wanted(
    place: &Place,
    config: &Packet,
    labelled: &BTreeSet<u32>,
) -> (BTreeMap<u32, (String, Role)>, Vec<String>) {
    let mode = mode(config.xdp);
    let mut devices = BTreeMap::new();
    for (&index, device) in &place.devices {
        let name = &device.name;
        let role = if config.cards.contains(name) {
            Role::Card { mode }
        } else if labelled.contains(&index) || config.clients.iter().any(|it| it.means(name)) {
            Role::Client
        } else {
            continue;
        };
        devices.insert(index, (name.clone(), role));
    }
    let named = config.clients.iter().filter_map(|it| match it {
        Pattern::Name(name) => Some(name),
        Pattern::Begin(_) => None,
    });
    let named = config.cards.iter().chain(named);
    let missing = named.filter(|name| place.index(name).is_none());
    (devices, missing.cloned().collect())
}

fn mode(xdp: Xdp) -> XdpMode {
    match xdp {
        Xdp::Auto => XdpMode::Auto,
        Xdp::Native => XdpMode::Native,
        Xdp::Generic => XdpMode::Generic,
        Xdp::Off => XdpMode::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::place::Device;

    #[test]
    fn devices_are_those_that_are_named_or_labelled_and_there() {
        let device = |name: &str| Device {
            name: name.to_owned(),
            ..Device::default()
        };
        let place = Place {
            devices: [
                (2, device("eth0")),
                (3, device("veth1a")),
                (4, device("tap0")),
                (5, device("br0")),
                (6, device("strange")),
            ]
            .into(),
        };
        let config = Packet {
            cards: vec!["eth0".to_owned(), "eth1".to_owned()],
            clients: ["veth*", "tap0", "tap1"]
                .map(|it| it.parse().unwrap())
                .to_vec(),
            xdp: Xdp::Generic,
            source: None,
            source6: None,
            ports: 61_000..=65_535,
            hosts: BTreeSet::new(),
        };
        let (found, missing) = wanted(&place, &config, &[6, 99].into());
        let card = Role::Card {
            mode: XdpMode::Generic,
        };
        let expect = [
            (2, ("eth0".to_owned(), card)),
            (3, ("veth1a".to_owned(), Role::Client)),
            (4, ("tap0".to_owned(), Role::Client)),
            (6, ("strange".to_owned(), Role::Client)),
        ];
        assert_eq!(found, expect.into());
        assert_eq!(missing, ["eth1", "tap1"]);
    }
}
