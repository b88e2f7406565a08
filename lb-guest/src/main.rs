//! The first process of a virtual machine: it tries on the machine's kernel what the agent is made of, tells what came of
//! it in one line of JSON, and ends the machine.
//!
//! `cargo xtask kernels` builds it without libraries, puts it into an initial file system with the agent's program and the
//! modules that it loads, and boots Debian's kernels with that. It attaches to the root of the control groups and takes
//! VIPs, so it does nothing anywhere else.

mod agent;
mod figures;
mod lan;
mod packet;
mod socket;
mod system;
mod table;
mod tried;

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};
use lb_testkit::guest::{REPORT_DEVICE, Report};

use self::tried::Tried;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!(
            "lb-guest is the first process of a virtual machine; run `cargo xtask kernels`, which boots that"
        );
        return ExitCode::from(2);
    }
    if let Err(error) = examine() {
        // On the console, whose end is shown when there is no report.
        eprintln!("lb-guest: {error:#}");
    }
    system::end();
    ExitCode::FAILURE
}

/// Tries everything, and writes the report.
fn examine() -> Result<()> {
    system::mount_usual()?;
    let hierarchy = system::hierarchy()?;
    let cgroup = system::mount_cgroups(hierarchy)?;
    system::load_modules()?;
    system::prepare_network()?;
    let mut tried = Tried::default();
    let programs = [
        socket::examine(&mut tried, &cgroup),
        packet::examine(&mut tried),
    ];
    agent::examine(&mut tried, &cgroup);
    let report = Report {
        release: system::release()?,
        hierarchy,
        programs: programs.into_iter().flatten().collect(),
        checks: tried.into_checks(),
    };
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    fs::write(REPORT_DEVICE, line).with_context(|| format!("cannot write {REPORT_DEVICE}"))
}
