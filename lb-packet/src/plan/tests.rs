//! Every step of every plan, against what programs may read at that moment, also those that began a while ago.

use std::time::Duration;

use lb_common::{Be32, packet::scope};
use proptest::{collection, prelude::*};

use super::*;
use crate::{Limits, book::Found};

const LIMITS: Limits = Limits {
    services: 6,
    backends: 5,
    flows: 1,
};

/// Enough for whatever is wished for.
const ROOM: Limits = Limits {
    services: 40,
    backends: 40,
    flows: 1,
};

/// What the kernel's maps hold, and who may still read what they held before.
#[derive(Default)]
struct Kernel {
    endpoints: BTreeMap<EndpointKey, Endpoint>,
    tables: BTreeMap<u32, Box<[u16]>>,
    targets: BTreeMap<u32, Target>,
    vips: BTreeSet<Ipv4Addr>,
    hosts: BTreeSet<IpAddr>,
    settings: Settings,
    /// Endpoints as programs may still have them: read before they were changed, at this time.
    late: Vec<(Instant, EndpointKey, Endpoint)>,
    /// Who ever served each endpoint.
    servers: BTreeMap<EndpointKey, BTreeSet<SocketAddr>>,
    /// Who was ever behind each id.
    ids: BTreeMap<(u32, u32), SocketAddr>,
}

impl Kernel {
    fn take(&mut self, step: &Step, now: Instant) {
        match step {
            Step::PutSettings(settings) => self.settings = *settings,
            Step::PutHost(host) => drop(self.hosts.insert(*host)),
            Step::RemoveHost(host) => drop(self.hosts.remove(host)),
            Step::PutVip(vip) => drop(self.vips.insert(*vip)),
            Step::RemoveVip(vip) => drop(self.vips.remove(vip)),
            Step::PutTarget {
                address,
                home,
                fresh,
            } => {
                let id = (home.index, home.target.generation);
                let before = self.ids.insert(id, *address);
                assert_eq!(before, (!fresh).then_some(*address), "an id came back");
                self.targets.insert(home.index, home.target);
            }
            Step::PutTable { table, slots, .. } => {
                let live = self.endpoints.values().any(|it| it.table == *table);
                assert!(!live, "a live table was written");
                self.tables.insert(*table, slots.clone());
            }
            Step::PutEndpoint { key, placed, .. } => {
                if let Some(before) = self.endpoints.insert(*key, placed.endpoint) {
                    self.late.push((now, *key, before));
                }
            }
            Step::Recognise { .. } => {}
            Step::RemoveEndpoint(key) => {
                if let Some(before) = self.endpoints.remove(key) {
                    self.late.push((now, *key, before));
                }
            }
            Step::FreeTarget { home, .. } => {
                let free = Target {
                    generation: home.target.generation,
                    ..Target::default()
                };
                self.targets.insert(home.index, free);
            }
        }
    }

    /// What any program may read at `now`, whenever it began.
    fn check(&mut self, now: Instant) {
        self.late
            .retain(|(since, ..)| now.saturating_duration_since(*since) < REST);
        let today = self.endpoints.iter();
        let late = self.late.iter().map(|(_, key, it)| (key, it));
        for (key, endpoint) in today.chain(late) {
            if endpoint.flags & endpoint_flag::EMPTY != 0 {
                continue;
            }
            let slots = &self.tables[&endpoint.table];
            assert_eq!(slots.len(), SLOTS);
            // Few tables of many equal slots: look at each index once.
            for slot in slots.iter().copied().collect::<BTreeSet<_>>() {
                assert_ne!(slot, 0, "a look-up meets none");
                let target = self.targets[&u32::from(slot)];
                assert_ne!(target.port.raw(), 0, "a look-up meets a freed backend");
                let address = crate::address::socket(target.address, target.port);
                assert!(self.servers[key].contains(&address), "of another service");
            }
        }
    }

    /// What an agent finds that starts now.
    fn found(&self, limits: Limits, now: Instant) -> Book {
        let mut found = Found {
            vips: self.vips.clone(),
            hosts: self.hosts.clone(),
            settings: self.settings,
            ..Found::default()
        };
        for (&index, &target) in &self.targets {
            found.generations.insert(index, target.generation);
            if target.port.raw() != 0 {
                let address = crate::address::socket(target.address, target.port);
                found.targets.insert(address, Home { index, target });
            }
        }
        for (&key, &endpoint) in &self.endpoints {
            let empty = endpoint.flags & endpoint_flag::EMPTY != 0;
            let slots: &[u16] = if empty {
                &[]
            } else {
                &self.tables[&endpoint.table]
            };
            let placed = Placed {
                endpoint,
                digest: digest(slots),
                named: slots.iter().map(|&slot| slot.into()).collect(),
                members: None,
            };
            found.endpoints.insert(key, placed);
        }
        Book::found(found, limits, now)
    }
}

fn key(vip: u8, scope: u8) -> EndpointKey {
    EndpointKey {
        vip: Be32::from_host(u32::from(Ipv4Addr::new(198, 18, 0, vip))),
        port: Be16::from_host(80),
        proto: 6,
        scope,
    }
}

fn member(number: u8, weight: u16) -> Member {
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
fn places(local: impl IntoIterator<Item = u8>) -> BTreeMap<SocketAddr, Place> {
    let here = Place {
        host: None,
        local: true,
    };
    let places = local.into_iter().map(|it| (member(it, 1).address, here));
    places.collect()
}

/// Some are on these.
fn elsewhere(hosts: &BTreeMap<u8, u8>) -> impl Iterator<Item = (SocketAddr, Place)> {
    hosts.iter().map(|(&it, &host)| {
        let place = Place {
            host: Some(Ipv4Addr::new(192, 0, 2, host).into()),
            local: false,
        };
        (member(it, 1).address, place)
    })
}

fn wanted(members: &[(u8, u16)]) -> Wanted {
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
fn some_desired() -> impl Strategy<Value = Desired> {
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
struct Turn {
    desired: Desired,
    /// The kernel refuses the step of this number.
    refuses: Option<usize>,
    /// The agent starts anew before.
    restart: bool,
    /// Only one VIP's endpoints change.
    one: bool,
    wait: Duration,
}

fn some_turn() -> impl Strategy<Value = Turn> {
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
    fn after(&self, before: &Desired) -> Desired {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn no_look_up_at_any_step_meets_none_a_stranger_or_a_freed_backend(
        turns in collection::vec(some_turn(), 1..16),
        limits in prop_oneof![Just(LIMITS), Just(ROOM)]
    ) {
        let mut now = Instant::now();
        let mut kernel = Kernel::default();
        let mut book = Book::empty(limits);
        let mut desired = Desired::default();
        for turn in &turns {
            now += turn.wait;
            if turn.restart {
                book = kernel.found(limits, now);
            }
            desired = turn.after(&desired);
            for (key, wanted) in &desired.endpoints {
                let serving = wanted.members.iter().filter(|it| desired.serves(key, it.address));
                kernel.servers.entry(*key).or_default().extend(serving.map(|it| it.address));
            }
            let plan = plan(&book, &desired, now);
            check_shortcut(&book, &plan, &desired, now);
            let taken = turn.refuses.unwrap_or(plan.steps.len());
            for step in plan.steps.iter().take(taken) {
                kernel.take(step, now);
                book.note(step, now);
                kernel.check(now);
            }
            book.settle(&desired, taken >= plan.steps.len() && plan.refused.is_empty());
        }
        // In the end, when nothing else happens, all of it is so and nobody else is there.
        let last = &desired;
        let mut turns = 0;
        let plan = loop {
            let plan = plan(&book, last, now);
            check_shortcut(&book, &plan, last, now);
            for step in &plan.steps {
                kernel.take(step, now);
                book.note(step, now);
                kernel.check(now);
            }
            book.settle(last, plan.refused.is_empty());
            turns += 1;
            prop_assert!(turns < 10, "it comes to no end");
            match plan.again {
                Some(again) => now = now.max(again),
                None if plan.steps.is_empty() => break plan,
                None => {}
            }
        };
        let refused: BTreeSet<_> = plan.refused.iter().filter_map(|it| match it {
            Refused::Endpoint(key) => Some(*key),
            _ => None,
        }).collect();
        let without: BTreeSet<_> = plan.refused.iter().filter_map(|it| match it {
            Refused::Backend(address) => Some(*address),
            _ => None,
        }).collect();
        for (key, wanted) in &last.endpoints {
            prop_assert_eq!(kernel.endpoints.contains_key(key), !refused.contains(key));
            for member in wanted.members.iter().filter(|it| it.weight > 0 && last.serves(key, it.address)) {
                let placed = book.targets.contains_key(&member.address);
                prop_assert_ne!(placed, without.contains(&member.address), "{} is placed, or that is told", member.address);
            }
            if let Some(endpoint) = kernel.endpoints.get(key) {
                let found = kernel.targets.iter().filter(|(_, it)| it.port.raw() != 0);
                let placed: BTreeMap<_, _> = found.map(|(&index, it)| (crate::address::socket(it.address, it.port), index)).collect();
                let serving: BTreeSet<u32> = wanted.members.iter().filter(|it| it.weight > 0 && last.serves(key, it.address))
                    .filter_map(|it| placed.get(&it.address).copied()).collect();
                prop_assert_eq!(endpoint.flags & endpoint_flag::EMPTY != 0, serving.is_empty());
                if !serving.is_empty() {
                    let named: BTreeSet<u32> = kernel.tables[&endpoint.table].iter().map(|&it| it.into()).collect();
                    prop_assert_eq!(named, serving);
                }
            }
        }
        prop_assert_eq!(kernel.endpoints.len() + refused.len(), last.endpoints.len());
        prop_assert_eq!(&kernel.vips, &last.vips);
        prop_assert_eq!(&kernel.hosts, &last.hosts);
        let traced = last.endpoints.values().any(|it| it.trace).into();
        prop_assert_eq!(kernel.settings, Settings { traced, ..last.settings });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// The card leaves packets for backends of this host to the stack, where an endpoint of its own leads on.
    #[test]
    fn at_no_step_a_packet_is_left_to_a_stack_that_knows_nobody(
        turns in collection::vec((
            collection::btree_map(1..3_u8, collection::btree_map(1..6_u8, 0..2_u16, 0..4), 0..3),
            collection::btree_set(1..6_u8, 0..5),
        ), 1..8)
    ) {
        let mut now = Instant::now();
        let (mut kernel, mut book) = (Kernel::default(), Book::empty(ROOM));
        for (endpoints, local) in &turns {
            now += REST;
            let mut desired = Desired { places: places(local.iter().copied()), ..Desired::default() };
            for (&vip, members) in endpoints {
                let members: Arc<[Member]> = members.iter().map(|(&n, &weight)| member(n, weight)).collect();
                for scope in [0, scope::V6, scope::LOCAL, scope::LOCAL | scope::V6] {
                    let wanted = Wanted { members: members.clone(), tunnel: false, trace: false };
                    desired.endpoints.insert(key(vip, scope), wanted);
                }
            }
            let plan = plan(&book, &desired, now);
            for step in &plan.steps {
                kernel.take(step, now);
                book.note(step, now);
                for (key, endpoint) in &kernel.endpoints {
                    if key.scope & scope::LOCAL != 0 || endpoint.flags & endpoint_flag::EMPTY != 0 {
                        continue;
                    }
                    let named: BTreeSet<_> = kernel.tables[&endpoint.table].iter().copied().collect();
                    let local = named.iter().any(|&slot| kernel.targets[&slot.into()].flags & target_flag::LOCAL != 0);
                    let takes = kernel.endpoints.get(&EndpointKey { scope: key.scope | scope::LOCAL, ..*key })
                        .is_some_and(|it| it.flags & endpoint_flag::EMPTY == 0);
                    prop_assert!(!local || takes, "{:?} leads to nobody", key);
                }
            }
            book.settle(&desired, plan.refused.is_empty());
        }
    }
}

/// To look at everything leads to the same steps.
fn check_shortcut(book: &Book, plan: &Plan, desired: &Desired, now: Instant) {
    let mut book = book.clone();
    book.settle(desired, false);
    let all = super::plan(&book, desired, now);
    assert_eq!(format!("{plan:?}"), format!("{all:?}"));
}

/// All of a plan for `desired`.
fn carry_out(book: &mut Book, desired: &Desired, plan: &Plan, now: Instant) {
    for step in &plan.steps {
        book.note(step, now);
    }
    book.settle(desired, plan.refused.is_empty());
}

fn only(members: &[(u8, u16)]) -> Desired {
    Desired {
        endpoints: BTreeMap::from([(key(1, 0), wanted(members))]),
        ..Desired::default()
    }
}

#[test]
fn a_drained_backend_keeps_its_id_and_one_that_nobody_wants_is_freed_after_a_rest() {
    let now = Instant::now();
    let mut book = Book::empty(LIMITS);
    let both = only(&[(1, 1), (2, 1)]);
    let first = plan(&book, &both, now);
    carry_out(&mut book, &both, &first, now);
    let drained = member(2, 0).address;
    let id = book.targets[&drained];
    // By a weight of 0, then by name alone.
    let mut kept = only(&[(1, 1)]);
    kept.kept.insert(drained);
    for desired in [only(&[(1, 1), (2, 0)]), kept] {
        let later = now + 10 * REST;
        let next = plan(&book, &desired, later);
        assert_eq!(next.again, None);
        carry_out(&mut book, &desired, &next, now);
        assert_eq!(book.targets[&drained], id);
        assert!(!book.endpoints[&key(1, 0)].named.contains(&id.index));
    }
    let one = only(&[(1, 1)]);
    let gone = plan(&book, &one, now + REST / 2);
    assert!(gone.steps.is_empty(), "{:?}", gone.steps);
    assert_eq!(gone.again, Some(now + REST));
    let gone = plan(&book, &one, now + REST);
    assert!(matches!(gone.steps[..], [Step::FreeTarget { address, .. }] if address == drained));
    carry_out(&mut book, &one, &gone, now + REST);
    // When it comes back it is somebody else, wherever it stands.
    let back = plan(&book, &both, now + REST);
    carry_out(&mut book, &both, &back, now + REST);
    assert_ne!(book.targets[&drained], id);
}

#[test]
fn what_is_so_already_needs_no_step() {
    let now = Instant::now();
    let mut book = Book::empty(LIMITS);
    let desired = only(&[(1, 1), (2, 3)]);
    let first = plan(&book, &desired, now);
    assert_eq!(first.steps.len(), 4);
    carry_out(&mut book, &desired, &first, now);
    assert!(plan(&book, &desired, now).steps.is_empty());
    // Another list of the same members, in the other order: no other table.
    let turned = plan(&book, &only(&[(2, 3), (1, 1)]), now);
    assert!(
        matches!(turned.steps[..], [Step::Recognise { .. }]),
        "{:?}",
        turned.steps
    );
}

#[test]
fn what_finds_no_room_is_told_and_the_others_serve() {
    let now = Instant::now();
    let mut book = Book::empty(Limits {
        services: 1,
        backends: 2,
        flows: 1,
    });
    let mut desired = only(&[(1, 1), (2, 1), (4, 1)]);
    desired.endpoints.insert(key(2, 0), wanted(&[(1, 1)]));
    let first = plan(&book, &desired, now);
    let refused = [
        Refused::Backend(member(4, 1).address),
        Refused::Endpoint(key(2, 0)),
    ];
    assert_eq!(first.refused, refused);
    carry_out(&mut book, &desired, &first, now);
    assert_eq!(book.endpoints[&key(1, 0)].named.len(), 2);
    // Without any progress it is told again, and nothing is written.
    let second = plan(&book, &desired, now);
    assert_eq!(second.refused, refused);
    assert!(second.steps.is_empty(), "{:?}", second.steps);
}

#[test]
fn what_goes_makes_room_for_who_found_none() {
    let limits = Limits {
        services: 1,
        backends: 1,
        flows: 1,
    };
    // Another backend, and another endpoint.
    let other = Desired {
        endpoints: BTreeMap::from([(key(2, 0), wanted(&[(1, 1)]))]),
        ..Desired::default()
    };
    for next in [only(&[(2, 1)]), other] {
        let mut now = Instant::now();
        let mut book = Book::empty(limits);
        let before = only(&[(1, 1)]);
        let first = plan(&book, &before, now);
        carry_out(&mut book, &before, &first, now);
        let mut waits = 0;
        loop {
            let plan = plan(&book, &next, now);
            carry_out(&mut book, &next, &plan, now);
            match plan.again {
                Some(again) => now = again,
                None => break,
            }
            waits += 1;
            assert!(waits < 5, "it comes to no end");
        }
        let endpoints: Vec<_> = book.endpoints.keys().collect();
        assert_eq!(endpoints, next.endpoints.keys().collect::<Vec<_>>());
        let placed = book.endpoints.values().all(|it| it.named.len() == 1);
        assert!(placed, "{:?}", book.endpoints);
    }
}
