//! The tasks that follow the list of services, each service and the list of checks, and send what they learn.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    backoff::Backoff,
    checks::Checks,
    client::Client,
    pace::Bucket,
    parse::{self, Listing, Standpoint},
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

/// What all followers share.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) events: mpsc::Sender<Event>,
    standpoint: ArcSwap<Standpoint>,
    /// One permit for each blocking query on a service.
    pub(super) watches: Arc<Semaphore>,
    max_watches: AtomicUsize,
    /// One for each other read of a service.
    reads: Semaphore,
    /// How many services are left without a blocking query.
    pub(super) polled: watch::Sender<usize>,
}

/// Reads per second and watch; Consul may wake a query more often than anything changes.
const WATCH_PACE: Duration = Duration::from_secs(1);
const WATCH_BURST: u32 = 5;
/// The same of a service whose index moves: something of it did change.
const CHANGE_PACE: Duration = Duration::from_millis(100);
const CHANGE_BURST: u32 = 10;
/// Reads of services at a time that Consul does not hold back, each on a connection of its own, or sharing one.
const READS: usize = 8;
const READS_MULTIPLEXED: usize = 32;
/// No limit for all that Consul can hold.
const WATCHES_MULTIPLEXED: usize = 1_000_000;
/// The list of checks is large and wakes whenever any check changes: so much of it is read in a second.
const CHECKS_BYTES_PER_SECOND: usize = 2_500_000;
const CHECKS_PACE: Duration = Duration::from_millis(250);
/// One task asks whether Consul is back, so it may ask often; the others wait for its word.
const LIST_BACKOFF: Duration = Duration::from_secs(1);
const SERVICE_BACKOFF: Duration = Duration::from_secs(30);

impl Shared {
    pub(super) fn new(client: Client, events: mpsc::Sender<Event>) -> Self {
        let config = client.config();
        let max_watches = config.max_watches;
        let standpoint = Standpoint {
            node: None,
            host: config.host.clone(),
            warning: config.warning,
        };
        Self {
            events,
            standpoint: ArcSwap::from_pointee(standpoint),
            watches: Arc::new(Semaphore::new(max_watches)),
            max_watches: AtomicUsize::new(max_watches),
            reads: Semaphore::new(READS),
            polled: watch::Sender::new(0),
            client,
        }
    }

    pub(super) fn max_watches(&self) -> usize {
        self.max_watches.load(Ordering::Relaxed)
    }

    /// Where one connection carries many requests, blocking queries cost none.
    fn widen(&self) {
        let before = self.max_watches();
        if self.client.multiplexes() && before < WATCHES_MULTIPLEXED {
            self.max_watches
                .store(WATCHES_MULTIPLEXED, Ordering::Relaxed);
            self.watches.add_permits(WATCHES_MULTIPLEXED - before);
            self.reads.add_permits(READS_MULTIPLEXED - READS);
        }
    }

    /// Learns which node the Consul agent is: its instances are local.
    async fn identify(&self) -> Option<Result<(), String>> {
        let agent = match self.client.agent().await {
            Ok(agent) => agent,
            Err(error) if error.is_forbidden() => {
                return Some(Err(
                    "the token may not read the Consul agent's name, so instances count as local only if \
                     this host's registrar registered them; give it agent_prefix \"\" read"
                        .to_owned(),
                ));
            }
            // Whatever it is, the list of services shows it, too.
            Err(_) => return None,
        };
        let node = Some(agent.node);
        let known = self.standpoint.load_full();
        if known.node != node {
            let known = Standpoint::clone(&known);
            self.standpoint
                .store(Arc::new(Standpoint { node, ..known }));
        }
        Some(Ok(()))
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
    let mut identified = false;
    loop {
        sleep(pace.take(Instant::now())).await;
        if !identified {
            // Before any service is read, since it decides what is local.
            if let Some(known) = shared.identify().await {
                identified = true;
                if shared.events.send(Event::Agent(known)).await.is_err() {
                    return;
                }
            }
        }
        let read = reader.next().await;
        shared.widen();
        let failed_before = backoff.is_waiting();
        let wait = pause(&mut backoff, &read);
        match (failed_before, backoff.is_waiting()) {
            (true, false) => client.recovered.send_replace(()),
            (_, true) => {
                identified = false;
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
                _ = recovered.changed() => {}
            }
        } else if watch.is_none()
            && !(moved && shared.watches.available_permits() > 0)
            && turns.changed().await.is_err()
        {
            return;
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
        Err(Trouble::Request(error)) => {
            let longest = SERVICE_BACKOFF;
            let wait = backoff.failed(fastrand::f64());
            wait.max(error.retry_after().unwrap_or_default().min(longest))
        }
    }
}
