//! The tasks that follow the list of services, each service and the list of checks, and send what they learn.

mod shared;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep},
};

pub(super) use self::shared::Shared;
use super::{
    backoff::Backoff,
    checks::Checks,
    pace::Bucket,
    parse::{self, Listing},
    read::{Reader, Reading, Trouble},
};

/// What a follower learnt.
pub(super) enum Event {
    /// Whether the Consul agent says which node it is.
    Agent(Result<(), String>),
    /// About the list of services.
    Names(Result<Reading<BTreeSet<String>>, Trouble>),
    /// About one service.
    Listing(Arc<str>, Result<Reading<Listing>, Trouble>),
    /// About all checks.
    Checks(Result<Reading<Checks>, Trouble>),
    /// What a host name means.
    Resolved(Arc<str>, Result<IpAddr, String>),
}

/// Reads per second and watch; Consul may wake a query more often than anything changes.
const WATCH_PACE: Duration = Duration::from_secs(1);
const WATCH_BURST: u32 = 5;
/// The same of a service whose index moves: something of it did change.
const CHANGE_PACE: Duration = Duration::from_millis(100);
const CHANGE_BURST: u32 = 10;
/// The list of checks is large and wakes whenever any check changes: so much of it is read in a second.
const CHECKS_BYTES_PER_SECOND: usize = 2_500_000;
const CHECKS_PACE: Duration = Duration::from_millis(250);
/// One task asks whether Consul is back, so it may ask often; the others wait for its word.
const LIST_BACKOFF: Duration = Duration::from_secs(1);
const SERVICE_BACKOFF: Duration = Duration::from_secs(30);
const JITTER: Duration = Duration::from_secs(1);

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
    let mut refusals = Backoff::up_to(SERVICE_BACKOFF);
    let mut identified = None;
    loop {
        sleep(pace.take(Instant::now())).await;
        let asked = client.asked();
        if identified != Some(asked) {
            // Before any service is read, since it decides what is local.
            if let Some(known) = shared.identify().await {
                identified = Some(asked);
                if shared.events.send(Event::Agent(known)).await.is_err() {
                    return;
                }
            }
        }
        let read = reader.next().await;
        let failed_before = backoff.is_waiting();
        let mut wait = pause(&mut backoff, &read);
        match &read {
            Ok(_) => shared.fit(),
            // It is up, and its answer stays the same until somebody changes something.
            Err(Trouble::Request(error)) if error.is_refusal() => {
                wait = wait.max(refusals.failed(fastrand::f64()));
            }
            Err(_) => refusals.succeeded(),
        }
        match (failed_before, backoff.is_waiting()) {
            (true, false) => {
                refusals.succeeded();
                client.recovered.send_replace(());
            }
            (_, true) => {
                identified = None;
                reader.at_once();
            }
            (false, false) => {}
        };
        if shared.events.send(Event::Names(read)).await.is_err() {
            return;
        }
        sleep(wait).await;
    }
}

/// Follows one service until nobody listens any more: by a blocking query while it holds one of the few, else
/// whenever it is its turn.
pub(super) async fn service(
    shared: Arc<Shared>,
    service: Arc<str>,
    mut turns: watch::Receiver<()>,
) {
    let client = &shared.client;
    let mut reader = Reader::new(client, vec!["health", "service", &service], |body| {
        let listing = parse::listing(&service, body, &shared.standpoint.load())?;
        let entries = listing.entries;
        Ok((listing, entries))
    });
    let mut recovered = client.recovered.subscribe();
    // The answer to the first read is news, and what follows it is paced as such.
    let mut idle_pace = Bucket::new(WATCH_BURST - 1, WATCH_PACE);
    let mut change_pace = Bucket::new(CHANGE_BURST, CHANGE_PACE);
    let mut backoff = Backoff::up_to(SERVICE_BACKOFF);
    let mut watch = None;
    let (mut first, mut moved) = (true, true);
    loop {
        if watch.is_some()
            && shared.takes_one_back()
            && let Some(permit) = watch.take()
        {
            OwnedSemaphorePermit::forget(permit);
        }
        let polled = *shared.polled.borrow();
        if !moved && polled > 0 && !backoff.is_waiting() {
            // Nothing changed for the time of a query: somebody else may need it more.
            watch = None;
        }
        let many_left = || shared.watches.available_permits() > polled;
        if watch.is_none() && (moved || many_left()) {
            watch = shared.watches.clone().try_acquire_owned().ok();
            if watch.is_some() && !moved {
                // Its last answer is old.
                reader.at_once();
            }
        }
        recovered.mark_unchanged();
        turns.mark_unchanged();
        let read = if watch.is_some() && !first {
            let pace = if moved {
                &mut change_pace
            } else {
                &mut idle_pace
            };
            sleep(pace.take(Instant::now())).await;
            reader.next().await
        } else {
            let Ok(_turn) = shared.reads.acquire().await else {
                return;
            };
            reader.at_once();
            reader.next().await
        };
        first = false;
        moved = read.as_ref().is_ok_and(|read| read.moved);
        let wait = pause(&mut backoff, &read);
        let failed = backoff.is_waiting();
        if failed {
            reader.at_once();
        }
        let event = Event::Listing(service.clone(), read);
        if shared.events.send(event).await.is_err() {
            return;
        }
        if failed {
            tokio::select! {
                () = sleep(wait) => {}
                // Not all of us at once.
                _ = recovered.changed() => sleep(JITTER.mul_f64(fastrand::f64())).await,
            }
        } else if watch.is_none() && !(moved && shared.watches.available_permits() > 0) {
            let enough_for_all = *shared.polled.borrow() == 0;
            tokio::select! {
                turn = turns.changed() => if turn.is_err() {
                    return;
                },
                // The one that is ours is still held by a follower that ends. Nobody gives turns meanwhile.
                permit = shared.watches.clone().acquire_owned(), if enough_for_all => {
                    watch = permit.ok();
                    reader.at_once();
                }
            }
        }
    }
}

/// Follows the list of all checks while there are services without a blocking query.
pub(super) async fn checks(shared: Arc<Shared>) {
    let client = &shared.client;
    let mut reader = Reader::new(client, vec!["health", "state", "any"], |body| {
        let checks = Checks::parse(body)?;
        let entries = checks.count;
        Ok((checks, entries))
    });
    let mut polled = shared.polled.subscribe();
    let mut backoff = Backoff::up_to(SERVICE_BACKOFF);
    loop {
        if polled.wait_for(|&polled| polled > 0).await.is_err() {
            return;
        }
        let read = reader.next().await;
        let bytes = read.as_ref().map_or(0, |read| read.value.bytes);
        let rest = Duration::from_secs(1).mul_f64(ratio(bytes, CHECKS_BYTES_PER_SECOND));
        let wait = pause(&mut backoff, &read).max(rest).max(CHECKS_PACE);
        if backoff.is_waiting() {
            reader.at_once();
        }
        if shared.events.send(Event::Checks(read)).await.is_err() {
            return;
        }
        sleep(wait).await;
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    let float = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    float(part) / float(whole)
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
        // The leader is asked once for all of us, and is back within seconds.
        Err(Trouble::Older(_)) => backoff.failed(fastrand::f64()).min(LIST_BACKOFF),
        Err(Trouble::Request(error)) => {
            let longest = SERVICE_BACKOFF;
            let wait = backoff.failed(fastrand::f64());
            wait.max(error.retry_after().unwrap_or_default().min(longest))
        }
    }
}
