//! Pushes what `/metrics` shows to a receiver of OTLP, for those who are not scraped. It owns nothing but how the pushes went,
//! keeps nothing for later, since sums are cumulative, and holds up nobody: a receiver that is away costs points, no more.

mod batches;
pub(crate) mod headers;
mod line;
mod push;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus_client::registry::Registry;
use reqwest::Url;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    batches::About,
    push::{Failure, Taken},
};
use super::{
    ComponentLine,
    figures::{Figure, Figures, Sample},
    metrics::number,
    report::{Component, Mark},
    router::Desk,
    text,
};
use crate::discover::consul::backoff::Backoff;

/// Where metrics are pushed to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The whole URL of the receiver, without anything secret.
    pub endpoint: Url,
    /// Between two pushes.
    pub interval: Duration,
    /// For one message to be taken.
    pub timeout: Duration,
    /// A file of header fields that the receiver wants.
    pub headers_file: Option<PathBuf>,
    /// Whom to trust as the receiver; the system's authorities if absent.
    pub ca_file: Option<PathBuf>,
    /// Whether messages are compressed.
    pub compress: bool,
}

impl Config {
    /// What is to be said of it although it can be obeyed.
    pub fn warning(&self) -> Option<&'static str> {
        let is_open = self.endpoint.scheme() == "http" && !self.is_on_this_host();
        (is_open && self.headers_file.is_some()).then_some(
            "what headers_file holds goes over the network in clear; use an https:// endpoint",
        )
    }

    fn is_on_this_host(&self) -> bool {
        let host = self.endpoint.host_str().unwrap_or_default();
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            // RFC 6761, section 6.3.
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }
}

/// Between two tries after failures, at most; a longer interval holds.
const LONGEST: Duration = Duration::from_secs(300);

/// What pushes, before it does.
pub(super) struct Pusher {
    config: Config,
    client: reqwest::Client,
    told: Arc<Mutex<Told>>,
    front: Fronts,
}

/// Since when the front of a process id counts, as it was first read: the kernel tells the time of its boot by the clock of now,
/// which somebody may set. A start that moved would tell receivers of a front that began anew.
#[derive(Debug, Default)]
struct Fronts(Option<(u32, SystemTime)>);

impl Fronts {
    fn since(&mut self, told: Option<(u32, SystemTime)>) -> Option<SystemTime> {
        let (pid, since) = told?;
        let known = self.0.filter(|known| known.0 == pid);
        let (_, since) = *self.0.insert(known.unwrap_or((pid, since)));
        Some(since)
    }
}

/// How it went.
#[derive(Debug, Default)]
struct Told {
    ok: u64,
    failed: u64,
    rejected: u64,
    last: Option<Last>,
}

/// The last push.
#[derive(Debug)]
struct Last {
    at: SystemTime,
    outcome: Result<Taken, String>,
    /// Since when it has been so.
    since: SystemTime,
}

impl Pusher {
    /// Makes the client.
    ///
    /// # Errors
    /// What is wrong with the files of TLS.
    pub(super) fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            client: push::client(&config)?,
            config,
            told: Arc::default(),
            front: Fronts::default(),
        })
    }

    /// How it goes, for `status`.
    pub(super) fn line(&self) -> ComponentLine {
        let (told, config) = (Arc::clone(&self.told), self.config.clone());
        Box::new(move || component(&lock(&told), &config, SystemTime::now()))
    }

    /// The same in figures.
    pub(super) fn register(&self, registry: &mut Registry) {
        let told = Arc::clone(&self.told);
        registry.register_collector(Box::new(Figures::new(move || figures(&lock(&told)))));
    }

    /// Pushes until told to stop.
    pub(super) async fn run(mut self, desk: Desk, stop: CancellationToken) {
        let mut backoff = Backoff::up_to(LONGEST.max(self.config.interval));
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(next) => {}
            }
            let begun = Instant::now();
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.push(&desk) => outcome,
            };
            next = match &outcome {
                Ok(_) => {
                    backoff.succeeded();
                    // Those that were missed while this one took so long are left out.
                    (begun + self.config.interval).max(Instant::now())
                }
                Err(failure) => Instant::now() + self.pause(failure, &mut backoff),
            };
            self.tell(outcome);
        }
    }

    async fn push(&mut self, desk: &Desk) -> Result<Taken, Failure> {
        let (texts, front) = desk.metrics().await.map_err(|_| {
            Failure::Unreachable("a metric cannot be written: see the agent's log".to_owned())
        })?;
        let about = About {
            host: desk.host.to_string(),
            now: SystemTime::now(),
            agent: desk.started,
            front: self.front.since(front),
        };
        push::push(&self.config, &self.client, texts, about).await
    }

    fn pause(&self, failure: &Failure, backoff: &mut Backoff) -> Duration {
        let pause = backoff.failed(fastrand::f64());
        match failure {
            Failure::Unreachable(_) => pause,
            Failure::Busy(_, Some(wanted)) => pause.max((*wanted).min(LONGEST)),
            // The same again would be refused again, and who has too much to do is not asked sooner than usual.
            Failure::Busy(_, None) | Failure::Refused(_) | Failure::Partly(..) => {
                pause.max(self.config.interval)
            }
        }
    }

    /// Counts it, and logs what is not as it was.
    fn tell(&self, outcome: Result<Taken, Failure>) {
        let outcome = outcome.map_err(|failure| failure.to_string());
        let mut told = lock(&self.told);
        let was = told.last.as_ref().map(|it| (it.outcome.is_ok(), it.since));
        let now = SystemTime::now();
        match &outcome {
            Ok(taken) => {
                told.ok += 1;
                told.rejected = told.rejected.saturating_add(taken.rejected);
            }
            Err(_) => told.failed += 1,
        }
        let is_so = outcome.is_ok();
        let endpoint = &self.config.endpoint;
        match (&outcome, was) {
            (Ok(taken), None | Some((false, _))) => {
                info!(%endpoint, points = taken.points, "metrics are pushed");
            }
            (Err(error), None | Some((true, _))) => {
                warn!(%endpoint, error, "metrics cannot be pushed; trying again");
            }
            _ => {}
        }
        told.last = Some(Last {
            at: now,
            outcome,
            since: was.filter(|it| it.0 == is_so).map_or(now, |it| it.1),
        });
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn component(told: &Told, config: &Config, now: SystemTime) -> Component {
    let endpoint = &config.endpoint;
    let ago = |then| text::duration(now.duration_since(then).unwrap_or_default());
    let (mark, detail) = match &told.last {
        None => (Mark::Ok, format!("has not pushed yet to {endpoint}")),
        Some(last) => match &last.outcome {
            Err(error) => (
                Mark::Warning,
                format!(
                    "cannot push to {endpoint} since {}: {error}",
                    ago(last.since)
                ),
            ),
            Ok(taken) => {
                let points = text::count(taken.points, "point");
                let pushed = format!("pushed {points} to {endpoint} {} ago", ago(last.at));
                match taken {
                    Taken { rejected: 0, .. } => (Mark::Ok, pushed),
                    Taken { rejected, why, .. } => {
                        let why = why.as_deref().unwrap_or("it did not say why");
                        let detail = format!("{pushed}, {rejected} not taken: {why}");
                        (Mark::Warning, detail)
                    }
                }
            }
        },
    };
    match config.warning() {
        None => Component::new("otlp", mark, detail),
        Some(warning) => Component::new("otlp", Mark::Warning, format!("{detail}; {warning}")),
    }
}

fn figures(told: &Told) -> Vec<Figure> {
    let by_result = [("ok", told.ok), ("failed", told.failed)];
    let by_result =
        by_result.map(|(result, count)| Sample::labelled([("result", result)], number(count)));
    vec![
        Figure::counter(
            "otlp_pushes",
            "Pushes of the metrics by result.",
            by_result.into(),
        ),
        Figure::counter(
            "otlp_rejected_points",
            "Points that the receiver of the metrics did not want.",
            vec![Sample::plain(number(told.rejected))],
        ),
    ]
}

#[cfg(test)]
mod tests;
