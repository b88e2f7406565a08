//! The agent that is measured, a process of its own: the program that `LB_BENCH_AGENT` names, else the one beside this
//! one. Nothing in it knows of the bench; what it installs is seen from outside, in the pinned maps.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use lb_agent::programs::pin_root;
use lb_common::{MAP_VERSION, Service, ServiceKey, map};
use lb_testkit::{Cgroup, Netns, Process, Spawn};

/// A running agent.
pub(crate) struct Subject {
    process: Process,
}

/// The kernel's map of services.
pub(crate) type Services = HashMap<MapData, ServiceKey, Service>;

/// The file that [`Spawn`] writes for a process named `agent`.
const LOG: &str = "agent.log";

/// How long it may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);

impl Subject {
    /// Starts it with `lb.toml` in `folder`, where its log goes too, and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(folder: &Path, netns: &Netns, group: &Cgroup) -> Result<Self> {
        let program = program()?;
        let process = Spawn::new("agent", &program)
            .args(["run", "--config"])
            .arg(folder.join("lb.toml"))
            .hide("LB_")
            .hide("DOCKER_")
            .hide("CONSUL_")
            .netns(netns)
            .cgroup(group)
            .log(folder)
            .start()?;
        Ok(Self { process })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a condition, with `pause` between two looks.
    ///
    /// # Errors
    /// When it fails, takes too long, or the agent has ended.
    pub(crate) fn wait_until(
        &mut self,
        pause: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        while !condition()? {
            ensure!(began.elapsed() < PATIENCE, "not in {PATIENCE:?}");
            ensure!(self.process.is_running(), "the agent has ended");
            thread::sleep(pause);
        }
        Ok(())
    }

    /// Ends it; its front with it.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) fn end(mut self) -> Result<()> {
        self.process.terminate()?;
        self.process.wait(PATIENCE)?;
        Ok(())
    }
}

/// The agent's program.
///
/// # Errors
/// When nobody knows where this one lies.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(match std::env::var_os("LB_BENCH_AGENT") {
        Some(program) => program.into(),
        None => std::env::current_exe()
            .context("cannot find this program")?
            .with_file_name("lb-agent"),
    })
}

/// The end of the log of the agent in `folder`, which may have ended.
pub(crate) fn last_words(folder: &Path) -> String {
    let log = fs::read_to_string(folder.join(LOG)).unwrap_or_default();
    // Lines of the access log are not its own words.
    let lines = log.lines().filter(|line| !line.contains("\"GET /"));
    let lines: Vec<_> = lines.collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The pinned map of this name, below the mount of the bpf file system.
///
/// # Errors
/// When the agent has not pinned it.
pub(crate) fn pinned(bpffs: &Path, name: &str) -> Result<MapData> {
    let pin = pin_root(bpffs).join(format!("v{MAP_VERSION}")).join(name);
    MapData::from_pin(&pin).with_context(|| format!("no map is pinned at {}", pin.display()))
}

/// The pinned map of services.
///
/// # Errors
/// When the agent has not pinned it.
pub(crate) fn services(bpffs: &Path) -> Result<Services> {
    Ok(Map::HashMap(pinned(bpffs, map::SERVICES)?).try_into()?)
}

/// What a process keeps in memory, in MB of a million bytes.
///
/// # Errors
/// When it ended.
pub(crate) fn resident_mb(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .context("cannot read the memory of a process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok());
    let kib = kib.context("the kernel does not tell a process's memory")?;
    Ok(f64::from(kib) * 1024.0 / 1e6)
}
