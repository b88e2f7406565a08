use std::{
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use axum::{Router, routing::post};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::*;
use crate::admin::{
    compose::compose,
    figures::{Figure, Figures, Sample},
    sample,
};

/// Enough for three messages.
const POINTS: usize = 20_000;

fn texts() -> Texts {
    let mut registry = Registry::with_prefix("lb");
    registry.register_collector(Box::new(Figures::new(|| {
        let one = |number: usize| Sample::labelled([("service", &*format!("s{number}"))], 1.0);
        let all = (0..POINTS).map(one).collect();
        vec![Figure::counter("http_requests", "Counts.", all)]
    })));
    let report = compose(sample::material(None, None));
    Texts::encode(&report, false, Vec::new(), Vec::new(), &registry).unwrap()
}

fn about() -> About {
    let now = SystemTime::now();
    About {
        host: "h1".to_owned(),
        now,
        agent: now,
        front: None,
    }
}

/// What becomes of a push whose first messages are answered so, and how many there were.
async fn pushed(says: &[u16]) -> (Result<Taken, Failure>, usize) {
    let heard = Arc::new(Mutex::new(0));
    let (says, counts) = (says.to_vec(), Arc::clone(&heard));
    let answer = move |_: axum::body::Bytes| {
        let mut heard = counts.lock().unwrap();
        let status = says.get(*heard).copied().unwrap_or(200);
        *heard += 1;
        std::future::ready(StatusCode::from_u16(status).unwrap())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/", post(answer))
        .layer(axum::extract::DefaultBodyLimit::disable());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let config = Config {
        endpoint: endpoint.parse().unwrap(),
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
        headers_file: None,
        ca_file: None,
        compress: true,
    };
    let pushed = push(&config, &client(&config).unwrap(), texts(), about()).await;
    serving.abort();
    let heard = *heard.lock().unwrap();
    (pushed, heard)
}

#[tokio::test]
async fn a_message_that_is_refused_does_not_keep_back_those_behind_it() {
    let (all, messages) = pushed(&[]).await;
    assert_eq!(messages, 3);
    assert!(all.unwrap().points >= POINTS);
    let bad = StatusCode::BAD_REQUEST;
    let (some, messages) = pushed(&[400]).await;
    assert_eq!((&some, messages), (&Err(Failure::Partly(bad, 1, 3)), 3));
    let told = some.unwrap_err().to_string();
    assert!(
        told.contains("400 Bad Request to 1 of 3 messages"),
        "{told}"
    );
    let (none, messages) = pushed(&[400, 413, 400]).await;
    assert_eq!((none, messages), (Err(Failure::Refused(bad)), 3));
}

#[tokio::test]
async fn what_is_said_to_all_messages_is_heard_once() {
    for status in [401, 403, 404, 405, 415, 307] {
        let refused = Failure::Refused(StatusCode::from_u16(status).unwrap());
        assert_eq!(pushed(&[status]).await, (Err(refused), 1));
    }
    let busy = Failure::Busy(StatusCode::SERVICE_UNAVAILABLE, None);
    assert_eq!(pushed(&[200, 503]).await, (Err(busy), 2));
}

/// The only thread of this runtime does nothing else meanwhile.
#[tokio::test(flavor = "current_thread")]
async fn messages_are_made_while_the_runtime_is_held_up() {
    let mut messages = messages(texts(), about(), true);
    let limit = Instant::now() + Duration::from_secs(30);
    let mut points = 0;
    loop {
        match messages.try_recv() {
            Ok(message) => points += message.points,
            Err(mpsc::error::TryRecvError::Disconnected) => break,
            Err(mpsc::error::TryRecvError::Empty) => std::thread::yield_now(),
        }
        assert!(Instant::now() < limit, "{points} points so far");
    }
    assert!(points >= POINTS);
}
