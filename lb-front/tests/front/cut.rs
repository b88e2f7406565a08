//! Backends that are taken out and whose time is over: what is on their connections ends, and nothing else does.

use std::{
    io::{ErrorKind, Read as _},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lb_front::{
    Limits, Reason, Settings,
    routes::{RouteBackend, RouteService, RoutesChange},
};
use tokio::sync::Semaphore;

use crate::{
    kit::{Client, GET, TestFront, eventually, routes},
    kit_h2::{Call, H2Backend, front as h2_front, h2c_routes},
    wskit::{Frame, Raw, TEXT, front},
};

const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi";

/// `routes` with the first backend of the first service taken out, and what is on it cut then, if at all.
fn out(mut routes: RoutesChange, cut: Option<u64>) -> RoutesChange {
    let web = Arc::make_mut(routes.services[0].1.as_mut().unwrap());
    let first = &mut web.backends[0];
    *first = RouteBackend {
        usable: false,
        cut,
        ..first.clone()
    };
    routes
}

fn publish(front: &TestFront, routes: &RoutesChange) {
    front.front.publish(routes, &Settings::default());
}

/// Milliseconds since 1970 after so long.
fn after(wait: Duration) -> u64 {
    let at = SystemTime::now() + wait;
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
fn a_tunnel_ends_with_its_backend_s_time_and_no_sooner() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    let wait = Duration::from_millis(700);
    for (turn, transport) in ["http", "https"].into_iter().enumerate() {
        front.publish(&[raw.backend.address]);
        let (mut client, mut peer) = raw.pair(&front, transport);
        // A drain without a time ends nothing.
        publish(&front, &out(routes(&[raw.backend.address]), None));
        let (began, cut) = (Instant::now(), after(wait));
        publish(&front, &out(routes(&[raw.backend.address]), Some(cut)));
        let frame = Frame::whole(TEXT, "still there").bare();
        while began.elapsed() < wait / 2 {
            peer.send(&frame);
            assert_eq!(client.bytes(frame.len()), frame, "{transport}");
        }
        // The end, and for TLS that it is one without a word.
        let ended = client.stream.read(&mut [0]).map_err(|error| error.kind());
        assert!(
            matches!(ended, Ok(0) | Err(ErrorKind::UnexpectedEof)),
            "{transport}: {ended:?}"
        );
        assert!(after(Duration::ZERO) >= cut, "{transport}: too early");
        assert_eq!(peer.rest(), b"", "{transport}");
        eventually("it is counted", || {
            (front.stats().ended(Reason::Cut) == turn as u64 + 1).then_some(())
        });
    }
}

#[test]
fn requests_on_a_cut_backend_end_and_those_on_others_go_on() {
    let (gone, stays) = (Raw::start(), Raw::start());
    let front = front(Limits::default(), &[&gone.backend]);
    // Its answer has begun.
    let mut begun = front.client();
    begun.send(GET);
    let (_, mut peer) = gone.taken();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart");
    assert!(begun.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(begun.bytes(4), b"part");
    // It waits for its answer, and may have been carried out.
    let mut waits = front.client();
    waits.send(POST);
    let _unanswered = gone.taken();
    let both = [gone.backend.address, stays.backend.address];
    publish(&front, &out(routes(&both), None));
    let mut other = front.client();
    other.send(POST);
    let (_, mut answers) = stays.taken();

    publish(&front, &out(routes(&both), Some(0)));
    assert_eq!(begun.rest(), b"");
    let answer = waits.answer();
    assert_eq!(
        (answer.status, &*answer.body),
        (503, "cut: the instance was taken out\n")
    );
    assert_eq!(peer.rest(), b"");
    answers.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(other.answer().status, 200);
    let stats = front.stats();
    assert_eq!((stats.ended(Reason::Cut), stats.ended(Reason::Ok)), (2, 1));
    // Nobody holds it against the backend.
    let failures = stats.backends.iter().map(|backend| backend.failures);
    assert_eq!(failures.sum::<u64>(), 0);

    // Back again it serves as before.
    front.publish(&both[..1]);
    let mut again = front.client();
    again.send(GET);
    let (_, mut peer) = gone.taken();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(again.answer().status, 200);
}

#[test]
fn a_backend_of_two_services_is_cut_only_for_both() {
    let (shared, other) = (Raw::start(), Raw::start());
    let front = front(Limits::default(), &[&shared.backend]);
    let both = |cut: [Option<u64>; 2]| {
        let mut all = routes(&[shared.backend.address, other.backend.address]);
        let web = RouteService::clone(all.services[0].1.as_ref().unwrap());
        for ((_, service), cut) in all.services.iter_mut().zip(cut) {
            let mut web = RouteService {
                label: service.as_ref().unwrap().label.clone(),
                ..web.clone()
            };
            web.backends[0].cut = cut;
            web.backends[1].cut = Some(0);
            *service = Some(Arc::new(web));
        }
        all
    };
    let (mut client, mut peer) = tunnel(&front, &shared);
    front.publish(&[other.backend.address]);
    let (mut beside, _peer) = tunnel(&front, &other);
    publish(&front, &both([Some(0), None]));
    // By then the front has looked at both.
    assert_eq!(beside.rest(), b"");
    peer.send("alive");
    assert_eq!(client.bytes(5), b"alive");
    publish(&front, &both([Some(0), Some(0)]));
    assert_eq!(client.rest(), b"");
}

/// Both ends after an upgrade.
fn tunnel(front: &TestFront, raw: &Raw) -> (Client, Client) {
    let mut client = front.client();
    client.send("GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    let (_, mut peer) = raw.taken();
    peer.send("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    (client, peer)
}

#[test]
fn requests_over_http_2_to_a_cut_backend_end() {
    static HOLD: Semaphore = Semaphore::const_new(0);
    async fn hold(mut call: Call) {
        if HOLD.acquire().await.is_ok() {
            let _ = call.answer.send_response(hyper::Response::new(()), true);
        }
    }
    let backend = H2Backend::start(hold);
    let front = h2_front(Limits::default(), &[backend.address]);
    let addresses: [SocketAddr; 1] = [backend.address];
    let mut client = front.client();
    client.send(POST);
    eventually("it is asked", || (backend.seen().len() == 1).then_some(()));
    publish(&front, &out(h2c_routes(&addresses), Some(0)));
    let answer = client.answer();
    assert_eq!(
        (answer.status, &*answer.body),
        (503, "cut: the instance was taken out\n")
    );
    assert_eq!(front.stats().ended(Reason::Cut), 1);
    HOLD.close();
}
