//! From a change in Consul to the kernel's map and to the front's table: a thousand services under a steady churn, over
//! HTTPS and over plain HTTP.
//!
//! The agent is that of the image, in a namespace and a cgroup of its own, beside a real Consul. Nothing in it knows
//! of the bench: what it installs is seen from outside, in the pinned map and by requests through the front.

mod agent;
mod change;
mod consul;
mod front;
mod installed;
mod watch;

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Cgroup, Netns};
use serde::Serialize;

use self::{
    agent::Agent,
    change::{Churn, Delays},
    consul::Consul,
    installed::Installed,
};
use crate::{kill, scale};

/// What is needed.
#[derive(clap::Args)]
pub(crate) struct Discovery {
    /// Less of everything: shows that it works, proves nothing.
    #[arg(long)]
    quick: bool,
    /// The binary of Consul.
    #[arg(long)]
    consul: PathBuf,
    /// The folder with the packages of a Docker Engine.
    #[arg(long)]
    docker: PathBuf,
}

/// How much to measure.
#[derive(Clone, Copy)]
struct Effort {
    services: usize,
    instances: usize,
    changes_per_second: u32,
    time: Duration,
    /// Services in a file, of as many instances, and changes of it.
    in_file: (usize, usize),
    /// Containers to kill.
    kills: usize,
}

const FULL: Effort = Effort {
    services: 1000,
    instances: 10,
    changes_per_second: 50,
    time: Duration::from_secs(60),
    in_file: (10_000, 200),
    kills: 100,
};

const QUICK: Effort = Effort {
    services: 100,
    instances: 3,
    time: Duration::from_secs(5),
    in_file: (300, 20),
    kills: 10,
    ..FULL
};

/// Services that plain HTTP follows as fast as HTTPS does.
const FEW: usize = 60;

/// The figures of the last line. What was not measured is left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answer_to_map_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answer_to_map_p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) register_to_map_p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answer_to_front_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answer_to_front_p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) register_to_front_p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plain_http_p99_ms: Option<f64>,
    /// From the same change to the map over plain HTTP, with no more services than it has blocking queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plain_http_few_p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kill_p99_ms: Option<f64>,
    /// From the start of the agent until all that Consul knows is in the map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consul_load_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) full_load_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) one_change_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) one_change_p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rss_mb: Option<f64>,
}

/// How the agent asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Https,
    Plain,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Https => "HTTPS",
            Self::Plain => "plain HTTP",
        })
    }
}

/// Measures and prints.
///
/// # Errors
/// When a part cannot be made or does not come up.
pub(crate) fn run(discovery: &Discovery) -> Result<()> {
    let effort = if discovery.quick { QUICK } else { FULL };
    // Started from another folder.
    let consul = discovery.consul.display();
    ensure!(
        discovery.consul.is_absolute(),
        "{consul} is no absolute path"
    );
    let mut figures = Figures::default();
    let many = cluster(discovery, effort, &[Transport::Https, Transport::Plain])?;
    let few = Effort {
        services: FEW.min(effort.services),
        time: effort.time / 2,
        ..effort
    };
    let few = cluster(discovery, few, &[Transport::Plain])?;
    if let [https, plain] = &*many {
        let Delays { map, front, .. } = &https.delays;
        figures.answer_to_map_p50_ms = map.of_answers(50);
        figures.answer_to_map_p99_ms = map.of_answers(99);
        figures.register_to_map_p99_ms = map.of_changes(99);
        figures.answer_to_front_p50_ms = front.of_answers(50);
        figures.answer_to_front_p99_ms = front.of_answers(99);
        figures.register_to_front_p99_ms = front.of_changes(99);
        figures.plain_http_p99_ms = plain.delays.map.of_changes(99);
        figures.consul_load_s = Some(https.load.as_secs_f64());
    }
    let (services, changes) = effort.in_file;
    println!("measuring {services} services in a file");
    let in_file = scale::measure(services, effort.instances, changes, false)?;
    figures.full_load_s = Some(in_file.full_load_s);
    figures.one_change_ms = Some(in_file.one_change_ms);
    figures.one_change_p99_ms = Some(in_file.one_change_p99_ms);
    figures.rss_mb = Some(in_file.rss_mb);
    figures.plain_http_few_p99_ms = few.first().and_then(|few| few.delays.map.of_changes(99));
    println!("killing {} containers", effort.kills);
    let killed = kill::measure(&discovery.docker, effort.kills)?;
    figures.kill_p99_ms = Some(killed.kill_p99_ms);
    for run in many.iter().chain(&few) {
        println!("{run}");
    }
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// What one agent showed.
struct Run {
    transport: Transport,
    services: usize,
    load: Duration,
    rss_mb: f64,
    delays: Delays,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |delay: Option<f64>| delay.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let Self {
            transport,
            services,
            ..
        } = self;
        writeln!(f, "{services} services over {transport}:")?;
        writeln!(
            f,
            "  loaded in {:.2} s, {:.0} MB",
            self.load.as_secs_f64(),
            self.rss_mb
        )?;
        let Delays { map, front, .. } = &self.delays;
        for (what, percentiles) in [
            ("answer to map", [50, 90, 99].map(|p| map.of_answers(p))),
            ("change to map", [50, 90, 99].map(|p| map.of_changes(p))),
            ("answer to front", [50, 90, 99].map(|p| front.of_answers(p))),
            ("change to front", [50, 90, 99].map(|p| front.of_changes(p))),
        ] {
            let [p50, p90, p99] = percentiles.map(text);
            writeln!(f, "  {what}: p50 {p50} ms, p90 {p90} ms, p99 {p99} ms")?;
        }
        write!(
            f,
            "  {} changes, {} of them never seen",
            self.delays.count(),
            self.delays.lost
        )
    }
}

/// A fresh Consul with a load of services, and one agent after the other.
fn cluster(discovery: &Discovery, effort: Effort, transports: &[Transport]) -> Result<Vec<Run>> {
    let folder = tempfile::Builder::new().prefix("lb-bench-").tempdir()?;
    let netns = Netns::new("bench")?;
    // First of all: nothing for the pool or for an instance can leave. The namespace has no other device, too.
    netns.ip(&format!(
        "route add unreachable {POOL}\naddr add {OWN}/32 dev lo\nroute add unreachable {INSTANCES}\n\
         route add local {ANSWERING} dev lo\n"
    ))?;
    front::answer(&netns)?;
    let bpffs = folder.path().join("bpf");
    std::fs::create_dir(&bpffs)?;
    netns.mount_bpffs(&bpffs)?;
    let group = Cgroup::new("bench")?;
    let consul = Consul::start(&discovery.consul, &netns, &group, folder.path())?;
    netns.enter(|| consul.fill(effort.services, effort.instances))??;
    let mut runs = Vec::new();
    for &transport in transports {
        println!("measuring {} services over {transport}", effort.services);
        let began = Instant::now();
        let mut agent = Agent::start(&netns, &group, folder.path(), &consul, transport)?;
        let run = netns.enter(|| -> Result<Run> {
            // Consul's own service is one of them.
            let installed = Installed::of(&mut agent.subject, &bpffs, effort.services + 1)?;
            let load = began.elapsed();
            agent.wait_ready()?;
            let vips = agent.vips(effort.services)?;
            let churn = Churn::new(effort.instances, effort.changes_per_second, effort.time);
            let delays = churn.run(&consul, vips, installed)?;
            Ok(Run {
                transport,
                services: effort.services,
                load,
                rss_mb: agent.rss_mb()?,
                delays,
            })
        })?;
        let run = run.with_context(|| format!("the agent said: {}", agent.last_words()))?;
        agent.subject.end()?;
        netns
            .enter(|| std::fs::remove_dir_all(bpffs.join("lb")))?
            .context("cannot remove the pins")?;
        runs.push(run);
    }
    Ok(runs)
}

const POOL: &str = "198.18.0.0/16";
const OWN: &str = "198.18.0.1";
/// Where most instances are said to be. Nobody can connect to them.
const INSTANCES: &str = "10.76.0.0/16";
/// Where those are that answer.
const ANSWERING: &str = "10.77.0.0/16";
