//! The commands that prove what holds while things fail. What runs is a program of its own, like the benches: this one must not depend
//! on the agent.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;
use clap::{Args, builder::RangedU64ValueParser, value_parser};

use crate::{
    bench::guard::Base,
    packages, setup,
    shell::{cargo, run, say},
    tools, workspace,
};

/// Which faults, and for how long.
#[derive(Args)]
pub(crate) struct Chaos {
    /// The same seed has the same faults in the same order; without it one is chosen and printed.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// No step begins after this time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = minutes())]
    minutes: u64,
    /// A commit, or the name of a release: its agent is the other version that takes over and hands back. Without one that is this
    /// very program, which is only ended and started.
    #[arg(long, value_name = "REF")]
    former: Option<String>,
}

/// For how long.
#[derive(Args)]
pub(crate) struct Soak {
    /// How long it is watched.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = minutes())]
    minutes: u64,
}

/// In no time nothing is tried, and nobody waits for more than a week.
fn minutes() -> RangedU64ValueParser {
    value_parser!(u64).range(1..=7 * 24 * 60)
}

/// Fault after fault.
///
/// # Errors
/// When something did not hold, or the cluster cannot be built.
pub(crate) fn chaos(args: &Chaos) -> Result<()> {
    let mut arguments: Vec<OsString> = vec!["chaos".into()];
    arguments.extend(["--minutes".into(), args.minutes.to_string().into()]);
    if let Some(seed) = args.seed {
        arguments.extend(["--seed".into(), seed.to_string().into()]);
    }
    let former = args.former.as_deref().map(former).transpose()?;
    start("chaos", &arguments, former)
}

/// The agent of a commit.
fn former(reference: &str) -> Result<PathBuf> {
    setup::programs()?;
    let base = Base::of(workspace(), reference)?;
    say(&format!("building the agent of {}", base.commit));
    run(cargo()
        .current_dir(&base.tree)
        .args(["build", "--quiet", "--locked", "--package", "lb-agent"])
        .env("CARGO_TARGET_DIR", base.tree.join("target")))?;
    Ok(base.tree.join("target/debug/lb-agent"))
}

/// Load and steady changes.
///
/// # Errors
/// When something grows, or the cluster cannot be built.
pub(crate) fn soak(args: &Soak) -> Result<()> {
    let minutes = args.minutes.to_string();
    start(
        "soak",
        &["soak".into(), "--minutes".into(), minutes.into()],
        None,
    )
}

/// What `ci` does beside the faults, each of which is a test: a leak that is not slow is seen.
///
/// # Errors
/// As [`soak`].
pub(crate) fn short() -> Result<()> {
    say("whether anything grows");
    soak(&Soak { minutes: 2 })
}

fn start(command: &str, arguments: &[OsString], former: Option<PathBuf>) -> Result<()> {
    setup::require_root(command)?;
    setup::programs()?;
    setup::test_programs()?;
    let consul = packages::consul(&tools())?;
    let docker = packages::docker(&tools())?;
    let faketime = packages::faketime(&tools())?;
    say("building the agent and what tries it");
    // One call for each: features would unify.
    for package in ["lb-agent", "lb-chaos"] {
        run(cargo().args(["build", "--quiet", "--locked", "--package", package]))?;
    }
    let program = ["run", "--quiet", "--locked", "--package", "lb-chaos", "--"];
    run(cargo()
        .args(program)
        .args(arguments)
        .env("LB_CONSUL", &consul)
        .env("LB_DOCKER", &docker)
        .env("LB_FAKETIME", &faketime)
        .envs(former.map(|it| ("LB_FORMER", it))))
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    #[test]
    fn no_time_is_refused_because_nothing_would_be_tried() {
        let parse = |command: Command, minutes| {
            let words = ["it", "--minutes", minutes];
            command.try_get_matches_from(words)
        };
        let chaos = || Chaos::augment_args(Command::new("it"));
        let soak = || Soak::augment_args(Command::new("it"));
        for command in [chaos(), soak()] {
            let error = parse(command, "0").unwrap_err().to_string();
            assert!(error.contains("1..=10080"), "{error}");
        }
        let given = parse(chaos(), "1").unwrap();
        assert_eq!(Chaos::from_arg_matches(&given).unwrap().minutes, 1);
    }
}
