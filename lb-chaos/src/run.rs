//! Steps on a cluster, one after the other, each judged when it is over.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    cluster::{Cluster, HOSTS, Programs},
    event::Seen,
    moment::Moment,
    rules::{self, Invariant, Violation},
    schedule::{Schedule, Step, When},
};

/// How often each client tries after all is well again: what a host claims to know must be so.
const TRIES_AFTER: usize = 45;

/// The most violations that are told of one step.
const TOLD: usize = 10;

/// What did not hold in a step.
#[derive(Debug)]
pub struct Broken {
    /// What was done.
    pub step: Step,
    /// When the cluster began.
    began: Moment,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// What the agents said last.
    words: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} violations in: {}", self.violations.len(), self.step)?;
        for violation in self.violations.iter().take(TOLD) {
            let at = violation.at.since(self.began).as_secs_f64();
            let host = violation
                .host
                .map_or("all hosts".to_owned(), |it| format!("host {it}"));
            writeln!(
                f,
                "  {at:9.3} s, {host}: {}: {}",
                violation.invariant, violation.what
            )?;
        }
        f.write_str(&self.words)
    }
}

impl std::error::Error for Broken {}

/// What clients tried in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// New flows that were judged.
    pub connects: usize,
    /// Of these, those that failed and were excused.
    pub connects_failed: usize,
    /// Requests through the front.
    pub requests: usize,
    /// Of these, those that failed and were excused.
    pub requests_failed: usize,
    /// Established flows that ended, which was excused.
    pub flows_ended: usize,
}

impl Tried {
    fn add(&mut self, seen: &Seen) {
        let failed =
            |it: &crate::event::Try| matches!(it.outcome, crate::event::Outcome::Failed(_));
        match seen {
            Seen::Connect(it) => {
                self.connects += 1;
                self.connects_failed += usize::from(failed(it));
            }
            Seen::Request(it) => {
                self.requests += 1;
                self.requests_failed += usize::from(failed(it));
            }
            Seen::Broken { .. } => self.flows_ended += 1,
            Seen::Echo => {}
        }
    }

    fn sum(&mut self, other: Self) {
        self.connects += other.connects;
        self.connects_failed += other.connects_failed;
        self.requests += other.requests;
        self.requests_failed += other.requests_failed;
        self.flows_ended += other.flows_ended;
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connects,
            connects_failed,
            requests,
            requests_failed,
            flows_ended,
        } = self;
        write!(
            f,
            "{connects} connects ({connects_failed} failed as they may), {requests} requests \
             ({requests_failed}), {flows_ended} flows ended"
        )
    }
}

/// Does one step, and undoes it.
///
/// # Errors
/// [`Broken`] if something did not hold; another error if the step could not be done.
pub fn step(cluster: &mut Cluster, step: Step) -> Result<Tried> {
    let done = act(cluster, step);
    let mut tried = Tried::default();
    let mut violations = Vec::new();
    for host in 0..HOSTS {
        for seen in cluster.hosts[host].take_seen() {
            tried.add(&seen);
            violations.extend(rules::judge(&cluster.history, host, &seen));
        }
        if cluster.hosts[host].new_log().contains("panicked") {
            violations.push(Violation {
                invariant: Invariant::NobodyPanics,
                host: Some(host),
                at: Moment::now(),
                what: "the agent's log tells of a panic".to_owned(),
            });
        }
    }
    if cluster.engine.log().contains("panicked") {
        violations.push(Violation {
            invariant: Invariant::NobodyPanics,
            host: None,
            at: Moment::now(),
            what: "the registrar's log tells of a panic".to_owned(),
        });
    }
    violations.extend(cluster.vips_differ());
    if let Err(error) = done {
        violations.push(Violation {
            invariant: Invariant::HostRecovers,
            host: None,
            at: Moment::now(),
            what: format!("{error:#}"),
        });
    }
    if violations.is_empty() {
        return Ok(tried);
    }
    violations.sort_by_key(|it| it.at);
    let broken = Broken {
        step,
        began: cluster.began(),
        violations,
        words: cluster.last_words(),
    };
    Err(broken.into())
}

fn act(cluster: &mut Cluster, step: Step) -> Result<()> {
    let backend = step.removal.map(|(when, pick)| {
        let index = pick as usize % cluster.process_count();
        (when, index)
    });
    if let Some((When::Before, index)) = backend {
        cluster
            .remove(index)
            .context("a backend is to be removed")?;
    }
    let wound = step.fault.apply(cluster, step.pick);
    let wound = wound.with_context(|| format!("{:?}", step.fault))?;
    let lasted = last(cluster, step.lasts, backend);
    // What was done is undone whatever came of it: the next step wants a whole cluster.
    wound.heal(cluster).context("the fault is to end")?;
    lasted?;
    cluster.await_calm()?;
    cluster.await_tries(TRIES_AFTER)?;
    if let Some((_, index)) = backend {
        cluster.register(index).context("a backend is to return")?;
        cluster.await_calm()?;
    }
    Ok(())
}

fn last(cluster: &mut Cluster, tries: usize, backend: Option<(When, usize)>) -> Result<()> {
    if let Some((When::During, index)) = backend {
        cluster
            .remove(index)
            .context("a backend is to be removed")?;
    }
    cluster.await_tries(tries)
}

/// Goes through the schedule of a seed until the time is over, and tells each step.
///
/// # Errors
/// At the first step in which something did not hold, with the seed.
pub fn chaos(programs: &Programs, seed: u64, time: Duration) -> Result<()> {
    println!("chaos: seed {seed}, {} minutes", time.as_secs() / 60);
    let mut cluster = Cluster::start(programs).context("the cluster does not come up")?;
    let began = Instant::now();
    let (mut all, mut steps) = (Tried::default(), 0);
    for (number, next) in (1..).zip(Schedule::of(seed)) {
        if began.elapsed() >= time {
            break;
        }
        let at = Moment::now().since(cluster.began()).as_secs_f64();
        println!("{at:9.3} s  step {number}: {next}");
        let tried = step(&mut cluster, next)
            .with_context(|| format!("seed {seed}, step {number}: repeat it with --seed {seed}"))?;
        println!("             {tried}");
        all.sum(tried);
        steps = number;
    }
    println!("held: {steps} steps; {all}");
    Ok(())
}
