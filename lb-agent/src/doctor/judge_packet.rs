//! What the facts mean for the packet path. Pure.

use std::{fmt::Display, net::IpAddr, ops::RangeInclusive};

use super::{
    Finding,
    facts::{Host, Paths},
};
use crate::{
    admin::report::Mark,
    config::{Packet, Xdp},
    packet::{self, Runs},
};

/// The findings where packets are to be balanced.
pub(super) fn findings(host: &Host, config: &Packet) -> Vec<Finding> {
    let Some(paths) = &host.paths else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for card in &config.cards {
        let first = self::card(card, paths);
        let is_there = first.mark == Mark::Ok;
        found.push(first);
        found.extend(is_there.then(|| driver(card, paths, config.xdp)).flatten());
    }
    found.extend(networks(paths, config));
    found.extend(forwarding(paths));
    found.extend(reverse_paths(host, config));
    found.extend(ports(paths, &config.ports));
    found.extend(source(paths, config));
    found
}

fn card(card: &str, paths: &Paths) -> Finding {
    let check = "cards";
    if !paths.devices.contains(card) {
        return Finding::error(
            check,
            format!("there is no network device {card}: no packet comes by it"),
            "correct [packet] cards; `ip link` lists the devices",
        );
    }
    match paths.drivers.get(card).and_then(|it| it.joins) {
        Some(true) => Finding::error(
            check,
            format!(
                "{card} joins received packets into larger ones (LRO), which cannot be sent on"
            ),
            format!("ethtool -K {card} lro off"),
        ),
        _ => Finding::ok(check, format!("{card} is there")),
    }
}

/// What a card's driver does, where XDP is to run. Without a choice it runs in the driver, if that can be, which only shows when it
/// is attached.
fn driver(card: &str, paths: &Paths, xdp: Xdp) -> Option<Finding> {
    let check = "drivers";
    let (runs, otherwise) = match xdp {
        Xdp::Off => return None,
        Xdp::Auto => (Runs::Native, Some(Runs::Generic)),
        Xdp::Native => (Runs::Native, None),
        Xdp::Generic => (Runs::Generic, None),
    };
    let driver = paths.drivers.get(card)?;
    let vlans = paths.vlans.iter().filter(|(_, below)| below == card);
    let vlans: Vec<_> = vlans.map(|(vlan, _)| vlan.clone()).collect();
    let trouble = |runs| packet::of_card(card, driver, runs, &vlans);
    if let Some(trouble) = trouble(runs) {
        return Some(Finding::warning(check, trouble.what, trouble.remedy));
    }
    if let Some(trouble) = otherwise.and_then(trouble) {
        let text = format!("should XDP not run in the driver: {}", trouble.text());
        return Some(Finding::unknown(check, text));
    }
    Some(match driver.name.as_deref() {
        None => Finding::unknown(
            check,
            format!("the kernel does not tell what the driver of {card} does to packets"),
        ),
        // What the kernel says of it is of its other end.
        Some("veth") => Finding::unknown(
            check,
            format!(
                "{card} is a veth: XDP sends packets on with the checksums that they come with, so its other end must not leave these open (ethtool -K OTHER tx off there)"
            ),
        ),
        Some(_) => Finding::ok(
            check,
            format!("{card} gives packets as they are on the wire"),
        ),
    })
}

/// Of the devices that clients are behind; who is in the network of a card, meets itself without this host.
fn networks(paths: &Paths, config: &Packet) -> Option<Finding> {
    let all = paths.addresses.as_ref()?.iter();
    let has_clients = |device: &String| {
        let is_named = config.clients.iter().any(|it| it.means(device));
        !config.cards.contains(device) && (is_named || paths.inside.contains(device))
    };
    let meant = all.filter(|(device, _)| has_clients(device));
    let trouble = packet::of_networks(meant.map(|(device, net)| (device.as_str(), *net)))?;
    Some(Finding::warning("networks", trouble.what, trouble.remedy))
}

/// Packets for containers, and those of clients on this host, are sent on by the stack; and where it sends none on, the kernel
/// tells programs at a card no way either.
fn forwarding(paths: &Paths) -> Option<Finding> {
    let check = "forwarding";
    Some(match paths.forwards? {
        0 => Finding::warning(
            check,
            "this host sends no packets on, so that the packet path reaches nothing but its own addresses",
            "sysctl -w net.ipv4.ip_forward=1, and net.ipv6.conf.all.forwarding=1 for IPv6",
        ),
        _ => Finding::ok(check, "this host sends packets on"),
    })
}

/// The kernel takes the stricter one of the device's and that of `all`.
fn reverse_paths(host: &Host, config: &Packet) -> Option<Finding> {
    let check = "reverse paths";
    let value = |device: &str| host.rp_filter.get(device).copied().unwrap_or(0);
    let strict = |device: &&String| value("all").max(value(device)) == 1;
    let strict: Vec<_> = config.cards.iter().filter(strict).cloned().collect();
    let (first, names) = (strict.first(), strict.join(", "));
    (!config.cards.is_empty()).then(|| match first {
        None => Finding::ok(check, "packets from tunnels may come by any card"),
        Some(first) => Finding::warning(
            check,
            format!("rp_filter is strict on {names}: packets out of tunnels are dropped whose answers would leave by another device"),
            format!("sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{first}.rp_filter=2"),
        ),
    })
}

fn ports(paths: &Paths, ours: &RangeInclusive<u16>) -> Option<Finding> {
    let check = "ports of full NAT";
    let theirs = paths.local_ports.as_ref()?;
    let (first, last) = (theirs.start(), theirs.end());
    let range = format!("{}-{}", ours.start(), ours.end());
    Some(match overlap(ours, theirs) {
        false => Finding::ok(check, format!("{range}, which no socket is given")),
        true => Finding::warning(
            check,
            format!(
                "{range} overlaps the ports {first}-{last} that sockets of this host are given: some of their answers get lost"
            ),
            "choose others with [packet] ports, or narrow net.ipv4.ip_local_port_range",
        ),
    })
}

/// Whether two ranges have a port in common.
pub(crate) fn overlap(one: &RangeInclusive<u16>, other: &RangeInclusive<u16>) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}

fn source(paths: &Paths, config: &Packet) -> Option<Finding> {
    let check = "source";
    let addresses = paths.addresses.as_ref()?;
    let first = config.cards.first()?;
    let given = [
        config.source.map(IpAddr::V4),
        config.source6.map(IpAddr::V6),
    ];
    let mut strange = given.iter().flatten();
    let strange = strange.find(|given| !addresses.iter().any(|(_, it)| it.addr() == **given));
    if let Some(strange) = strange {
        return Some(Finding::error(
            check,
            format!(
                "no device of this host has the address {strange}: answers to it come to nobody"
            ),
            "correct [packet] source and source6; `ip addr` lists the addresses",
        ));
    }
    let of_card = addresses.iter().filter(|(device, _)| device == first);
    let mut own = of_card.map(|(_, it)| it.addr()).filter(is_global);
    let found = given.into_iter().flatten().next().or_else(|| own.next());
    let text = |it: &dyn Display| format!("{it} is what backends of other hosts see");
    Some(match found {
        Some(found) => Finding::ok(check, text(&found)),
        None => Finding::error(
            check,
            format!("{first} has no address: backends of other hosts cannot be reached from it"),
            "name an address of this host with [packet] source",
        ),
    })
}

fn is_global(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => !it.is_link_local() && !it.is_loopback(),
        IpAddr::V6(it) => !it.is_unicast_link_local() && !it.is_loopback(),
    }
}
