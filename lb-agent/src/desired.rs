//! What the maps should hold, as a pure function of the snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use ipnet::Ipv4Net;
use lb_common::{ANY_PORT, Balance, Be16, Be32, HOST_VIEW, PROTO_TCP, SLOTS, ServiceKey};

use crate::{
    catalog::Problem,
    options,
    plan::Todo,
    snapshot::{ProbeState, Service, ServiceName, Snapshot, changes},
};

/// What the maps should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// One entry for each virtual endpoint.
    pub services: BTreeMap<ServiceKey, Endpoint>,
    /// Every address in use by an endpoint, or by an instance that is not usable at the moment but keeps its
    /// id, with its weight in least-connections.
    pub backends: BTreeMap<SocketAddrV4, u16>,
    /// Whether an endpoint that is not here may be removed: every source has answered.
    pub complete: bool,
}

/// One virtual endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose it is.
    pub name: ServiceName,
    /// How its backend is chosen.
    pub balance: Balance,
    /// Whether all its backends have been probed often enough to be judged.
    pub proven: bool,
    /// The sequence of backends that fills its slots; empty when none is usable.
    pub slots: Vec<SocketAddrV4>,
}

impl Desired {
    /// What the maps should hold for `snapshot`, and what of it they cannot. No backend may lie in `pool`: a VIP
    /// behind a VIP would never be reached, since hooks do not run twice.
    pub fn new(snapshot: &Snapshot, pool: Ipv4Net) -> (Self, Vec<Problem>) {
        let mut wanted = Wanted::new(pool);
        wanted.follow(&Snapshot::default(), snapshot);
        let problems = wanted.problems().cloned().collect();
        (wanted.desired, problems)
    }
}

/// [`Desired`], kept from one snapshot to the next: each costs what has changed.
#[derive(Debug)]
pub struct Wanted {
    desired: Desired,
    pool: Ipv4Net,
    /// How many services want an address with a weight: the highest counts.
    weights: BTreeMap<(SocketAddrV4, u16), usize>,
    /// What the maps cannot hold, by service.
    problems: BTreeMap<ServiceName, Vec<Problem>>,
}

impl Wanted {
    /// Nothing yet. No backend may lie in `pool`.
    pub fn new(pool: Ipv4Net) -> Self {
        Self {
            desired: Desired::default(),
            pool,
            weights: BTreeMap::new(),
            problems: BTreeMap::new(),
        }
    }

    /// What the maps should hold.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What of it they cannot.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Goes over from the snapshot `before` to the one `after`. Returns everything that may be another now.
    pub fn follow(&mut self, before: &Snapshot, after: &Snapshot) -> Todo {
        let mut todo = Todo::default();
        let mut come = Vec::new();
        for (name, old, new) in changes(&before.services, &after.services) {
            if let Some(asked) = old.and_then(|service| Asked::new(name, service, self.pool)) {
                self.forget(name, asked, &mut todo);
            }
            let asked = new.and_then(|service| Asked::new(name, service, self.pool));
            come.extend(asked.map(|asked| (name, asked)));
        }
        // After all have left: a VIP that one service hands to another stays.
        for (name, asked) in come {
            self.note(name, asked, &mut todo);
        }
        for &address in &todo.backends {
            let weights = self.weights.range((address, 0)..=(address, u16::MAX));
            match weights.last() {
                Some((&(_, weight), _)) => drop(self.desired.backends.insert(address, weight)),
                None => drop(self.desired.backends.remove(&address)),
            }
        }
        self.desired.complete = after.complete;
        todo
    }

    fn forget(&mut self, name: &ServiceName, asked: Asked, todo: &mut Todo) {
        self.problems.remove(name);
        for key in asked.keys {
            self.desired.services.remove(&key);
            todo.services.insert(key);
        }
        for (address, weight) in asked.backends {
            if let Entry::Occupied(mut times) = self.weights.entry((address, weight)) {
                *times.get_mut() -= 1;
                if *times.get() == 0 {
                    times.remove();
                }
            }
            todo.backends.insert(address);
        }
    }

    fn note(&mut self, name: &ServiceName, asked: Asked, todo: &mut Todo) {
        if !asked.problems.is_empty() {
            self.problems.insert(name.clone(), asked.problems);
        }
        for key in asked.keys {
            self.desired.services.insert(key, asked.endpoint.clone());
            todo.services.insert(key);
        }
        for (address, weight) in asked.backends {
            *self.weights.entry((address, weight)).or_default() += 1;
            todo.backends.insert(address);
        }
    }
}

/// What one service asks of the maps.
struct Asked {
    keys: Vec<ServiceKey>,
    endpoint: Endpoint,
    backends: Vec<(SocketAddrV4, u16)>,
    problems: Vec<Problem>,
}

impl Asked {
    /// Nothing, as long as it has no VIP.
    fn new(name: &ServiceName, service: &Service, pool: Ipv4Net) -> Option<Self> {
        let vip = service.vip?;
        let mut problems = Vec::new();
        let endpoint = Endpoint {
            name: name.clone(),
            balance: balance(service.options.balance),
            proven: service
                .backends
                .values()
                .all(|backend| backend.probe.state != ProbeState::Starting),
            slots: slots(name, service, pool, &mut problems),
        };
        let mut backends = Vec::with_capacity(service.backends.len());
        for (key, backend, share) in service.shares() {
            match reachable(backend.address, pool) {
                Ok(address) => backends.push((address, share.max(1))),
                Err(message) => {
                    problems.push(Problem::new(format!("instance {key} of {name}"), message));
                }
            }
        }
        Some(Self {
            keys: keys(vip, &service.options.ports),
            endpoint,
            backends,
            problems,
        })
    }
}

fn balance(balance: options::Balance) -> Balance {
    match balance {
        options::Balance::LeastConn => Balance::LeastConn,
        options::Balance::RoundRobin => Balance::RoundRobin,
        options::Balance::Random => Balance::Random,
        // Until the programs choose by the client's address.
        options::Balance::Maglev => Balance::Random,
    }
}

/// A service answers on every port, or on the named ones.
fn keys(vip: Ipv4Addr, ports: &BTreeSet<u16>) -> Vec<ServiceKey> {
    let vip = Be32::from_host(vip.into());
    let key = |port| ServiceKey::new(vip, port, PROTO_TCP, HOST_VIEW);
    if ports.is_empty() {
        vec![key(ANY_PORT)]
    } else {
        ports
            .iter()
            .map(|&port| key(Be16::from_host(port)))
            .collect()
    }
}

/// The address of an instance, if the socket path can send flows there; else what to do about it.
fn reachable(address: SocketAddr, pool: Ipv4Net) -> Result<SocketAddrV4, String> {
    match address {
        SocketAddr::V6(address) => Err(format!(
            "{address} is an IPv6 address, which VIPs do not reach yet; register an IPv4 address"
        )),
        SocketAddr::V4(address) if address.port() == 0 => {
            Err(format!("{address} has no port; register one"))
        }
        SocketAddr::V4(address) if pool.contains(address.ip()) => Err(format!(
            "{address} lies in the VIP pool {pool}; register the instance's own address"
        )),
        SocketAddr::V4(address) => Ok(address),
    }
}

fn slots(
    name: &ServiceName,
    service: &Service,
    pool: Ipv4Net,
    problems: &mut Vec<Problem>,
) -> Vec<SocketAddrV4> {
    let usable = service.shares();
    let usable = usable.filter(|(_, backend, share)| backend.state().usable() && *share > 0);
    let members: BTreeMap<_, _> = usable
        .filter_map(|(_, backend, share)| Some((reachable(backend.address, pool).ok()?, share)))
        .collect();
    if members.len() > SLOTS as usize {
        problems.push(Problem::new(
            format!("service {name}"),
            format!(
                "only {SLOTS} of its {} usable instances take flows; register fewer",
                members.len()
            ),
        ));
    }
    sequence(&members.into_iter().take(SLOTS as usize).collect::<Vec<_>>())
}

/// Each member as often as its weight says, spread as evenly as can be (smooth weighted round robin), in at
/// most [`SLOTS`] slots. Equal weights give every member one slot.
fn sequence(members: &[(SocketAddrV4, u16)]) -> Vec<SocketAddrV4> {
    let weights: Vec<u64> = members
        .iter()
        .map(|&(_, weight)| u64::from(weight))
        .collect();
    let Some(divisor) = weights.iter().copied().reduce(greatest_common_divisor) else {
        return Vec::new();
    };
    let total: u64 = weights.iter().sum::<u64>() / divisor;
    let capacity = u64::from(SLOTS);
    let shares: Vec<u64> = if total <= capacity {
        weights.iter().map(|weight| weight / divisor).collect()
    } else {
        // One slot for everybody, the rest in proportion.
        let rest = capacity - weights.len() as u64;
        let sum: u64 = weights.iter().sum();
        weights
            .iter()
            .map(|weight| 1 + weight * rest / sum)
            .collect()
    };
    let total = i64::try_from(shares.iter().sum::<u64>()).unwrap_or(i64::MAX);
    let mut credit = vec![0_i64; shares.len()];
    let mut slots = Vec::new();
    for _ in 0..total {
        for (credit, share) in credit.iter_mut().zip(&shares) {
            *credit += i64::try_from(*share).unwrap_or(i64::MAX);
        }
        // The first of the richest: `max_by_key` would answer the last.
        let Some(next) = (0..credit.len()).rev().max_by_key(|&member| credit[member]) else {
            break;
        };
        credit[next] -= total;
        slots.push(members[next].0);
    }
    slots
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, n), 80)
    }

    #[track_caller]
    fn check(weights: &[u16], expect: &[u8]) {
        let members: Vec<_> = (1..).map(address).zip(weights.iter().copied()).collect();
        let expect: Vec<_> = expect.iter().copied().map(address).collect();
        assert_eq!(sequence(&members), expect);
    }

    #[test]
    fn equal_weights_give_each_member_one_slot() {
        check(&[7, 7, 7], &[1, 2, 3]);
    }

    #[test]
    fn a_heavier_member_is_spread_among_the_others() {
        check(&[2, 1, 1], &[1, 2, 3, 1]);
    }

    #[test]
    fn no_member_gives_no_slot() {
        check(&[], &[]);
    }

    proptest! {
        #[test]
        fn every_member_gets_a_slot_and_the_half_never_overflows(weights in prop::collection::vec(1..=u16::MAX, 1..200)) {
            let members: Vec<_> = weights.iter().enumerate()
                .map(|(n, &weight)| (SocketAddrV4::new(Ipv4Addr::from(u32::try_from(n).unwrap()), 80), weight))
                .collect();
            let slots = sequence(&members);
            prop_assert!(slots.len() <= SLOTS as usize);
            let used: BTreeSet<_> = slots.iter().collect();
            prop_assert_eq!(used.len(), members.len());
        }
    }
}
