use std::sync::Arc;

use lb_front::{
    Settings,
    routes::RoutesChange,
    rules::{Canary, Rules},
};

use crate::kit::{Backend, GET, TestFront, refusing, routes};

/// The routes of the kit, `web` with canaries behind the first `stable` of its backends, which get `percent`.
fn routes_with(addresses: &[std::net::SocketAddr], stable: usize, percent: u16) -> RoutesChange {
    let mut routes = routes(addresses);
    let web = Arc::make_mut(routes.services[0].1.as_mut().unwrap());
    for backend in &mut web.backends[stable..] {
        backend.canary = true;
    }
    web.rules = Some(Arc::new(Rules {
        canary: Some(Canary {
            share: percent * 100,
            field: Some("x-canary".into()),
        }),
        ..Rules::default()
    }));
    routes
}

fn publish(front: &TestFront, routes: &RoutesChange) {
    front.front.publish(routes, &Settings::default());
}

/// Who answers each of `times` requests.
fn answers(front: &TestFront, request: &str, times: usize) -> String {
    let mut client = front.client();
    (0..times)
        .map(|_| client.send(request).answer().body)
        .collect()
}

fn count(answers: &str, name: &str) -> usize {
    answers.matches(name).count()
}

#[test]
fn canaries_get_their_share_together_and_weights_count_within_it() {
    let backends = ["a", "b", "C", "D"].map(Backend::named);
    let front = TestFront::with(&[]);
    let addresses = backends.each_ref().map(|it| it.address);
    let mut routes = routes_with(&addresses, 2, 5);
    let web = Arc::make_mut(routes.services[0].1.as_mut().unwrap());
    // However heavy they are.
    web.backends[2].weight = 300;
    web.backends[3].weight = 100;
    publish(&front, &routes);
    let got = answers(&front, GET, 800);
    let counts = ["a", "b", "C", "D"].map(|name| count(&got, name));
    assert_eq!(counts, [380, 380, 30, 10]);
    // Spread evenly.
    for twenty in got.as_bytes().chunks(20) {
        let canaries = twenty.iter().filter(|it| it.is_ascii_uppercase());
        assert_eq!(canaries.count(), 1, "{got}");
    }
    for (percent, canaries) in [(0, 0), (50, 50), (100, 100)] {
        publish(&front, &routes_with(&addresses, 2, percent));
        let got = answers(&front, GET, 100);
        let counted = count(&got, "C") + count(&got, "D");
        assert_eq!(counted, canaries, "{percent}: {got}");
    }
}

#[test]
fn while_one_group_has_nobody_the_other_one_serves() {
    let (a, c) = (Backend::named("a"), Backend::named("C"));
    let front = TestFront::with(&[]);
    // None is there.
    publish(&front, &routes_with(&[a.address], 1, 50));
    assert_eq!(answers(&front, GET, 4), "aaaa");
    publish(&front, &routes_with(&[c.address], 0, 0));
    assert_eq!(answers(&front, GET, 4), "CCCC");
    // None is usable.
    let mut routes = routes_with(&[a.address, c.address], 1, 50);
    let web = Arc::make_mut(routes.services[0].1.as_mut().unwrap());
    web.backends[1].usable = false;
    publish(&front, &routes);
    assert_eq!(answers(&front, GET, 4), "aaaa");
    // None accepts.
    publish(&front, &routes_with(&[a.address, refusing()], 1, 50));
    assert_eq!(answers(&front, GET, 4), "aaaa");
    publish(&front, &routes_with(&[refusing(), c.address], 1, 0));
    assert_eq!(answers(&front, GET, 4), "CCCC");
}

#[test]
fn a_request_may_say_which_group_it_is_for() {
    let (a, c) = (Backend::named("a"), Backend::named("C"));
    let front = TestFront::with(&[]);
    let saying = |fields: &str| format!("GET / HTTP/1.1\r\nHost: web\r\n{fields}\r\n");
    publish(&front, &routes_with(&[a.address, c.address], 1, 0));
    let always = saying("X-Canary: Always\r\n");
    assert_eq!(answers(&front, &always, 3), "CCC");
    assert!(c.seen()[0].field("x-canary").is_some());
    let twice = saying("X-Canary: always\r\nX-Canary: always\r\n");
    for other in [saying("X-Canary: 1\r\n"), twice] {
        assert_eq!(answers(&front, &other, 3), "aaa");
    }
    publish(&front, &routes_with(&[a.address, c.address], 1, 100));
    let never = saying("X-Canary: never\r\n");
    assert_eq!(answers(&front, &never, 3), "aaa");
    // Rather the others than nobody.
    publish(&front, &routes_with(&[a.address], 1, 100));
    assert_eq!(answers(&front, &always, 1), "a");
}
