//! How connections and requests of HTTP/2 end: in a drain, by silence, when clients leave or stop.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use h2::client::Builder;
use hyper::{Request, StatusCode, Version};
use lb_front::{Limits, Reason};
use tokio::time::timeout;

use super::client::{connect, connect_with, get, within};
use crate::kit::{Backend, Reply, TestFront, eventually, ok};

#[test]
fn a_drain_says_goaway_and_lets_requests_end() {
    let backend = Backend::start(|_| {
        std::thread::sleep(Duration::from_millis(500));
        Reply::Keep(ok("late"))
    });
    let mut front = TestFront::with(&[&backend]);
    within(async {
        let mut idle = connect(&front).await;
        assert_eq!(
            idle.ask(get("unknown")).await.unwrap().response.status(),
            503
        );
        let mut busy = connect(&front).await;
        let mut ready = busy.requests.clone().ready().await.unwrap();
        let (response, _) = ready.send_request(get("web"), true).unwrap();
        while backend.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        let drained = front.drain();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        idle.driver.await.unwrap().unwrap();
        busy.driver.await.unwrap().unwrap();
        assert!(poll_fn(|cx| busy.requests.poll_ready(cx)).await.is_err());
        assert_eq!(drained.join().unwrap().ended(Reason::Ok), 1);
    });
}

#[test]
fn an_idle_connection_is_closed_and_a_silent_one_too() {
    let backend = Backend::named("a");
    let limits = Limits {
        keep_alive: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    within(async {
        let mut connection = connect(&front).await;
        assert_eq!(connection.ask(get("web")).await.unwrap().body, b"a");
        connection.driver.await.unwrap().unwrap();
    });
    eventually("its place is free", || {
        (front.stats().open == 0).then_some(())
    });
}

#[test]
fn a_client_that_resets_or_leaves_frees_the_backend() {
    let backend = Backend::start(|_| Reply::Stall(Vec::new()));
    let front = TestFront::with(&[&backend]);
    within(async {
        let connection = connect(&front).await;
        for _ in 0..2 {
            let mut ready = connection.requests.clone().ready().await.unwrap();
            let (response, mut stream) = ready.send_request(get("web"), true).unwrap();
            while backend.open() == 0 {
                tokio::task::yield_now().await;
            }
            stream.send_reset(h2::Reason::CANCEL);
            drop(response);
            while backend.open() > 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut ready = connection.requests.clone().ready().await.unwrap();
        let (_response, _stream) = ready.send_request(get("web"), true).unwrap();
        while backend.open() == 0 {
            tokio::task::yield_now().await;
        }
        connection.driver.abort();
    });
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
    eventually("it is counted", || {
        (front.stats().ended(Reason::ClientAbort) == 3).then_some(())
    });
}

#[test]
fn a_window_that_does_not_open_holds_no_backend() {
    let large = "x".repeat(1024 * 1024);
    let backend = Backend::start(move |_| Reply::Keep(ok(&large)));
    let limits = Limits {
        write_stall: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    within(async {
        let mut narrow = Builder::new();
        narrow.initial_window_size(0);
        let mut connection = connect_with(&front, &narrow).await;
        let mut ready = connection.requests.clone().ready().await.unwrap();
        let (response, _) = ready.send_request(get("web"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert!(body.data().await.unwrap().is_err());
        while backend.open() > 0 {
            tokio::task::yield_now().await;
        }
        // The connection itself is good.
        let answer = connection.ask(get("unknown"));
        assert!(timeout(Duration::from_millis(100), answer).await.is_err());
    });
    assert!(front.stats().ended(Reason::ClientAbort) > 0);
}

#[test]
fn a_body_that_stops_is_answered_and_frees_the_backend() {
    let backend = Backend::named("a");
    let limits = Limits {
        body_idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    within(async {
        let mut connection = connect(&front).await;
        let mut ready = connection.requests.clone().ready().await.unwrap();
        let post = Request::post("http://web/").version(Version::HTTP_2);
        let (response, mut stream) = ready.send_request(post.body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 408);
        while backend.open() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(connection.ask(get("web")).await.unwrap().body, b"a");
    });
    assert_eq!(front.stats().ended(Reason::BodyTimeout), 1);
}
