//! The benches. What is measured is the program of the image; what measures is a program of its own: this one must not
//! depend on the agent, whose build needs the toolchain that this one sets up.

pub(crate) mod guard;
mod plot;
mod record;
mod report;
mod sheet;
mod sheets;
mod tables;

use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use self::{record::Record, report::Report, sheets::Name};
use crate::{
    image, packages, setup,
    shell::{cargo, run, run_and_hear, say},
    tools,
};

/// What to measure.
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// Balanced flows against direct ones, HAProxy and nftables; the last line is one JSON object. Needs root, and up to
    /// ten minutes.
    Socket(Short),
    /// From a change in a real Consul to the kernel's map and the front's table; the last line is one JSON object. Needs root, and
    /// about four minutes.
    Discovery(Short),
    /// The front against HAProxy and nginx; the last line is one JSON object. Needs root, two cores, and about seven minutes.
    Front {
        #[command(flatten)]
        short: Short,
        /// Only this workload (`http2`, `tls`, …); may be said several times.
        #[arg(long, value_name = "WORKLOAD")]
        only: Vec<String>,
    },
    /// What `status`, the page and a scrape take among 1,000 and 10,000 services; the last line is one JSON object. Needs root, and
    /// about two minutes.
    Seeing(Short),
    /// The packet path against the bare primitives, the direct way and nftables; the last line is one JSON object. Needs root, and up
    /// to ten minutes.
    Packet(Short),
    /// What clients notice when a backend refuses, falls silent or is drained; the last line is one JSON object. Needs
    /// root, and about a minute.
    Failover(Short),
    /// All of these, one after the other, and one report of them: docs/benchmarks.md, its records and its plots. Needs root, two
    /// cores, and about forty minutes.
    All {
        #[command(flatten)]
        short: Short,
        /// Only this subject; the records of the others stay. May be said several times.
        #[arg(long, value_name = "SUBJECT")]
        only: Vec<Name>,
    },
    /// The report of the records that there are, without measuring anything.
    Report,
    /// Whether this tree is slower than a base: instructions of hot paths, what the kernel makes of the programs, and their times in
    /// turns. Needs root for the programs.
    Guard(guard::Guard),
}

#[derive(Args, Clone, Copy)]
struct Short {
    /// A short run: shows that it works, proves nothing.
    #[arg(long)]
    quick: bool,
}

/// Measures.
///
/// # Errors
/// When the bench cannot be built or run. A figure that misses its goal is no error.
pub(crate) fn bench(bench: &Bench) -> Result<()> {
    let one = |name, short: &Short| measure(name, short.quick, &[]).map(drop);
    match &bench.subject {
        Subject::Socket(short) => one(Name::Socket, short),
        Subject::Packet(short) => one(Name::Packet, short),
        Subject::Discovery(short) => one(Name::Discovery, short),
        Subject::Failover(short) => one(Name::Failover, short),
        Subject::Seeing(short) => one(Name::Seeing, short),
        Subject::Front { short, only } => measure(Name::Front, short.quick, only).map(drop),
        Subject::All { short, only } => all(short.quick, only),
        Subject::Guard(guard) => guard::run(guard),
        Subject::Report => {
            let report = Report::published();
            report.write()?;
            say(&format!("written: {}", report.document().display()));
            Ok(())
        }
    }
}

/// Measures one after the other. A record is kept as soon as there is one, and one that fails does not cost the others.
fn all(quick: bool, only: &[Name]) -> Result<()> {
    let report = if quick {
        Report::of_a_short_run()
    } else {
        Report::published()
    };
    let commit = record::commit();
    let mut failed = Vec::new();
    for name in Name::ALL {
        if !only.is_empty() && !only.contains(&name) {
            continue;
        }
        say(&format!("bench {}", name.word()));
        let kept = measure(name, quick, &[])
            .and_then(|last| Record::of(name.word(), commit.as_deref(), &last))
            .and_then(|record| report.keep(name, &record));
        if let Err(error) = kept {
            eprintln!("    {} failed: {error:#}", name.word());
            failed.push(name.word());
        }
    }
    report.write()?;
    say(&format!("written: {}", report.document().display()));
    if !failed.is_empty() {
        bail!(
            "not measured: {}; their records are the last ones, if there are any",
            failed.join(", ")
        );
    }
    Ok(())
}

/// Measures one subject and answers the last line. Of the front only these workloads, if any is named.
fn measure(name: Name, quick: bool, only: &[String]) -> Result<String> {
    setup::require_root("bench")?;
    setup::programs()?;
    setup::test_programs()?;
    let mut arguments: Vec<OsString> = vec![name.word().into()];
    match name {
        Name::Socket | Name::Packet | Name::Front => {
            let rivals = packages::rivals(&tools())?;
            arguments.extend(["--rivals".into(), rivals.into()]);
        }
        Name::Discovery => {
            let consul = packages::consul(&tools())?;
            let docker = packages::docker(&tools())?;
            arguments.extend(["--consul".into(), consul.into()]);
            arguments.extend(["--docker".into(), docker.into()]);
        }
        Name::Seeing | Name::Failover => {}
    }
    for workload in only {
        arguments.extend(["--only".into(), workload.into()]);
    }
    if quick {
        arguments.push("--quick".into());
    }
    // The very program that users run, where it takes part.
    let agent = match name {
        Name::Packet => None,
        _ => Some(image::static_programs(image::Build::Small, &[], None)?.join("lb-agent")),
    };
    say("building the bench");
    let release = ["--release", "--quiet", "--locked", "--package", "lb-bench"];
    run(cargo().arg("build").args(release))?;
    say(if quick {
        "measuring for a moment"
    } else {
        "measuring: this takes a few minutes on a quiet machine, up to ten on a busy one"
    });
    let mut measure = cargo();
    measure.arg("run").args(release).arg("--").args(arguments);
    if let Some(agent) = agent {
        measure.env("LB_BENCH_AGENT", agent);
    }
    run_and_hear(&mut measure)
}
