//! Requests for which no backend has a place, retries that wait for others, and backends that do not accept.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use lb_front::{FrontStats, LimitSettings, Limits, Reason, Settings, rules::Rules};
use socket2::{Domain, Socket, Type};

use crate::kit::{
    Backend, Client, GET, PATIENCE, Reply, TestFront, eventually, ok, refusing, routes,
};

/// A backend that answers each request only when told to, in the order in which they came.
struct Slow {
    backend: Backend,
    go: mpsc::Sender<()>,
}

impl Slow {
    fn start() -> Self {
        let (go, told) = mpsc::channel::<()>();
        let told = Mutex::new(told);
        let backend = Backend::start(move |seen| {
            let path = seen.head.split(' ').nth(1).unwrap().to_owned();
            // The test ended if there is nobody to tell it.
            let _ = told.lock().unwrap().recv_timeout(PATIENCE);
            Reply::Keep(ok(&path))
        });
        Self { backend, go }
    }

    fn paths(&self) -> Vec<String> {
        let seen = self.backend.seen();
        let paths = seen.iter().map(|seen| seen.head.split(' ').nth(1).unwrap());
        paths.map(str::to_owned).collect()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n")
}

fn narrow() -> Limits {
    Limits {
        backend_connections: 1,
        queue: PATIENCE,
        ..Limits::default()
    }
}

fn queued(stats: &FrontStats) -> u64 {
    stats.services.iter().map(|service| service.queued).sum()
}

/// Sends a request for `path` and waits until `count` wait.
fn join(front: &TestFront, path: &str, count: u64) -> Client {
    let mut client = front.client();
    client.send(get(path));
    eventually("it waits", || {
        (queued(&front.stats()) == count).then_some(())
    });
    client
}

/// A client whose request the backend has.
fn occupy(front: &TestFront, slow: &Slow) -> Client {
    let mut client = front.client();
    client.send(get("/first"));
    eventually("it is there", || {
        (slow.backend.seen().len() == 1).then_some(())
    });
    client
}

#[test]
fn who_finds_no_place_waits_and_is_served_in_the_order_of_coming() {
    let slow = Slow::start();
    let front = TestFront::limited(narrow(), &[&slow.backend]);
    let mut clients = vec![occupy(&front, &slow)];
    let paths = ["/1", "/2", "/3", "/4"];
    for (count, path) in (1..).zip(paths) {
        clients.push(join(&front, path, count));
    }
    // One that leaves takes nobody's turn.
    drop(clients.remove(2));
    eventually("it has left", || {
        (queued(&front.stats()) == 3).then_some(())
    });
    for mut client in clients {
        slow.go.send(()).unwrap();
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(slow.paths(), ["/first", "/1", "/3", "/4"]);
    let stats = front.stats();
    assert_eq!((stats.connects, stats.reused), (1, 3));
    assert_eq!(queued(&stats), 0);
}

#[test]
fn who_waits_is_sent_on_by_what_it_was_let_in_by() {
    let slow = Slow::start();
    let front = TestFront::limited(narrow(), &[&slow.backend]);
    let named = |via: &str| Settings {
        via: via.to_owned(),
        ..Settings::default()
    };
    let routes = routes(&[slow.backend.address]);
    front.front.publish(&routes, &named("before"));
    let mut clients = [occupy(&front, &slow), join(&front, "/1", 1)];
    front.front.publish(&routes, &named("after"));
    for client in &mut clients {
        slow.go.send(()).unwrap();
        assert_eq!(client.answer().status, 200);
    }
    slow.go.send(()).unwrap();
    assert_eq!(front.ask(GET).status, 200);
    let seen = slow.backend.seen();
    let vias = seen.iter().map(|seen| seen.field("via"));
    let names = ["1.1 before", "1.1 before", "1.1 after"];
    assert_eq!(vias.collect::<Vec<_>>(), names.map(Some));
}

#[test]
fn the_place_of_a_connection_that_ended_is_given_to_who_waits() {
    let (go, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let backend = Backend::start(move |_| {
        let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        Reply::Close(ok("a"))
    });
    let front = TestFront::limited(narrow(), &[&backend]);
    let mut first = front.client();
    first.send(GET);
    eventually("it is there", || (backend.seen().len() == 1).then_some(()));
    let mut clients = vec![first, join(&front, "/1", 1), join(&front, "/2", 2)];
    for client in &mut clients {
        go.send(()).unwrap();
        assert_eq!(client.answer().body, "a");
    }
    assert_eq!(front.stats().connects, 3);
}

#[test]
fn nobody_waits_for_longer_than_may_be_and_no_more_than_may() {
    let slow = Slow::start();
    let limits = Limits {
        queue: Duration::from_secs(1),
        queued: 2,
        ..narrow()
    };
    let front = TestFront::limited(limits, &[&slow.backend]);
    let mut first = occupy(&front, &slow);
    let begun = Instant::now();
    let waiting = [join(&front, "/1", 1), join(&front, "/2", 2)];
    let refused = front.ask(get("/3"));
    assert_eq!(refused.status, 503);
    assert!(refused.body.starts_with("limit:"), "{}", refused.body);
    for mut client in waiting {
        let answer = client.answer();
        assert_eq!(answer.status, 503);
        assert!(answer.body.starts_with("queue_timeout:"), "{}", answer.body);
        // The same connection may ask again.
        assert_eq!(answer.field("connection"), None);
    }
    assert!((limits.queue..PATIENCE).contains(&begun.elapsed()));
    let stats = front.stats();
    assert_eq!(
        (
            stats.ended(Reason::Limit),
            stats.ended(Reason::QueueTimeout)
        ),
        (1, 2)
    );
    slow.go.send(()).unwrap();
    assert_eq!(first.answer().status, 200);
    slow.go.send(()).unwrap();
    assert_eq!(front.ask(get("/4")).status, 200);
    assert_eq!(slow.paths(), ["/first", "/4"]);
}

#[test]
fn a_backend_with_a_place_is_asked_before_anybody_waits() {
    let slow = Slow::start();
    let other = Backend::named("b");
    let front = TestFront::limited(narrow(), &[&slow.backend, &other]);
    let _first = occupy(&front, &slow);
    for _ in 0..6 {
        assert_eq!(front.ask(GET).body, "b");
    }
    assert_eq!(front.stats().retries, 0);
}

#[test]
fn who_waits_gets_the_place_of_a_backend_that_comes() {
    let slow = Slow::start();
    let front = TestFront::limited(narrow(), &[&slow.backend]);
    let _first = occupy(&front, &slow);
    let mut waiting = join(&front, "/1", 1);
    let other = Backend::named("b");
    front.publish(&[slow.backend.address, other.address]);
    assert_eq!(waiting.answer().body, "b");
}

#[test]
fn who_waits_gets_the_place_of_a_limit_that_is_raised() {
    let slow = Slow::start();
    let front = TestFront::limited(narrow(), &[&slow.backend]);
    let mut first = occupy(&front, &slow);
    let mut waiting = [join(&front, "/1", 1), join(&front, "/2", 2)];
    let limits = LimitSettings {
        backend_connections: Some(3),
        ..LimitSettings::default()
    };
    let settings = Settings {
        limits,
        ..Settings::default()
    };
    front
        .front
        .publish(&routes(&[slow.backend.address]), &settings);
    eventually("both are there", || {
        (slow.backend.seen().len() == 3).then_some(())
    });
    for client in [&mut first].into_iter().chain(&mut waiting) {
        slow.go.send(()).unwrap();
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn a_request_that_a_stale_connection_lost_waits_for_a_place_like_others() {
    let (end, told) = mpsc::channel::<()>();
    let told = Arc::new(Mutex::new(told));
    // The first connection answers once, and ends with its second request.
    let backend = Backend::start(move |seen| {
        let told = told.clone();
        match (seen.connection, seen.head.contains("/lost")) {
            (0, true) => Reply::Take(Box::new(move |_| {
                let _ = told.lock().unwrap().recv_timeout(PATIENCE);
            })),
            _ => Reply::Keep(ok("a")),
        }
    });
    let front = TestFront::start(narrow(), 1);
    let mut routes = routes(&[backend.address]);
    let web = Arc::make_mut(routes.services[0].1.as_mut().unwrap());
    web.rules = Some(Arc::new(Rules {
        retries: Some(0),
        ..Rules::default()
    }));
    front.front.publish(&routes, &Settings::default());
    assert_eq!(front.ask(GET).status, 200);
    let mut lost = front.client();
    lost.send(get("/lost"));
    eventually("it has the connection", || {
        (backend.seen().len() == 2).then_some(())
    });
    let mut waiting = join(&front, "/waiting", 1);
    end.send(()).unwrap();
    assert_eq!(waiting.answer().status, 200);
    assert_eq!(lost.answer().status, 200);
    assert_eq!(front.stats().retries, 1);
}

/// A port whose connects are never answered: its queue is full.
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    _sockets: Vec<Socket>,
}

impl BlackHole {
    pub(crate) fn dig() -> Self {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = socket();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = vec![listener];
        // Until one is left unanswered.
        loop {
            let filler = socket();
            let full = filler.connect_timeout(&address, Duration::from_millis(200));
            let is_full = full.is_err();
            sockets.push(filler);
            if is_full {
                break;
            }
            assert!(sockets.len() < 10, "its queue never fills");
        }
        Self {
            address: address.as_socket().unwrap(),
            _sockets: sockets,
        }
    }
}

#[test]
fn a_backend_that_does_not_accept_is_left_after_the_time_for_that() {
    let hole = BlackHole::dig();
    let living = Backend::named("a");
    let limits = Limits {
        connect: Duration::from_millis(200),
        ..Limits::default()
    };
    let front = TestFront::start(limits, 1);
    front.publish(&[hole.address]);
    let begun = Instant::now();
    let answer = front.ask(GET);
    assert_eq!(answer.status, 504);
    assert!(
        answer.body.starts_with("connect_timeout:"),
        "{}",
        answer.body
    );
    assert!((limits.connect..PATIENCE).contains(&begun.elapsed()));
    assert_eq!(front.stats().ended(Reason::ConnectTimeout), 1);
    front.publish(&[hole.address, living.address]);
    let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";
    for _ in 0..4 {
        assert_eq!(front.ask(post).body, "a");
    }
}

#[test]
fn a_storm_of_retries_is_bounded_and_loses_nothing_that_can_be_served() {
    const CLIENTS: usize = 64;
    let living = Backend::named("a");
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[refusing(), living.address]);
    thread::scope(|threads| {
        for _ in 0..CLIENTS {
            threads.spawn(|| {
                let mut client = front.client();
                for _ in 0..20 {
                    assert_eq!(client.send(GET).answer().status, 200);
                }
            });
        }
    });
    // Nobody accepts: a retry takes as long as a connect, and few are under way at once.
    let holes = [BlackHole::dig(), BlackHole::dig(), BlackHole::dig()];
    let limits = Limits {
        connect: Duration::from_millis(400),
        queue: Duration::from_millis(100),
        ..Limits::default()
    };
    let front = TestFront::start(limits, 1);
    front.publish(&holes.each_ref().map(|hole| hole.address));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| front.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 504);
    }
    let retries = front.stats().retries;
    // A fifth of them, each twice, and again after the first ones have failed; without a budget two for each.
    assert!((3..=CLIENTS as u64).contains(&retries), "{retries}");
}
