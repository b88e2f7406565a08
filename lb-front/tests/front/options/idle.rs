//! `lb_idle`.

use std::{sync::Arc, time::Duration};

use lb_front::{Limits, Reason, Settings, rules::Rules};

use super::ruled;
use crate::kit::{Backend, GET, PATIENCE, Reply, Seen, TestFront, eventually};

const BRIEF: Duration = Duration::from_millis(100);

fn within(time: Duration) -> Rules {
    Rules {
        idle_milliseconds: Some(u64::try_from(time.as_millis()).unwrap()),
        ..Rules::default()
    }
}

fn reply(seen: &Seen) -> Reply {
    match seen.field("upgrade") {
        Some(_) => Reply::Echo(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n".into(),
        ),
        None => Reply::Rest(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
              6\r\ndata: \r\n"
                .into(),
            BRIEF * 20,
            b"0\r\n\r\n".into(),
        ),
    }
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";

/// A front on which `web` asks for `rules` and `down` for nothing, both on `backend`.
fn front(limits: Limits, rules: Rules, backend: &Backend) -> TestFront {
    let front = TestFront::start(limits, 1);
    let mut routes = ruled(rules, backend);
    let web = routes.services[0].1.clone().unwrap();
    let down = Arc::make_mut(routes.services[1].1.as_mut().unwrap());
    down.backends.clone_from(&web.backends);
    front.front.publish(&routes, &Settings::default());
    front
}

#[test]
fn events_may_be_rarer_than_the_front_would_bear() {
    let backend = Backend::start(reply);
    let limits = Limits {
        body_idle: BRIEF,
        ..Limits::default()
    };
    let front = front(limits, within(PATIENCE * 6), &backend);
    let mut patient = front.client();
    patient.send(GET).head();
    assert_eq!(patient.bytes(11), b"6\r\ndata: \r\n");
    let mut other = front.client();
    other.send(GET.replace("web", "down")).head();
    assert_eq!(other.rest(), b"6\r\ndata: \r\n");
    assert_eq!(front.stats().ended(Reason::ResponseStalled), 1);
    assert_eq!(patient.bytes(5), b"0\r\n\r\n");
    assert_eq!(front.stats().ended(Reason::Ok), 1);
}

#[test]
fn a_service_may_bear_less_than_the_front_in_answers_and_tunnels() {
    let backend = Backend::start(reply);
    let front = front(Limits::default(), within(BRIEF), &backend);
    let mut answer = front.client();
    answer.send(GET).head();
    assert_eq!(answer.rest(), b"6\r\ndata: \r\n");
    let mut tunnel = front.client();
    assert!(tunnel.send(UPGRADE).head().starts_with("HTTP/1.1 101"));
    assert_eq!(tunnel.rest(), b"");
    eventually("both are counted", || {
        let stats = front.stats();
        let ended = |reason| stats.ended(reason) == 1;
        (ended(Reason::ResponseStalled) && ended(Reason::TunnelIdle)).then_some(())
    });
    // Others have the front's own time.
    let mut other = front.client();
    other.send(UPGRADE.replace("web", "down")).head();
    other.send("still");
    assert_eq!(other.bytes(5), b"still");
}
