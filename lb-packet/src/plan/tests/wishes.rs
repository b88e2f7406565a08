//! States that one may wish for, and what happens between two wishes.

use std::time::Duration;

use lb_common::Be32;
use proptest::{collection, prelude::*};

use super::*;

pub(super) fn key(vip: u8, scope: u8) -> EndpointKey {
    EndpointKey {
        vip: Be32::from_host(u32::from(Ipv4Addr::new(198, 18, 0, vip))),
        port: Be16::from_host(80),
        proto: 6,
        scope,
    }
}

pub(super) fn member(number: u8, weight: u16) -> Member {
    let ip = if number.is_multiple_of(3) {
        IpAddr::V6(format!("fd00::{number}").parse().unwrap())
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
    };
    Member {
        address: SocketAddr::new(ip, 8080),
        weight,
    }
}

/// Some are on this host.
pub(super) fn places(local: impl IntoIterator<Item = u8>) -> BTreeMap<SocketAddr, Place> {
    let here = Place {
        host: None,
        local: true,
    };
    let places = local.into_iter().map(|it| (member(it, 1).address, here));
    places.collect()
}

/// Some are on these.
pub(super) fn elsewhere(hosts: &BTreeMap<u8, u8>) -> impl Iterator<Item = (SocketAddr, Place)> {
    hosts.iter().map(|(&it, &host)| {
        let place = Place {
            host: Some(Ipv4Addr::new(192, 0, 2, host).into()),
            local: false,
        };
        (member(it, 1).address, place)
    })
}

pub(super) fn wanted(members: &[(u8, u16)]) -> Wanted {
    Wanted {
        members: members
            .iter()
            .map(|&(number, weight)| member(number, weight))
            .collect(),
        tunnel: false,
        trace: false,
    }
}

/// Some state that one may wish for.
pub(super) fn some_desired() -> impl Strategy<Value = Desired> {
    let members = collection::btree_map(1..16_u8, 0..3_u16, 0..6);
    let endpoints = (members, any::<(bool, bool)>());
    let endpoints = collection::btree_map((1..5_u8, 0..4_u8), endpoints, 0..6);
    let kept = collection::btree_set(1..16_u8, 0..4);
    let local = collection::btree_set(1..16_u8, 0..16);
    let hosts = collection::btree_map(1..16_u8, 1..4_u8, 0..16);
    let all = (endpoints, kept, local, hosts, 0..2_u32);
    all.prop_map(|(endpoints, kept, local, hosts, sample)| Desired {
        places: elsewhere(&hosts).chain(places(local)).collect(),
        endpoints: endpoints
            .iter()
            .map(|(&(vip, scope), (members, (tunnel, trace)))| {
                let members: Vec<_> = members.iter().map(|(&n, &weight)| (n, weight)).collect();
                let wanted = Wanted {
                    tunnel: *tunnel,
                    trace: *trace,
                    ..wanted(&members)
                };
                (key(vip, scope), wanted)
            })
            .collect(),
        kept: kept.into_iter().map(|it| member(it, 1).address).collect(),
        vips: endpoints
            .keys()
            .map(|&(vip, _)| Ipv4Addr::new(198, 18, 0, vip))
            .collect(),
        hosts: BTreeSet::from([IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))]),
        settings: Settings {
            sample,
            ..Settings::default()
        },
    })
}

/// What happens between two wishes.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) desired: Desired,
    /// The kernel refuses the step of this number.
    pub(super) refuses: Option<usize>,
    /// The agent starts anew before.
    pub(super) restart: bool,
    /// Only one VIP's endpoints change.
    pub(super) one: bool,
    pub(super) wait: Duration,
}

pub(super) fn some_turn() -> impl Strategy<Value = Turn> {
    let refuses = proptest::option::weighted(0.3, 0..12_usize);
    let wait = prop_oneof![Just(0), Just(900), Just(2000), Just(5000)];
    let restart = prop::bool::weighted(0.2);
    (some_desired(), refuses, restart, any::<bool>(), wait).prop_map(
        |(desired, refuses, restart, one, wait)| Turn {
            desired,
            refuses,
            restart,
            one,
            wait: Duration::from_millis(wait),
        },
    )
}

impl Turn {
    /// What is wished for after `before`.
    pub(super) fn after(&self, before: &Desired) -> Desired {
        if !self.one {
            return self.desired.clone();
        }
        let of = |it: &Desired, first: bool| {
            let endpoints = it.endpoints.clone().into_iter();
            endpoints.filter(move |(it, _)| (it.vip == key(1, 0).vip) == first)
        };
        let endpoints: BTreeMap<_, _> = of(before, false).chain(of(&self.desired, true)).collect();
        let vips = endpoints.keys().map(|it| it.vip.host().into());
        Desired {
            vips: vips.collect(),
            places: before.places.clone(),
            endpoints,
            ..self.desired.clone()
        }
    }
}
