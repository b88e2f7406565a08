//! The tasks that follow the list of services and each service, and send what they learn.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};

use super::{
    backoff::Backoff,
    client::Client,
    pace::Bucket,
    parse::{self, Listing},
    read::{Reader, Reading, Trouble},
};

/// What a follower learnt.
pub(super) enum Event {
    /// About the list of services.
    Names(Result<Reading<BTreeSet<String>>, Trouble>),
    /// About one service.
    Listing(String, Result<Reading<Listing>, Trouble>),
}

/// What all followers share.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) events: mpsc::Sender<Event>,
    /// One permit for each blocking query on a service.
    pub(super) watches: Arc<Semaphore>,
    polls: Semaphore,
    poll_pace: Mutex<Bucket>,
}

/// Reads per second and watch; Consul may wake a query more often than anything changes.
const WATCH_PACE: Duration = Duration::from_secs(1);
const WATCH_BURST: u32 = 5;
/// Connections and pace for the services beyond the blocking queries: with a thousand of them each is read
/// every fifty seconds, with a few every five.
const POLLS: usize = 4;
const POLL_PACE: Duration = Duration::from_millis(50);
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// One task asks whether Consul is back, so it may ask often; the others wait for its word.
const LIST_BACKOFF: Duration = Duration::from_secs(1);
const SERVICE_BACKOFF: Duration = Duration::from_secs(30);

impl Shared {
    pub(super) fn new(client: Client, events: mpsc::Sender<Event>) -> Self {
        let watches = Arc::new(Semaphore::new(client.config().max_watches));
        Self {
            client,
            events,
            watches,
            polls: Semaphore::new(POLLS),
            poll_pace: Mutex::new(Bucket::new(1, POLL_PACE)),
        }
    }
}

/// Follows the list of services until nobody listens any more.
pub(super) async fn names(shared: Arc<Shared>) {
    let client = &shared.client;
    let mut reader = Reader::new(client, vec!["catalog", "services"], |body| {
        let names = parse::names(body)?;
        let entries = names.len();
        Ok((names, entries))
    });
    let mut pace = Bucket::new(WATCH_BURST, WATCH_PACE);
    let mut backoff = Backoff::up_to(LIST_BACKOFF);
    loop {
        sleep(pace.take(Instant::now())).await;
        let read = reader.next().await;
        let failed_before = backoff.is_waiting();
        let wait = pause(&mut backoff, &read);
        match (failed_before, backoff.is_waiting()) {
            (true, false) => client.recovered.send_replace(()),
            (_, true) => reader.at_once(),
            (false, false) => {}
        };
        if shared.events.send(Event::Names(read)).await.is_err() {
            return;
        }
        sleep(wait).await;
    }
}

/// Follows one service until nobody listens any more.
pub(super) async fn service(shared: Arc<Shared>, service: String) {
    let client = &shared.client;
    let mut reader = Reader::new(client, vec!["health", "service", &service], |body| {
        let listing = parse::listing(&service, body)?;
        let entries = listing.registered;
        Ok((listing, entries))
    });
    let mut recovered = client.recovered.subscribe();
    let mut pace = Bucket::new(WATCH_BURST, WATCH_PACE);
    let mut backoff = Backoff::up_to(SERVICE_BACKOFF);
    let mut watch = None;
    loop {
        if watch.is_none() {
            watch = shared.watches.clone().try_acquire_owned().ok();
        }
        recovered.mark_unchanged();
        let read = if watch.is_some() {
            sleep(pace.take(Instant::now())).await;
            reader.next().await
        } else {
            let Ok(_poll) = shared.polls.acquire().await else {
                return;
            };
            let turn = shared
                .poll_pace
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(Instant::now());
            sleep(turn).await;
            reader.at_once();
            reader.next().await
        };
        let mut wait = pause(&mut backoff, &read);
        let failed = backoff.is_waiting();
        if failed {
            reader.at_once();
        } else if watch.is_none() {
            wait = POLL_INTERVAL;
        }
        let event = Event::Listing(service.clone(), read);
        if shared.events.send(event).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(wait) => {}
            _ = recovered.changed(), if failed => {}
        }
    }
}

/// How long to wait after `read`.
fn pause<T>(backoff: &mut Backoff, read: &Result<T, Trouble>) -> Duration {
    match read {
        // Held answers are waited for, not asked for again and again.
        Ok(_) | Err(Trouble::Held) => {
            backoff.succeeded();
            Duration::ZERO
        }
        Err(Trouble::Hidden(_)) => backoff.failed(fastrand::f64()),
        Err(Trouble::Request(error)) => {
            let longest = SERVICE_BACKOFF;
            let wait = backoff.failed(fastrand::f64());
            wait.max(error.retry_after().unwrap_or_default().min(longest))
        }
    }
}
