//! What the packet path costs: a packet by itself, a connection on its way through it, and a change of its tables.

mod card;
mod feeder;
mod frame;
mod network;
mod own;
mod report;
mod tables;
mod versus;
mod ways;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;

pub(crate) use self::versus::versus;
use crate::claim_core;

/// What loaders tell the programs of a host that has everything.
pub(crate) fn constants() -> Vec<(&'static str, u32)> {
    card::constants(card::Instance::Steady)
}

/// What the packet path costs, against the bare primitives, the direct way and nftables.
#[derive(Args)]
pub(crate) struct Packet {
    /// The folder with the packages of nftables.
    #[arg(long, env = "LB_RIVALS", value_name = "DIR")]
    rivals: PathBuf,
    /// A few seconds instead of a few minutes: shows that it works, proves nothing.
    #[arg(long)]
    quick: bool,
}

/// How much to measure.
struct Effort {
    /// Rounds of the programs' own times.
    cost_rounds: usize,
    /// Runs in one slice of those: of what leaves nothing behind, and of what inserts something.
    runs: u32,
    inserts: u32,
    /// Rounds of the ways, at least.
    rounds: usize,
    /// How long one of them is taken at a stretch.
    slice: Duration,
    /// When to give up on narrower intervals.
    limit: Duration,
    /// Tables that are made, and changes that are published.
    changes: usize,
}

const FULL: Effort = Effort {
    // Slices are so short that others seldom come between those of one round. All together are 30 million runs.
    cost_rounds: 151,
    runs: 100_000,
    inserts: 20_000,
    // Two slices in each round make 250 of each way.
    rounds: 125,
    slice: Duration::from_millis(50),
    limit: Duration::from_secs(360),
    changes: 400,
};

const QUICK: Effort = Effort {
    cost_rounds: 3,
    runs: 20_000,
    inserts: 10_000,
    rounds: 3,
    slice: Duration::from_millis(20),
    limit: Duration::from_secs(5),
    changes: 20,
};

/// Measures it.
///
/// # Errors
/// When the kernel refuses, or something does not do what is to be measured.
pub(crate) fn run(Packet { rivals, quick }: &Packet) -> Result<()> {
    measure(rivals, if *quick { &QUICK } else { &FULL })
}

fn measure(rivals: &Path, effort: &Effort) -> Result<()> {
    let cpu = claim_core()?;
    let costs = own::measure(effort)?;
    let tables = tables::measure(effort)?;
    let mut lines = network::Lines::new(rivals)?;
    let ways = ways::measure(&mut lines, effort)?;
    let report = report::Report::new(&costs, &ways, &tables);
    report.context("nothing was measured")?.print(cpu)
}
