//! What makes devices lose packets of the packet path although programs are attached, and what to do: `doctor` tells it
//! before, and the agent while it runs. Pure, but for [`Driver::of`].

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use lb_packet::{HAIRPIN4, HAIRPIN6};

/// What a card's driver does with packets before programs see them; `None` is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// Its name.
    pub name: Option<String>,
    /// Whether it joins packets into larger ones (LRO).
    pub joins: Option<bool>,
    /// Whether it takes the tags of VLANs out of packets.
    pub takes_out_tags: Option<bool>,
    /// Whether it sees to checksums.
    pub checks: Option<bool>,
}

impl Driver {
    /// Asks the kernel about a device of this network namespace.
    pub fn of(device: &str) -> Self {
        use lb_sys::ethtool;
        Self {
            name: ethtool::driver(device).ok(),
            joins: ethtool::joins_received(device).ok(),
            takes_out_tags: ethtool::takes_out_tags(device).ok(),
            checks: ethtool::checks_received(device).ok(),
        }
    }
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// As a sentence without its end.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Trouble {
    /// Both in one, for lists of problems.
    pub fn text(&self) -> String {
        format!("{}; {}", self.what, self.remedy)
    }
}

/// Where a card's program of XDP runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// In the driver.
    Native,
    /// Before the stack.
    Generic,
}

/// What a card's driver does that the programs of XDP at it cannot bear; `vlans` are the devices of VLANs that come by it.
pub fn of_card(card: &str, driver: &Driver, runs: Runs, vlans: &[String]) -> Option<Trouble> {
    let virtual_card = driver.name.as_deref() == Some("virtio_net");
    if driver.joins == Some(true) {
        return Some(Trouble {
            what: format!(
                "{card} joins received packets into larger ones (LRO), which cannot be sent on"
            ),
            remedy: format!("ethtool -K {card} lro off"),
        });
    }
    match runs {
        Runs::Native if driver.takes_out_tags == Some(true) && !vlans.is_empty() => Some(Trouble {
            what: format!(
                "{card} takes the tags of VLANs out of packets, and programs in its driver do not see them: if VIPs are reached by {}, packets are taken for some of the network without a tag",
                vlans.join(", ")
            ),
            remedy: format!("ethtool -K {card} rxvlan off"),
        }),
        Runs::Generic if virtual_card && driver.checks != Some(false) => Some(Trouble {
            what: format!(
                "{card} is a virtual card, which leaves checksums to whoever receives, and programs before the stack send on what has none"
            ),
            // The driver does not let anybody change it from within.
            remedy: "set [packet] xdp = \"native\", or guest_csum=off for it at the hypervisor"
                .to_owned(),
        }),
        _ => None,
    }
}

/// A network on a device of this host, of those that clients are behind, that has the address by which a client meets itself: clients that are in it look for that
/// address among themselves.
pub fn of_networks<'a>(networks: impl IntoIterator<Item = (&'a str, IpNet)>) -> Option<Trouble> {
    let reserved = [IpAddr::V4(HAIRPIN4), IpAddr::V6(HAIRPIN6)];
    networks.into_iter().find_map(|(device, network)| {
        let address = reserved.into_iter().find(|it| network.contains(it))?;
        Some(Trouble {
            what: format!(
                "{} on {device} contains {address}, the address by which a client that is its own backend meets itself: clients in that network get no answer then",
                network.trunc()
            ),
            remedy: format!("give {device} another network"),
        })
    })
}

/// Packets are dropped for whose head there is no room, while programs run in the drivers of `cards`; the count is one for all.
pub(super) fn of_room(cards: &[&str]) -> Option<Trouble> {
    // How many there are grows: that is a figure, and no news.
    (!cards.is_empty()).then(|| Trouble {
        what: format!(
            "packets are dropped (resize): the driver of {} may have no room before packets for what the programs put there",
            cards.join(" or ")
        ),
        remedy: "set [packet] xdp = \"generic\"".to_owned(),
    })
}

/// How many packets found no room, and when that became more.
#[derive(Debug, Default)]
pub(super) struct WithoutRoom {
    last: Option<u64>,
    grew: Option<Instant>,
}

impl WithoutRoom {
    /// Whether packets found no room lately; `packets` is how many there have been ever, or `None` if that cannot be read.
    pub(super) fn grows(&mut self, packets: Option<u64>, now: Instant) -> bool {
        if let Some(packets) = packets {
            // Those before the first reading were an earlier agent's.
            if self.last.is_some_and(|last| packets > last) {
                self.grew = Some(now);
            }
            self.last = Some(packets);
        }
        self.grew.is_some_and(|at| now.duration_since(at) < LATELY)
    }
}

/// A packet that was dropped longer ago is no trouble of now.
const LATELY: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(name: &str, takes_out_tags: bool, checks: bool) -> Driver {
        Driver {
            name: Some(name.to_owned()),
            joins: Some(false),
            takes_out_tags: Some(takes_out_tags),
            checks: Some(checks),
        }
    }

    #[test]
    fn tags_matter_where_vlans_are_and_programs_run_in_the_driver() {
        let vlans = ["eth0.5".to_owned()];
        let card = driver("mlx5_core", true, true);
        let found = of_card("eth0", &card, Runs::Native, &vlans).unwrap();
        assert!(found.what.contains("reached by eth0.5"), "{found:?}");
        assert_eq!(found.remedy, "ethtool -K eth0 rxvlan off");
        for (card, runs, vlans) in [
            (&card, Runs::Native, &[][..]),
            (&card, Runs::Generic, &vlans[..]),
            (&driver("mlx5_core", false, true), Runs::Native, &vlans[..]),
            (&Driver::default(), Runs::Native, &vlans[..]),
        ] {
            assert_eq!(
                of_card("eth0", card, runs, vlans),
                None,
                "{card:?} {runs:?}"
            );
        }
    }

    #[test]
    fn checksums_matter_at_virtual_cards_before_the_stack() {
        let found = of_card(
            "eth0",
            &driver("virtio_net", false, true),
            Runs::Generic,
            &[],
        );
        assert!(found.unwrap().remedy.contains("guest_csum=off"));
        for (card, runs) in [
            (driver("virtio_net", false, false), Runs::Generic),
            (driver("virtio_net", false, true), Runs::Native),
            (driver("mlx5_core", false, true), Runs::Generic),
            (Driver::default(), Runs::Generic),
        ] {
            assert_eq!(of_card("eth0", &card, runs, &[]), None, "{card:?} {runs:?}");
        }
    }

    #[test]
    fn the_reserved_addresses_are_found_in_networks() {
        let of = |network: &str| of_networks([("tap0", network.parse().unwrap())]);
        for network in ["169.254.0.1/16", "fd6c:6200::1/32"] {
            let found = of(network).unwrap();
            assert!(found.what.contains("on tap0 contains"), "{found:?}");
            assert!(found.remedy.contains("tap0"), "{found:?}");
        }
        for network in ["169.254.1.1/32", "192.0.2.1/24", "fe80::1/64"] {
            assert_eq!(of(network), None, "{network}");
        }
    }

    #[test]
    fn a_card_that_joins_packets_is_told_wherever_programs_run() {
        let card = Driver {
            joins: Some(true),
            ..driver("ixgbe", false, true)
        };
        for runs in [Runs::Native, Runs::Generic] {
            let found = of_card("eth0", &card, runs, &[]).unwrap();
            assert_eq!(found.remedy, "ethtool -K eth0 lro off");
        }
    }

    #[test]
    fn packets_without_room_are_told_while_there_are_more_of_them() {
        let start = Instant::now();
        let mut room = WithoutRoom::default();
        let mut grows =
            |packets, minutes| room.grows(packets, start + Duration::from_mins(minutes));
        assert!(!grows(None, 0), "nothing was read");
        assert!(!grows(Some(7), 0), "before this agent");
        assert!(!grows(Some(7), 1) && !grows(None, 1));
        assert!(grows(Some(8), 2) && grows(Some(8), 6) && grows(None, 6));
        assert!(!grows(Some(8), 7), "five minutes without another one");
        assert!(grows(Some(9), 8));
        assert_eq!(of_room(&[]), None);
        let told = of_room(&["eth0", "eth1"]).unwrap().text();
        assert!(told.contains("the driver of eth0 or eth1 may"), "{told}");
    }
}
