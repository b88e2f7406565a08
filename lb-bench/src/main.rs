//! What the data plane costs, against doing without it, how fast discovery reaches it, and what the front costs.
//!
//! The programs are loaded and their maps filled by the agent's own code; clients, servers and hooks live in a
//! namespace and in cgroups of their own. Nothing here decides what is fast enough: the goals stand beside the
//! figures, and whoever reads the last line of the output judges.

mod client;
mod costs;
mod discovery;
mod failover;
mod front;
mod guard;
mod hooks;
mod kill;
mod packet;
mod ratios;
mod report;
mod rivals;
mod scale;
mod seeing;
mod server;
mod statistics;
mod subject;
mod world;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    costs::{Among, Costs},
    hooks::Hooks,
    ratios::Comparison,
    report::Report,
    server::{Network, Place},
    world::World,
};

/// Measures the data plane.
#[derive(Parser)]
#[command(disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Balanced flows against direct ones, and against other balancers.
    Socket {
        /// The folder with the packages of HAProxy and nftables.
        #[arg(long, env = "LB_RIVALS", value_name = "DIR")]
        rivals: PathBuf,
        /// A few seconds instead of a few minutes: shows that it works, proves nothing.
        #[arg(long)]
        quick: bool,
    },
    /// The agent with a large file of services.
    #[command(hide = true)]
    Scale {
        /// How many services.
        #[arg(long, default_value_t = 10_000)]
        services: usize,
        /// Instances of each.
        #[arg(long, default_value_t = 10)]
        instances: usize,
        /// Changes that are measured.
        #[arg(long, default_value_t = 200)]
        changes: usize,
        /// Without front and resolver.
        #[arg(long)]
        bare: bool,
    },
    /// The agent when a container is killed.
    #[command(hide = true)]
    Kill {
        /// The folder with the packages of a Docker Engine.
        #[arg(long, env = "LB_DOCKER", value_name = "DIR")]
        packages: PathBuf,
        /// How many containers are killed.
        #[arg(long, default_value_t = 100)]
        kills: usize,
    },
    /// From a change in Consul to the kernel's map and the front's table.
    Discovery(discovery::Discovery),
    /// What the front costs, against HAProxy and nginx.
    Front(front::Front),
    /// What the packet path costs, against the bare primitives, the direct way and nftables.
    Packet(packet::Packet),
    /// What clients notice when a backend refuses, falls silent or is drained.
    Failover {
        /// Half a minute: shows that it works, proves little.
        #[arg(long)]
        quick: bool,
    },
    /// What the command line and the page take among many services.
    Seeing {
        /// A few rounds: shows that it works, proves nothing.
        #[arg(long)]
        quick: bool,
    },
    /// Kernel programs of two builds: what the kernel makes of them, and their times in turns.
    #[command(hide = true)]
    Guard(guard::Guard),
    /// A server of the failover, in a process of its own.
    #[command(hide = true)]
    Answer {
        /// What it answers.
        number: u8,
    },
    /// The servers, in a process of their own.
    #[command(hide = true)]
    Serve {
        /// How they are reached.
        network: Network,
        /// The folder of the cgroup that the second set of listeners belongs to.
        bare: PathBuf,
    },
}

/// How much to measure.
struct Effort {
    /// Rounds of each comparison, at least.
    rounds: usize,
    /// How long one variant runs at a stretch.
    slice: Duration,
    /// When to give up on narrower intervals.
    limit: Duration,
    /// The same among many services.
    limit_among_many: Duration,
    /// Rounds of the programs' own times.
    cost_rounds: usize,
}

const FULL: Effort = Effort {
    // Two slices in each round make 250 of each variant.
    rounds: 125,
    slice: Duration::from_millis(50),
    limit: Duration::from_secs(360),
    limit_among_many: Duration::from_secs(90),
    cost_rounds: 251,
};

const QUICK: Effort = Effort {
    rounds: 5,
    slice: Duration::from_millis(20),
    limit: Duration::from_secs(10),
    limit_among_many: Duration::from_secs(2),
    cost_rounds: 9,
};

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Socket { rivals, quick } => socket(&rivals, if quick { &QUICK } else { &FULL }),
        Command::Discovery(what) => discovery::run(&what),
        Command::Front(what) => front::run(&what),
        Command::Packet(what) => packet::run(&what),
        Command::Failover { quick } => failover::run(quick),
        Command::Guard(what) => guard::run(&what),
        Command::Seeing { quick } => seeing::run(quick),
        Command::Answer { number } => failover::answer(number),
        Command::Serve { network, bare } => server::run(network, &bare),
        Command::Kill { packages, kills } => {
            let figures = kill::measure(&packages, kills)?;
            let line = serde_json::to_string(&figures).context("cannot write the figures")?;
            println!("{line}");
            Ok(())
        }
        Command::Scale {
            services,
            instances,
            changes,
            bare,
        } => {
            let figures = scale::measure(services, instances, changes, bare)?;
            println!(
                "{}",
                serde_json::to_string(&figures).context("cannot write the figures")?
            );
            Ok(())
        }
    }
}

fn socket(rivals: &Path, effort: &Effort) -> Result<()> {
    let cpu = claim_core()?;
    let (mut ratios, few) = World::inside(Some(rivals), |mut world| {
        let hooks = Hooks::new(world.programs(None)?)?;
        let few = &Comparison::AMONG_FEW;
        let ratios = ratios::measure(&mut world, effort, few, effort.limit)?;
        Ok((ratios, own_times(&mut world, hooks, effort, Among::Few)?))
    })?;
    let (ratios_among_many, many) = World::inside(None, |mut world| {
        let programs = world.programs(Some((Network::Bridge, Place::Hooked)))?;
        let many = &Comparison::AMONG_MANY;
        let ratios = ratios::measure(&mut world, effort, many, effort.limit_among_many)?;
        drop(programs);
        // The same services lead to where the programs' own times are measured.
        let hooks = Hooks::new(world.programs(Some((Network::Loopback, Place::Bare)))?)?;
        Ok((ratios, own_times(&mut world, hooks, effort, Among::Many)?))
    })?;
    ratios.extend(ratios_among_many);
    let report = Report::new(&ratios, &few, &many);
    report.context("nothing was measured")?.print(cpu)
}

/// What the programs cost by the kernel's own count, and their runs while a gigabyte flows.
fn own_times(
    world: &mut World,
    mut hooks: Hooks,
    effort: &Effort,
    among: Among,
) -> Result<(Costs, u64)> {
    // Not before the ratios: it slows the hooks down.
    hooks.count()?;
    let runs_during_transfer = costs::transfer_runs(world, &mut hooks)?;
    let costs = costs::measure(world, &mut hooks, effort, among)?;
    Ok((costs, runs_during_transfer))
}

/// Puts everything on one core, where no two parts of a connection can run side by side: so time is cost. And
/// in front of what else the machine does.
fn claim_core() -> Result<usize> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("cannot read the CPU affinity")?;
    // The last one: devices mostly interrupt the first.
    let cpu = (0..CpuSet::count())
        .rev()
        .find(|&cpu| allowed.is_set(cpu) == Ok(true))
        .context("no CPU is allowed")?;
    let mut one = CpuSet::new();
    one.set(cpu).context("cannot name the CPU")?;
    sched_setaffinity(this, &one).context("cannot stay on one CPU")?;
    rustix::process::setpriority_process(None, -20)
        .context("cannot raise the priority; run this as root")?;
    Ok(cpu)
}
