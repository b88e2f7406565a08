//! The stage: keeps the [`Table`] true, and says what changed.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Config, Engine, Networks, RequestError,
    client::Client,
    event::Told,
    inspect::Inspected,
    table::{Table, short},
};
use crate::{causes::error_chain, discover::consul::backoff::Backoff};

/// Why the stage ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine was away for longer than was allowed.
    #[error(
        "the Docker Engine has been away for {} s; ending, so that a restart mounts its socket anew",
        after.as_secs()
    )]
    Away {
        /// The limit.
        after: Duration,
        /// Why it could not be reached the last time.
        source: Box<RequestError>,
    },
}

/// Follows the engine until `stop`. `out` gets what is known of all containers; `departed` the full ids of those that
/// nothing new may be sent to because they are ending, have ended or were removed.
///
/// # Errors
/// Only when [`Config::give_up_after`] says so. An engine that is away is told in [`Engine::error`].
pub async fn run(
    config: Config,
    out: watch::Sender<Engine>,
    departed: watch::Sender<Arc<BTreeSet<String>>>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut follower = Follower {
        table: Table::default(),
        out,
        departed,
        name: None,
        networks: None,
        networks_trouble: None,
        trouble: None,
        heard: Instant::now(),
    };
    let mut backoff = Backoff::up_to(config.longest_pause);
    loop {
        let begun = Instant::now();
        let trouble = tokio::select! {
            trouble = follower.session(&config) => trouble,
            () = stop.cancelled() => return Ok(()),
        };
        // A list came: whatever ended the session, it was a good one.
        if follower.heard > begun {
            backoff.succeeded();
        }
        follower.lost(&trouble);
        if let Some(after) = config.give_up_after
            && follower.heard.elapsed() >= after
        {
            let source = Box::new(trouble);
            return Err(Error::Away { after, source });
        }
        tokio::select! {
            () = sleep(backoff.failed(fastrand::f64())) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

struct Follower {
    table: Table,
    out: watch::Sender<Engine>,
    departed: watch::Sender<Arc<BTreeSet<String>>>,
    name: Option<String>,
    networks: Option<Arc<Networks>>,
    /// Why the networks cannot be listed; whoever stands between the engine and us may forbid it.
    networks_trouble: Option<String>,
    /// Why the engine cannot be followed, until the next good list.
    trouble: Option<String>,
    /// When the last good list came, or the stage began.
    heard: Instant,
}

/// What a request brought.
enum Answer {
    List(BTreeSet<String>, Result<BTreeSet<String>, RequestError>),
    Look(String, Box<Result<Option<Inspected>, RequestError>>),
    Networks(Result<Networks, RequestError>),
}

impl Follower {
    /// Follows the engine until that fails.
    async fn session(&mut self, config: &Config) -> RequestError {
        self.table.disconnected();
        match self.follow(config).await {
            Err(trouble) => trouble,
            Ok(never) => match never {},
        }
    }

    async fn follow(&mut self, config: &Config) -> Result<std::convert::Infallible, RequestError> {
        let client = Client::negotiate(config).await?;
        // The time before the subscription: the engine subscribes a moment after it has begun to answer, and repeats
        // what happened since this time.
        let about = client.about().await?;
        self.name = about.name;
        let begun = about.time.unwrap_or_else(now);
        // Who is ending is told by nothing but the signal, which may have been sent when nobody listened.
        let sent = client.signals(begun.saturating_sub(LOOK_BACK), begun);
        let sent = sent.await.unwrap_or_else(|error| {
            // A hint: without it a container that is ending takes flows until it ends.
            warn!(
                error = error_chain(&error),
                "cannot ask the engine for past signals"
            );
            Vec::new()
        });
        self.table.happened_before(begun, sent, Instant::now());
        let mut events = client.events(begun).await?;
        let mut requests: FuturesUnordered<BoxFuture<'_, Answer>> = FuturesUnordered::new();
        requests.push(list(&client, self.table.ids()));
        let mut listing = true;
        requests.push(networks(&client));
        let mut looking_at_networks = LookingAtNetworks::default();
        looking_at_networks.begin();
        let start = tokio::time::Instant::now() + config.resync;
        let mut resync = interval_at(start, config.resync);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while requests.len() < AT_ONCE
                && let Some(id) = self.table.next()
            {
                let client = &client;
                requests.push(
                    async move {
                        let found = client.inspect(&id).await;
                        Answer::Look(id, Box::new(found))
                    }
                    .boxed(),
                );
            }
            tokio::select! {
                // Events first: the end of a container has no time to lose.
                biased;
                told = events.next() => match told? {
                    Told::Container(event) => self.table.happened(event, Instant::now()),
                    Told::Networks => if looking_at_networks.begin() {
                        requests.push(networks(&client));
                    },
                },
                Some(answer) = requests.next() => match answer {
                    Answer::List(before, listed) => {
                        self.table.list(&before, listed?, Instant::now());
                        self.listed();
                        listing = false;
                    }
                    Answer::Look(id, found) => {
                        let found = (*found).map_err(|error| error.to_string());
                        if let Err(error) = &found {
                            warn!(container = short(&id), error, "a container cannot be read");
                        }
                        self.table.looked(&id, found, Instant::now());
                    }
                    Answer::Networks(listed) => {
                        self.looked_at_networks(listed);
                        if looking_at_networks.end() {
                            requests.push(networks(&client));
                        }
                    }
                },
                _ = again.tick(), if self.table.lacks_some() => self.table.again(Instant::now()),
                _ = resync.tick(), if !listing => {
                    self.table.pass(Instant::now());
                    requests.push(list(&client, self.table.ids()));
                    listing = true;
                    if looking_at_networks.begin() {
                        requests.push(networks(&client));
                    }
                }
            }
            self.publish();
        }
    }

    fn listed(&mut self) {
        self.heard = Instant::now();
        if self.trouble.take().is_some() {
            info!("the Docker Engine can be followed again");
        }
        self.out.send_if_modified(|engine| {
            engine.updated = Some(SystemTime::now());
            false
        });
    }

    fn looked_at_networks(&mut self, listed: Result<Networks, RequestError>) {
        match listed {
            Ok(listed) => {
                self.networks_trouble = None;
                if self.networks.as_deref() != Some(&listed) {
                    self.networks = Some(Arc::new(listed));
                }
            }
            Err(error) => {
                let error = error.to_string();
                if self.networks_trouble.as_ref() != Some(&error) {
                    warn!(error, "the networks of the Docker Engine cannot be listed");
                }
                self.networks_trouble = Some(error);
            }
        }
    }

    fn lost(&mut self, trouble: &RequestError) {
        self.table.pass(Instant::now());
        let error = trouble.to_string();
        if self.trouble.as_ref() != Some(&error) {
            warn!(
                error,
                "the Docker Engine cannot be followed; what is known of its containers stays"
            );
        }
        self.trouble = Some(error);
        self.publish();
    }

    /// Tells what changed, the end of containers first.
    fn publish(&mut self) {
        let departed = self.table.departed();
        self.departed.send_if_modified(|told| {
            let changed = **told != departed;
            if changed {
                *told = Arc::new(departed);
            }
            changed
        });
        let (containers, unread) = (self.table.containers(), self.table.unread());
        let trouble = self.trouble.clone().or_else(|| self.table.hitch());
        let error = trouble.or_else(|| self.networks_trouble.clone());
        self.out.send_if_modified(|engine| {
            let same = engine.containers.as_deref() == containers.as_ref()
                && engine.unread == unread
                && engine.networks == self.networks
                && engine.error == error
                && engine.name == self.name;
            if same {
                return false;
            }
            if engine.containers.as_deref() != containers.as_ref() {
                engine.containers = containers.map(Arc::new);
            }
            engine.unread = unread;
            engine.networks.clone_from(&self.networks);
            engine.error = error;
            engine.name.clone_from(&self.name);
            true
        });
    }
}

fn list(client: &Client, before: BTreeSet<String>) -> BoxFuture<'_, Answer> {
    async move { Answer::List(before, client.list().await) }.boxed()
}

fn networks(client: &Client) -> BoxFuture<'_, Answer> {
    async move { Answer::Networks(client.networks().await) }.boxed()
}

/// A look at the networks that began before an event says nothing about what came after it.
#[derive(Debug, Default)]
struct LookingAtNetworks {
    underway: bool,
    again: bool,
}

impl LookingAtNetworks {
    /// Whether a look begins now; else one begins when the one under way is over.
    fn begin(&mut self) -> bool {
        self.again = self.underway;
        !std::mem::replace(&mut self.underway, true)
    }

    /// A look is over; whether another one begins now.
    fn end(&mut self) -> bool {
        self.underway = std::mem::take(&mut self.again);
        self.underway
    }
}

fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// How long ago a signal may have been sent whose container still ends, in nanoseconds.
const LOOK_BACK: u64 = 600 * 1_000_000_000;

/// Before another look at containers of the first list that could not be read.
const AGAIN: Duration = Duration::from_secs(2);

/// Requests at the same time; an engine answers each within milliseconds.
const AT_ONCE: usize = 8;
