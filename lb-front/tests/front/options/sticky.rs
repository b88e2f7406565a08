use std::{net::SocketAddr, sync::Arc};

use lb_front::{
    Forwarding, Settings, StickyKey,
    routes::{RouteService, RoutesChange},
    rules::{Canary, Rules},
};

use crate::kit::{Answer, Backend, GET, Reply, TestFront, ok, routes};

fn settings(secret: &str) -> Settings {
    Settings {
        sticky_key: Some(StickyKey::of(secret.as_bytes())),
        ..Settings::default()
    }
}

/// The routes of the kit; `web` keeps its clients by the cookie `stay`, and is what `change` makes of it.
fn sticky(addresses: &[SocketAddr], change: impl FnOnce(&mut RouteService)) -> RoutesChange {
    let mut routes = routes(addresses);
    let web = Arc::make_mut(routes.services[0].1.as_mut().unwrap());
    web.rules = Some(Arc::new(Rules {
        sticky: Some("stay".into()),
        ..Rules::default()
    }));
    change(web);
    routes
}

fn publish(front: &TestFront, addresses: &[SocketAddr]) {
    let routes = sticky(addresses, |_| {});
    front.front.publish(&routes, &settings("secret"));
}

/// The cookie that the answer sets, without its attributes.
#[track_caller]
fn cookie(answer: &Answer) -> String {
    let field = answer.field("set-cookie");
    let field = field.unwrap_or_else(|| panic!("no cookie in {}", answer.head));
    let cookie = field.split(';').next().unwrap();
    assert!(cookie.starts_with("stay="), "{cookie}");
    cookie.to_owned()
}

fn showing(cookies: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: web\r\nCookie: {cookies}\r\n\r\n")
}

/// Who answers a client with this cookie, which it keeps.
#[track_caller]
fn stays(front: &TestFront, cookie: &str) -> String {
    let answer = front.ask(showing(cookie));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("set-cookie"), None, "{}", answer.head);
    answer.body
}

#[test]
fn a_client_stays_at_the_instance_that_its_cookie_names() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let front = TestFront::start(Default::default(), 2);
    publish(&front, &backends.each_ref().map(|it| it.address));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let answer = front.ask(GET);
        let attributes = answer.field("set-cookie").unwrap().split_once(';').unwrap();
        assert_eq!(attributes.1, " Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(answer.field("cache-control"), Some("private"));
        clients.push((cookie(&answer), answer.body));
    }
    let first: String = clients.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(first, "abc");
    for _ in 0..5 {
        for (cookie, name) in &clients {
            assert_eq!(stays(&front, cookie), *name);
        }
    }
    // Who stays uses up no turn.
    let answers: String = (0..3).map(|_| front.ask(GET).body).collect();
    assert_eq!(answers, "abc");
}

#[test]
fn the_instance_sees_all_cookies_but_that_one() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[]);
    publish(&front, &[backend.address]);
    let cookie = cookie(&front.ask(GET));
    assert_eq!(stays(&front, &format!("x=1; {cookie}; y=\"2\"")), "a");
    assert_eq!(stays(&front, &cookie), "a");
    let seen = backend.seen();
    let cookies: Vec<_> = seen.iter().map(|seen| seen.field("cookie")).collect();
    assert_eq!(cookies, [None, Some("x=1; y=\"2\""), None]);
}

#[test]
fn a_client_whose_instance_cannot_serve_gets_another_one_and_its_cookie() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let front = TestFront::with(&[]);
    let both = [a.address, b.address];
    publish(&front, &both);
    let old = cookie(&front.ask(GET));
    assert_eq!(stays(&front, &old), "a");
    // It left, or is unusable.
    let unusable = sticky(&both, |web| web.backends[0].usable = false);
    for routes in [sticky(&[b.address], |_| {}), unusable] {
        front.front.publish(&routes, &settings("secret"));
        let answer = front.ask(showing(&old));
        assert_eq!(answer.body, "b");
        assert_eq!(stays(&front, &cookie(&answer)), "b");
    }
    // Back again, it has its clients that did not ask meanwhile.
    publish(&front, &both);
    assert_eq!(stays(&front, &old), "a");
}

#[test]
fn an_instance_that_refuses_loses_its_clients_and_one_without_weight_does_not() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dying = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut client = crate::kit::Client::over(stream);
        client.head();
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nd");
    });
    let b = Backend::named("b");
    let front = TestFront::with(&[]);
    let both = [dying, b.address];
    publish(&front, &both);
    let answer = front.ask(GET);
    assert_eq!(answer.body, "d");
    let old = cookie(&answer);
    served.join().unwrap();
    let answer = front.ask(showing(&old));
    assert_eq!(answer.body, "b");
    let new = cookie(&answer);
    let weightless = sticky(&[b.address, Backend::named("c").address], |web| {
        web.backends[0].weight = 0;
    });
    front.front.publish(&weightless, &settings("secret"));
    assert_eq!(stays(&front, &new), "b");
    assert_eq!(front.ask(GET).body, "c");
}

#[test]
fn fronts_with_one_key_know_each_others_clients() {
    let backends = ["a", "b"].map(Backend::named);
    let addresses = backends.each_ref().map(|it| it.address);
    let here = TestFront::with(&[]);
    publish(&here, &addresses);
    let cookie = cookie(&here.ask(GET));
    let there = TestFront::with(&[]);
    publish(&there, &[addresses[1], addresses[0]]);
    for _ in 0..3 {
        assert_eq!(stays(&there, &cookie), "a");
    }
    let routes = sticky(&addresses, |_| {});
    there.front.publish(&routes, &settings("another"));
    let stranger = there.ask(showing(&cookie));
    assert_eq!(stranger.status, 200);
    assert!(stranger.field("set-cookie").is_some());
    // Without a key nobody is kept, and nobody is turned away.
    there.front.publish(&routes, &Settings::default());
    assert_eq!(there.ask(showing(&cookie)).field("set-cookie"), None);
}

#[test]
fn a_cookie_is_for_the_paths_of_its_service_and_secure_where_the_client_is() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[]);
    let mut routes = sticky(&[backend.address], |web| {
        let mut rules = Arc::unwrap_or_clone(web.rules.take().unwrap());
        rules.path = Some("/api".into());
        web.rules = Some(rules.into());
    });
    routes.hosts.clear();
    routes.paths = vec![("web".into(), "/api".into(), Some(1))];
    let settings = Settings {
        forwarding: Forwarding {
            trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
            ..Forwarding::default()
        },
        ..settings("secret")
    };
    front.front.publish(&routes, &settings);
    let asked = |proto: &str| {
        let request =
            format!("GET /api HTTP/1.1\r\nHost: web\r\nX-Forwarded-Proto: {proto}\r\n\r\n");
        let answer = front.ask(request);
        let field = answer.field("set-cookie").unwrap();
        field.split_once("; ").unwrap().1.to_owned()
    };
    assert_eq!(asked("http"), "Path=/api; HttpOnly; SameSite=Lax");
    assert_eq!(asked("https"), "Path=/api; HttpOnly; SameSite=Lax; Secure");
}

#[test]
fn a_client_stays_among_the_canaries_and_they_get_no_more_for_it() {
    let backends = ["a", "b", "C"].map(Backend::named);
    let addresses = backends.each_ref().map(|it| it.address);
    let front = TestFront::with(&[]);
    let routes = |share| {
        sticky(&addresses, |web| {
            web.backends[2].canary = true;
            let mut rules = Arc::unwrap_or_clone(web.rules.take().unwrap());
            rules.canary = Some(Canary {
                share,
                field: Some("x-canary".into()),
            });
            web.rules = Some(rules.into());
        })
    };
    front.front.publish(&routes(1_000), &settings("secret"));
    let always = "GET / HTTP/1.1\r\nHost: web\r\nX-Canary: always\r\n\r\n";
    let answer = front.ask(always);
    assert_eq!(answer.body, "C");
    let canary = cookie(&answer);
    let before = backends[2].seen().len();
    for _ in 0..50 {
        front.ask(GET);
        assert_eq!(stays(&front, &canary), "C");
    }
    assert_eq!(backends[2].seen().len() - before, 50 + 5);
    // The trial is over.
    front.front.publish(&routes(0), &settings("secret"));
    let answer = front.ask(showing(&canary));
    assert_ne!(answer.body, "C");
    cookie(&answer);
}

#[test]
fn a_connection_that_leaves_http_is_kept_as_well() {
    let backend = Backend::start(|seen| match seen.field("upgrade") {
        Some(_) => Reply::Echo(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
                .to_vec(),
        ),
        None => Reply::Keep(ok("a")),
    });
    let front = TestFront::with(&[]);
    publish(&front, &[backend.address]);
    let mut client = front.client();
    client.send("GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    let head = client.head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nset-cookie: stay="), "{head}");
    assert_eq!(client.send("ping").bytes(4), b"ping");
}
