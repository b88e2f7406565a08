mod equal;
mod words;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::*;
use crate::{
    catalog::{InstanceKey, Reach, SourceHealth},
    options::{Local, Options},
    order::Mode,
};

/// A service of backends with these weights, those of this host marked.
fn service(local: Local, backends: &[(u16, bool)]) -> Service {
    let member = |(id, &(weight, local)): (usize, &(u16, bool))| {
        let key = InstanceKey::new("n", id.to_string());
        let backend = Backend {
            local,
            weight,
            ..Backend::usable(([10, 0, 0, 1], 80).into())
        };
        (key, backend)
    };
    Service {
        vip: None,
        options: Options {
            local,
            ..Options::default()
        },
        aliases: BTreeSet::new(),
        backends: backends.iter().enumerate().map(member).collect(),
    }
}

#[track_caller]
fn check(local: Local, backends: &[(u16, bool)], expect: &[u16]) {
    let service = service(local, backends);
    let shares: Vec<u16> = service.shares().map(|(_, _, share)| share).collect();
    assert_eq!(shares, expect);
}

#[test]
fn a_share_is_the_weight_unless_the_host_matters() {
    check(
        Local::Any,
        &[(1, true), (0, false), (65535, false)],
        &[1, 0, 65535],
    );
}

#[test]
fn those_of_this_host_are_preferred() {
    check(
        Local::Prefer,
        &[(1, true), (2, false), (0, true)],
        &[16, 2, 0],
    );
    check(Local::Prefer, &[(7, false), (9, false)], &[7, 9]);
}

#[test]
fn a_share_that_would_not_fit_scales_all_of_them_down_and_none_to_nothing() {
    check(
        Local::Prefer,
        &[(65535, true), (65535, false), (1, false)],
        &[65535, 4096, 1],
    );
}

#[test]
fn only_those_of_this_host_take_flows() {
    check(Local::Only, &[(3, true), (2, false)], &[3, 0]);
    check(Local::Only, &[(2, false)], &[0]);
}

/// The shares of backends with these weights and ramps, the first `usable` of which are.
#[track_caller]
fn check_ramps(local: Local, backends: &[(u16, u8)], usable: usize, expect: &[u16]) {
    let weights: Vec<_> = backends.iter().map(|&(weight, _)| (weight, true)).collect();
    let mut service = service(local, &weights);
    let ramps = backends.iter().map(|&(_, ramp)| ramp);
    for (n, (backend, ramp)) in service.backends.values_mut().zip(ramps).enumerate() {
        backend.ramp = ramp;
        backend.order.mode = match n >= usable {
            true => Mode::Drain,
            false => Mode::Ready,
        };
    }
    let shares: Vec<u16> = service.shares().map(|(_, _, share)| share).collect();
    assert_eq!(shares, expect);
}

#[test]
fn one_that_came_late_has_a_part_of_its_share() {
    check_ramps(Local::Any, &[(1, 100), (1, 19)], 2, &[100, 19]);
    check_ramps(Local::Any, &[(3, 100), (2, 10), (0, 10)], 3, &[300, 20, 0]);
    check_ramps(Local::Prefer, &[(1, 100), (1, 10)], 2, &[1600, 160]);
}

#[test]
fn it_is_spared_for_one_of_another_host_unless_that_takes_no_flows() {
    for (local, others, expect) in [
        (Local::Any, false, [10, 100]),
        (Local::Prefer, false, [160, 100]),
        (Local::Only, false, [1, 0]),
        (Local::Only, true, [10, 100]),
    ] {
        let mut service = service(local, &[(1, true), (1, others)]);
        service.backends.values_mut().next().unwrap().ramp = 10;
        let shares: Vec<u16> = service.shares().map(|(_, _, share)| share).collect();
        assert_eq!(shares, expect, "{local:?}");
    }
}

#[test]
fn the_part_of_a_share_is_at_least_one() {
    check_ramps(Local::Any, &[(65535, 100), (1, 10)], 2, &[65535, 1]);
    let most = 65535 * 16 * 100_u32;
    assert!(most.div_ceil(most.div_ceil(65535)) <= 65535);
}

#[test]
fn where_all_came_late_or_nobody_else_could_serve_none_is_spared() {
    check_ramps(Local::Any, &[(1, 10), (2, 55)], 2, &[1, 2]);
    // The one that has all of its share is drained, or takes nothing.
    check_ramps(Local::Any, &[(2, 55), (1, 100)], 1, &[2, 1]);
    check_ramps(Local::Any, &[(2, 55), (0, 100)], 2, &[2, 0]);
    let mut elsewhere = service(Local::Only, &[(2, true), (1, false)]);
    elsewhere.backends.values_mut().next().unwrap().ramp = 10;
    let shares: Vec<u16> = elsewhere.shares().map(|(_, _, share)| share).collect();
    assert_eq!(shares, [2, 0]);
}

#[test]
fn what_is_of_one_allocation_is_no_change() {
    let map = |values: &[(u8, &Arc<str>)]| -> CowMap<u8, Arc<str>> {
        values
            .iter()
            .map(|&(key, value)| (key, value.clone()))
            .collect()
    };
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let before = map(&[(1, &a), (2, &a), (3, &b)]);
    let after = map(&[(0, &a), (2, &a), (3, &a)]);
    let found: Vec<_> = changes(&before, &after)
        .map(|(key, old, new)| (*key, old.is_some(), new.is_some()))
        .collect();
    assert_eq!(found, [(0, false, true), (1, true, false), (3, true, true)]);
}
