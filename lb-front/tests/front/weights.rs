//! Each backend gets its share of the requests, exactly.

use std::sync::Arc;

use lb_front::{Limits, Settings, routes::RoutesChange};

use crate::kit::{Backend, GET, TestFront, routes};

/// The routes of the kit, `web` with backends of these weights.
fn weighted(backends: &[Backend], weights: &[u16]) -> RoutesChange {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let mut routes = routes(&addresses);
    let web = Arc::make_mut(routes.services[0].1.as_mut().unwrap());
    for (backend, &weight) in web.backends.iter_mut().zip(weights) {
        backend.weight = weight;
    }
    routes
}

/// How many of `requests` on one connection each backend gets.
fn served(front: &TestFront, backends: &[Backend], requests: usize) -> Vec<usize> {
    let seen = || backends.iter().map(|backend| backend.seen().len());
    let before: Vec<_> = seen().collect();
    let mut client = front.client();
    for _ in 0..requests {
        assert_eq!(client.send(GET).answer().status, 200);
    }
    seen()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect()
}

#[test]
fn backends_get_requests_by_their_weights() {
    let backends = ["a", "b", "c", "d"].map(Backend::named);
    let front = TestFront::start(Limits::default(), 1);
    let publish = |weights: &[u16]| {
        let settings = Settings::default();
        front
            .front
            .publish(&weighted(&backends, weights), &settings);
    };
    publish(&[5, 1, 0, 2]);
    assert_eq!(served(&front, &backends, 400), [250, 50, 0, 100]);
    // As one comes back by slow start, in percent of the others.
    for percent in [10, 50, 100] {
        publish(&[100, 100, percent, 200]);
        let cycle = 400 + usize::from(percent);
        let percent = usize::from(percent);
        let got = served(&front, &backends, cycle);
        assert_eq!(got, [100, 100, percent, 200]);
    }
}

#[test]
fn workers_share_the_turns_of_a_service() {
    let backends = ["a", "b"].map(Backend::named);
    let front = TestFront::start(Limits::default(), 2);
    let routes = weighted(&backends, &[3, 1]);
    front.front.publish(&routes, &Settings::default());
    for _ in 0..8 {
        served(&front, &backends, 100);
    }
    let all = backends.each_ref().map(|backend| backend.seen().len());
    assert_eq!(all.iter().sum::<usize>(), 800);
    // What one of them has taken ahead and not used yet.
    assert!(all[0].abs_diff(600) <= 16, "{all:?}");
}
