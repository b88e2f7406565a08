//! Random worlds of services.

use std::{collections::BTreeMap, net::SocketAddr};

use fastrand::Rng;
use lb_agent::desired::{Desired, Endpoint, Share};
use lb_common::{
    Balance, Be16, Be32, FIRST_OWN_VIEW, HOST_VIEW, INTERNAL_VIEW, OUTSIDE_VIEW, PROTO_TCP,
    PROTO_UDP, ServiceKey, flag,
};

use super::{Servers, VIPS, vip4};
use crate::kernel::world::endpoint;

impl Servers {
    /// A random world of services on all VIPs.
    pub(in super::super) fn desired(&self, rng: &mut Rng) -> Desired {
        let mut desired = Desired {
            complete: true,
            ..Desired::default()
        };
        // Not all of them, so that in each world some are unused.
        let mut among = self.all.clone();
        for _ in 0..2 {
            among.swap_remove(rng.usize(..among.len()));
        }
        for vip in VIPS {
            for proto in [PROTO_TCP, PROTO_UDP] {
                if rng.u8(..5) > 0 {
                    add_service(rng, &among, &mut desired, vip, proto);
                }
            }
        }
        share(rng, &mut desired);
        desired
    }
}

/// Adds a random service of servers among these: some ports, some views, some families.
pub(in super::super) fn add_service(
    rng: &mut Rng,
    among: &[SocketAddr],
    desired: &mut Desired,
    vip: u8,
    proto: u8,
) {
    let v4: Vec<_> = among.iter().copied().filter(SocketAddr::is_ipv4).collect();
    let vip = Be32::from_host(vip4(vip).into());
    let ports: &[u16] = rng.choice([&[0][..], &[0], &[80], &[80, 81]]).unwrap();
    let balance = *rng.choice(&BALANCES).unwrap();
    let affinity = *rng.choice(&[0, 0, 0, 3600]).unwrap();
    let viewed = rng.bool();
    for &port in ports {
        let host = ServiceKey::new(vip, Be16::from_host(port), proto, HOST_VIEW);
        let mut elements = BTreeMap::from([(HOST_VIEW, element(rng, &v4))]);
        if viewed {
            for view in VIEWS {
                if rng.u8(..5) < 2 {
                    elements.insert(view, element(rng, &v4));
                }
            }
        }
        if elements.len() > 1 {
            elements.get_mut(&HOST_VIEW).unwrap().flags |= flag::VIEWS;
        }
        for (view, mut any) in elements {
            let key = host.seen_from(view);
            (any.balance, any.affinity_seconds) = (balance, affinity);
            if rng.u8(..3) == 0 {
                any.flags |= flag::V6;
                let mut six = element(rng, among);
                (six.balance, six.affinity_seconds) = (balance, affinity);
                desired.services.insert(key.for_v6(), six);
            }
            desired.services.insert(key, any);
        }
    }
}

/// Some of these servers, more than once perhaps; or none, and why.
fn element(rng: &mut Rng, among: &[SocketAddr]) -> Endpoint {
    if rng.u8(..5) == 0 {
        let mut nobody = endpoint(Balance::LeastConn, &[]);
        nobody.flags = *rng.choice(&[0, flag::NO_PATH, flag::DENIED]).unwrap();
        return nobody;
    }
    let many = rng.usize(1..6);
    let slots: Vec<_> = (0..many).map(|_| *rng.choice(among).unwrap()).collect();
    endpoint(Balance::LeastConn, &slots)
}

/// Gives a random share to each server that a service names.
pub(in super::super) fn share(rng: &mut Rng, desired: &mut Desired) {
    let named = desired.services.values().flat_map(|it| &it.slots);
    let named: Vec<_> = named.copied().collect();
    desired.backends.clear();
    // Flows are counted at the address in use, or at one whose flows are counted there.
    let Some(&root) = rng.choice(&named) else {
        return;
    };
    for address in named {
        let elsewhere = rng.u8(..4) == 0;
        let counted_at = if elsewhere { root } else { address };
        let weight = rng.u16(1..4);
        let share = Share { weight, counted_at };
        desired.backends.entry(address).or_insert(share);
    }
    desired
        .backends
        .entry(root)
        .and_modify(|it| it.counted_at = root);
}

/// Every way to balance.
pub(in super::super) const BALANCES: [Balance; 4] = [
    Balance::LeastConn,
    Balance::RoundRobin,
    Balance::Random,
    Balance::Maglev,
];

/// The views that may have elements of their own.
const VIEWS: [u32; 5] = [
    OUTSIDE_VIEW,
    INTERNAL_VIEW,
    FIRST_OWN_VIEW + 1,
    FIRST_OWN_VIEW + 2,
    FIRST_OWN_VIEW + 3,
];
