//! Who is the owner: the host whose session holds a lock of Consul.
//!
//! A session that is not renewed ends, and with it the ownership: here after its time to live by our own clock ([`Lease`]),
//! in Consul later than that. So nobody has the lock while an earlier owner still answers, whatever is away: Consul, the
//! network, or the owner itself. What is believed is what Consul says of the lock, never that it took a request.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{kept::Kept, lease::Lease, moment::Moment, teller::Teller};
use crate::discover::consul::{
    RequestError,
    backoff::Backoff,
    lock::{Cursor, Held, Lock},
};

/// For how long nobody gets the lock of a session that Consul ended: beside the time that it waits anyway, and enough for
/// frames that are on their way.
const DELAY: Duration = Duration::from_secs(1);
/// Between two requests for a lock that nobody holds: it may still be in its delay, of which nothing is told.
const AGAIN: Duration = Duration::from_millis(500);
/// Between two attempts after a failure.
const BACKOFF: Duration = Duration::from_secs(5);
/// For giving the lock back.
const FAREWELL: Duration = Duration::from_secs(2);
/// Version of the lock's value.
const VERSION: u32 = 1;

/// This host, as the others read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Me {
    pub(super) node: String,
    pub(super) address: Option<IpAddr>,
}

impl Me {
    pub(super) fn name(&self) -> String {
        name(&self.node, self.address)
    }
}

fn name(node: &str, address: Option<IpAddr>) -> String {
    match address {
        Some(address) => format!("{node} ({address})"),
        None => node.to_owned(),
    }
}

/// The value of the lock.
#[derive(Serialize, Deserialize)]
struct Value {
    version: u32,
    node: String,
    address: Option<IpAddr>,
}

/// This host stands for election.
#[derive(Debug)]
pub(super) struct Election {
    lock: Lock,
    key: String,
    kept: Kept,
    ttl: Duration,
    me: Me,
    session: Option<String>,
}

/// Why this host does not stand any more.
#[derive(Debug)]
enum End {
    /// Consul knows no such session.
    Gone,
    /// The session could not be renewed in time.
    Silent,
    /// There is none.
    Failed(RequestError),
}

/// What a request brought.
enum Step {
    Renewed(Moment, Result<bool, RequestError>),
    Read(Cursor, Result<Held, RequestError>),
    Acquired(Result<bool, RequestError>),
}

impl Election {
    pub(super) fn new(lock: Lock, key: String, file: PathBuf, ttl: Duration, me: Me) -> Self {
        Self {
            lock,
            kept: Kept::new(file, key.clone(), ttl),
            key,
            ttl,
            me,
            session: None,
        }
    }

    /// Stands for election until `stop`, while this host is `able` to announce. If another agent follows (`keep`), that one
    /// finds the session and what it holds.
    pub(super) async fn run(
        mut self,
        mut teller: Teller,
        mut able: watch::Receiver<bool>,
        stop: CancellationToken,
        keep: CancellationToken,
    ) {
        self.session = self.kept.load().await;
        let mut backoff = Backoff::up_to(BACKOFF);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = becomes(&mut able, true) => {}
            }
            let end = tokio::select! {
                () = stop.cancelled() => break,
                () = becomes(&mut able, false) => {
                    teller.lost("no device has a link");
                    self.leave().await;
                    continue;
                }
                end = self.stand(&mut teller, &mut backoff) => end,
            };
            match end {
                End::Gone => {
                    teller.lost("Consul ended the session");
                    self.session = None;
                }
                End::Silent => {
                    teller.lost("the session could not be renewed in time");
                }
                End::Failed(error) => {
                    teller.trouble(Some(explain(&error, &self.key)));
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep(backoff.failed(fastrand::f64())) => {}
                    }
                }
            }
        }
        if keep.is_cancelled() {
            return;
        }
        teller.lost("the agent ends");
        self.leave().await;
    }

    /// Holds a session and the lock if it can be had, until that is over.
    async fn stand(&mut self, teller: &mut Teller, backoff: &mut Backoff) -> End {
        let asked = Moment::now();
        let patience = Lease::new(self.ttl, asked).patience();
        let session = match self.session.clone() {
            // It may have outlived a crash, or a silence.
            Some(session) => match self.lock.renew(&session, patience).await {
                Ok(true) => session,
                Ok(false) => return End::Gone,
                Err(error) => return End::Failed(error),
            },
            None => match self.lock.open(self.ttl, DELAY, patience).await {
                Ok(session) => {
                    self.session = Some(session.clone());
                    self.kept.save(&session).await;
                    session
                }
                Err(error) => return End::Failed(error),
            },
        };
        backoff.succeeded();
        let mut lease = Lease::new(self.ttl, asked);
        let (lock, session) = (&self.lock, &*session);
        let value = serde_json::json!(Value {
            version: VERSION,
            node: self.me.node.clone(),
            address: self.me.address,
        });
        let value = value.to_string().into_bytes();
        let renew = |at: Instant| async move {
            sleep_until(at).await;
            let asked = Moment::now();
            Step::Renewed(asked, lock.renew(session, patience).await)
        };
        let read = |mut cursor: Cursor, wait: Duration| async move {
            sleep(wait).await;
            let read = lock.next(&mut cursor).await;
            Step::Read(cursor, read)
        };
        let acquire = |wait: Duration| {
            let value = value.clone();
            async move {
                sleep(wait).await;
                Step::Acquired(lock.acquire(session, value, patience).await)
            }
        };
        let mut steps: FuturesUnordered<BoxFuture<'_, Step>> = FuturesUnordered::new();
        steps.push(renew(asked.at + lease.interval()).boxed());
        steps.push(read(Cursor::default(), Duration::ZERO).boxed());
        // Whether nobody holds the lock, and whether it is asked for already.
        let (mut is_free, mut is_asking, mut pause) = (false, false, Duration::ZERO);
        let mut troubles = Troubles::default();
        loop {
            let step = tokio::select! {
                biased;
                () = sleep_until(lease.until().at) => return End::Silent,
                Some(step) = steps.next() => step,
            };
            // What comes so late is of no use, whoever kept us from hearing it.
            if !Moment::now().is_before(lease.until()) && !matches!(step, Step::Renewed(..)) {
                return End::Silent;
            }
            match step {
                Step::Renewed(asked, Ok(true)) => {
                    lease.renewed(asked);
                    teller.renewed(lease.until());
                    troubles.renewal = None;
                    steps.push(renew(asked.at + lease.interval()).boxed());
                }
                Step::Renewed(_, Ok(false)) => return End::Gone,
                Step::Renewed(_, Err(error)) => {
                    troubles.renewal = Some(explain(&error, &self.key));
                    let again = Instant::now() + lease.patience();
                    steps.push(renew(again).boxed());
                }
                Step::Read(cursor, Ok(held)) => {
                    is_free = held.session.is_none();
                    if !is_free {
                        pause = Duration::ZERO;
                    }
                    match held.session.as_deref() {
                        Some(holder) if holder == session => {
                            teller.mine(&self.me, Some(lease.until()));
                        }
                        Some(_) => teller.others(Some(owner(&held.value))),
                        None => teller.others(None),
                    }
                    troubles.reading = None;
                    steps.push(read(cursor, Duration::ZERO).boxed());
                }
                Step::Read(cursor, Err(error)) => {
                    troubles.reading = Some(explain(&error, &self.key));
                    steps.push(read(cursor, lease.patience()).boxed());
                }
                Step::Acquired(result) => {
                    (is_asking, pause) = (false, AGAIN);
                    troubles.asking = result.err().map(|error| explain(&error, &self.key));
                }
            }
            if is_free && !is_asking {
                is_asking = true;
                steps.push(acquire(pause).boxed());
            }
            teller.trouble(troubles.first());
        }
    }

    /// Gives the lock back, so that another host has it at once, and ends the session.
    async fn leave(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let farewell = async {
            self.lock.release(&session, FAREWELL).await?;
            self.lock.close(&session, FAREWELL).await
        };
        // Else it ends by itself.
        if let Ok(Err(error)) = timeout(FAREWELL, farewell).await {
            warn!(error = %error.explain(), "the lock of the announcing host is not given back");
        }
        self.kept.remove().await;
    }
}

/// What is wrong with each kind of request.
#[derive(Default)]
struct Troubles {
    renewal: Option<String>,
    asking: Option<String>,
    reading: Option<String>,
}

impl Troubles {
    fn first(&self) -> Option<String> {
        let all = [&self.renewal, &self.asking, &self.reading];
        all.into_iter().flatten().next().cloned()
    }
}

/// This host is the owner while it is `able`, until `stop`; and beyond it, if `keep` says that another agent of this host follows.
pub(super) async fn always(
    me: Me,
    mut teller: Teller,
    mut able: watch::Receiver<bool>,
    stop: CancellationToken,
    keep: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = becomes(&mut able, true) => teller.mine(&me, None),
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = becomes(&mut able, false) => teller.lost("no device has a link"),
        }
    }
    if !keep.is_cancelled() {
        teller.lost("the agent ends");
    }
}

/// Returns when it is so; never if nobody will tell any more.
async fn becomes(able: &mut watch::Receiver<bool>, wanted: bool) {
    if able.wait_for(|able| *able == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Who wrote the value of the lock.
pub(super) fn owner(value: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(value).ok();
    value.filter(|it| it.version == VERSION).map_or_else(
        || "a host that cannot be read".to_owned(),
        |it| name(&it.node, it.address),
    )
}

fn explain(error: &RequestError, key: &str) -> String {
    let text = error.to_string();
    if error.is_forbidden() {
        return format!(
            "{text}; give the token session_prefix \"\" write and key_prefix \"{key}/\" write"
        );
    }
    if text.contains("Invalid Session TTL") {
        return format!(
            "{text}; raise `ttl` in [announce], or lower session_ttl_min of Consul's servers"
        );
    }
    error.explain()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_owner_and_one_that_cannot_be_read_somebody() {
        for (value, named) in [
            (
                r#"{"version":1,"node":"a","address":"10.0.0.1"}"#,
                "a (10.0.0.1)",
            ),
            (r#"{"version":1,"node":"a","address":null,"later":1}"#, "a"),
            (r#"{"version":2,"node":"a"}"#, "a host that cannot be read"),
            ("", "a host that cannot be read"),
        ] {
            assert_eq!(owner(value.as_bytes()), named);
        }
    }
}
