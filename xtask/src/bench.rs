//! The benches. What is measured is built with the release profile, in a program of its own: this one must not
//! depend on the agent, whose build needs the toolchain that this one sets up.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    setup,
    shell::{cargo, run, say},
};

/// What to measure.
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// Balanced connects against direct ones; the last line is one JSON object. Needs root, and up to fifteen
    /// minutes.
    Socket {
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
    say("building the bench with the release profile");
    let mut build = cargo();
    build.args([
        "build",
        "--release",
        "--quiet",
        "--locked",
        "--package",
        "lb-bench",
    ]);
    run(&mut build)?;
    let Subject::Socket { quick } = bench.subject;
    say(if quick {
        "measuring for a moment"
    } else {
        "measuring: this takes a few minutes on a quiet machine, up to fifteen on a busy one"
    });
    let mut measure = cargo();
    measure.args([
        "run",
        "--release",
        "--quiet",
        "--locked",
        "--package",
        "lb-bench",
        "--",
        "socket",
    ]);
    if quick {
        measure.arg("--quick");
    }
    run(&mut measure)
}
