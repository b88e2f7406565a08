//! The benches. What is measured is the program of the image; what measures is a program of its own: this one must not
//! depend on the agent, whose build needs the toolchain that this one sets up.

use std::ffi::OsString;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    image, packages, setup,
    shell::{cargo, run, say},
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
    Socket {
        /// A short run: shows that it works, proves nothing.
        #[arg(long)]
        quick: bool,
    },
    /// From a change in a real Consul to the kernel's map and the front's table; the last line is one JSON object. Needs root, and about
    /// four minutes.
    Discovery {
        /// A short run: shows that it works, proves nothing.
        #[arg(long)]
        quick: bool,
    },
    /// The front against HAProxy and nginx; the last line is one JSON object. Needs root, two cores, and about seven minutes.
    Front {
        /// A short run: shows that it works, proves nothing.
        #[arg(long)]
        quick: bool,
        /// Only this workload (`http2`, `tls`, …); may be said several times.
        #[arg(long, value_name = "WORKLOAD")]
        only: Vec<String>,
    },
    /// What `status`, the page and a scrape take among 1,000 and 10,000 services; the last line is one JSON object. Needs root, and
    /// about two minutes.
    Seeing {
        /// A short run: shows that it works, proves nothing.
        #[arg(long)]
        quick: bool,
    },
    /// The packet path against the bare primitives, the direct way and nftables; the last line is one JSON object. Needs root, and up
    /// to ten minutes.
    Packet {
        /// A short run: shows that it works, proves nothing.
        #[arg(long)]
        quick: bool,
    },
    /// What clients notice when a backend refuses, falls silent or is drained; the last line is one JSON object. Needs
    /// root, and about a minute.
    Failover {
        /// A short run: shows that it works, proves nothing.
        #[arg(long)]
        quick: bool,
    },
}

/// Measures.
///
/// # Errors
/// When the bench cannot be built or run. A figure that misses its goal is no error.
pub(crate) fn bench(bench: &Bench) -> Result<()> {
    setup::require_root("bench")?;
    setup::programs()?;
    setup::test_programs()?;
    let mut arguments: Vec<OsString> = Vec::new();
    let quick = match &bench.subject {
        Subject::Socket { quick } => {
            let rivals = packages::rivals(&tools())?;
            arguments.extend(["socket".into(), "--rivals".into(), rivals.into()]);
            quick
        }
        Subject::Front { quick, only } => {
            let rivals = packages::rivals(&tools())?;
            arguments.extend(["front".into(), "--rivals".into(), rivals.into()]);
            for workload in only {
                arguments.extend(["--only".into(), workload.into()]);
            }
            quick
        }
        Subject::Discovery { quick } => {
            let consul = packages::consul(&tools())?;
            let docker = packages::docker(&tools())?;
            arguments.extend(["discovery".into(), "--consul".into(), consul.into()]);
            arguments.extend(["--docker".into(), docker.into()]);
            quick
        }
        Subject::Seeing { quick } => {
            arguments.push("seeing".into());
            quick
        }
        Subject::Packet { quick } => {
            let rivals = packages::rivals(&tools())?;
            arguments.extend(["packet".into(), "--rivals".into(), rivals.into()]);
            quick
        }
        Subject::Failover { quick } => {
            arguments.push("failover".into());
            quick
        }
    };
    if *quick {
        arguments.push("--quick".into());
    }
    // The very program that users run, where it takes part.
    let agent = match &bench.subject {
        Subject::Packet { .. } => None,
        _ => Some(image::static_programs(image::Build::Small, &[], None)?.join("lb-agent")),
    };
    say("building the bench");
    let release = ["--release", "--quiet", "--locked", "--package", "lb-bench"];
    run(cargo().arg("build").args(release))?;
    say(if *quick {
        "measuring for a moment"
    } else {
        "measuring: this takes a few minutes on a quiet machine, up to ten on a busy one"
    });
    let mut measure = cargo();
    measure.arg("run").args(release).arg("--").args(arguments);
    if let Some(agent) = agent {
        measure.env("LB_BENCH_AGENT", agent);
    }
    run(&mut measure)
}
