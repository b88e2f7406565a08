//! `cargo xtask kernels`: boots the kernels of Debian's releases in QEMU, tries on each what the agent is made of, and
//! compares what their verifiers and compilers make of every program with the record.

mod archive;
mod machine;
mod modules;
mod record;
mod tables;

use anyhow::{Result, bail};
use lb_ebpf_build::Toolchain;
use lb_testkit::guest::{Check, Hierarchy, Outcome, Report};

use self::{
    machine::Machine,
    record::{Entry, Record},
};
use crate::{
    image::{self, Build},
    packages::{self, Suite},
    setup,
    shell::say,
    tools,
};

/// Arguments of `cargo xtask kernels`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep what is found in the record, instead of comparing it with that.
    #[arg(long)]
    write: bool,
    /// Boot only kernels of this suite, such as bookworm; may be repeated.
    #[arg(long, value_name = "SUITE", value_parser = suite_of)]
    only: Vec<Suite>,
}

/// A kernel to boot.
struct Kernel {
    suite: Suite,
    hierarchies: &'static [Hierarchy],
    /// Whether it is new enough.
    is_supported: bool,
}

/// From the oldest to the newest. Debian has none from 5.19 to 6.0: they were between two of its releases.
const KERNELS: [Kernel; 5] = [
    Kernel {
        suite: Suite::Bullseye,
        hierarchies: &[Hierarchy::Unified],
        is_supported: false,
    },
    Kernel {
        suite: OLDEST,
        hierarchies: &[Hierarchy::Unified, Hierarchy::Hybrid],
        is_supported: true,
    },
    Kernel {
        suite: Suite::Trixie,
        hierarchies: &[Hierarchy::Unified],
        is_supported: true,
    },
    Kernel {
        suite: Suite::Forky,
        hierarchies: &[Hierarchy::Unified],
        is_supported: true,
    },
    Kernel {
        suite: Suite::TrixieBackports,
        hierarchies: &[Hierarchy::Unified],
        is_supported: true,
    },
];

/// The suite with the oldest kernel that the programs run on.
const OLDEST: Suite = Suite::Bookworm;

fn suite_of(name: &str) -> Result<Suite, String> {
    let mut suites = KERNELS.iter().map(|it| it.suite);
    suites.find(|it| it.to_string() == name).ok_or_else(|| {
        let known = KERNELS.map(|it| it.suite.to_string());
        format!("the suites are {}", known.join(", "))
    })
}

/// Boots the kernels, prints what was found, and compares it with the record or writes that.
///
/// # Errors
/// When something does not work that should, or a program has grown.
pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = |kernel: &&Kernel| args.only.is_empty() || args.only.contains(&kernel.suite);
    let boots = KERNELS.iter().filter(wanted);
    let boots = boots.flat_map(|kernel| kernel.hierarchies.iter().map(move |it| (kernel, *it)));
    let (found, mut faults) = boot_all(boots)?;
    println!("{}", tables::of(&found.kernels));
    if args.write {
        // A record of faults would hide them.
        conclude(&faults)?;
        let record = match record::read() {
            Ok(record) => record.with(&found),
            // There is none yet, or one of another form.
            Err(_) => found,
        };
        record.write()?;
        tables::write(&record.kernels)?;
        say("docs/kernels.json and docs/kernels.md hold what was found");
        return Ok(());
    }
    faults.extend(record::read()?.compare(&found));
    conclude(&faults)
}

/// The short form, for every run of the tests: the oldest kernel that the programs run on.
///
/// # Errors
/// As [`run`].
pub(crate) fn oldest() -> Result<()> {
    if !is_possible() {
        say(
            "NOT CHECKED: the oldest kernel, for whose machine this one is of another architecture",
        );
        return Ok(());
    }
    let kernels = KERNELS.iter().filter(|it| it.suite == OLDEST);
    let (found, mut faults) = boot_all(kernels.map(|it| (it, Hierarchy::Unified)))?;
    faults.extend(record::read()?.compare(&found));
    conclude(&faults)
}

fn conclude(faults: &[String]) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    bail!("not as it should be:\n  {}", faults.join("\n  "))
}

/// Boots one after the other: two would share the processors. Answers what was found, and what of it is wrong.
fn boot_all<'k>(
    boots: impl Iterator<Item = (&'k Kernel, Hierarchy)>,
) -> Result<(Record, Vec<String>)> {
    if !is_possible() {
        bail!(
            "the machines have processors of x86-64, and the programs in them are built for this one"
        );
    }
    setup::programs()?;
    setup::test_programs()?;
    let programs = image::static_programs(Build::Soon, &["lb-guest"], None)?;
    let qemu = packages::qemu(&tools())?;
    let (mut kernels, mut faults) = (Vec::new(), Vec::new());
    for (kernel, hierarchy) in boots {
        let machine = Machine {
            qemu: qemu.clone(),
            kernel: packages::kernel(&tools(), kernel.suite)?,
            programs: programs.clone(),
        };
        say(&format!(
            "booting the kernel of {}, control groups {hierarchy}",
            kernel.suite
        ));
        let mut report = machine.boot(hierarchy)?;
        faults.extend(judge(kernel, &report));
        for check in &mut report.checks {
            // What a verifier says of a program is long, and only for whoever has to mend that.
            let lines = check.detail.lines().next().map(str::to_owned);
            check.detail = lines.unwrap_or_default();
        }
        kernels.push(Entry {
            suite: kernel.suite.to_string(),
            report,
        });
    }
    let compiler = Toolchain::find(&tools())?.version().to_owned();
    Ok((Record { compiler, kernels }, faults))
}

/// Whether programs that are built here can run there.
fn is_possible() -> bool {
    std::env::consts::ARCH == "x86_64"
}

/// Fetches what the short form needs.
///
/// # Errors
/// When a package cannot be fetched.
pub(crate) fn fetch() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    packages::qemu(&tools())?;
    packages::kernel(&tools(), OLDEST).map(drop)
}

/// What is wrong with a report, whatever the record has.
fn judge(kernel: &Kernel, report: &Report) -> Vec<String> {
    let place = format!(
        "{} ({}, {})",
        report.release, kernel.suite, report.hierarchy
    );
    let said = |check: &Check| {
        format!(
            "{place}: {}: {:?}: {}",
            check.name, check.outcome, check.detail
        )
    };
    if kernel.is_supported {
        let wrong = report
            .checks
            .iter()
            .filter(|it| it.outcome != Outcome::Works);
        return wrong.map(said).collect();
    }
    // Refused, and in words that say why.
    let is_clear =
        |check: &&Check| check.outcome == Outcome::Refused && check.detail.contains("too old");
    let failed = report
        .checks
        .iter()
        .filter(|it| it.outcome == Outcome::Failed);
    let mut wrong: Vec<_> = failed.map(said).collect();
    if !report.checks.iter().any(|it| is_clear(&it)) {
        wrong.push(format!(
            "{place}: the agent does not say that the kernel is too old"
        ));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome, detail: &str) -> Report {
        Report {
            release: "6.1.0".to_owned(),
            hierarchy: Hierarchy::Unified,
            programs: Vec::new(),
            checks: vec![Check {
                name: "it".to_owned(),
                outcome,
                detail: detail.to_owned(),
            }],
        }
    }

    #[test]
    fn a_supported_kernel_does_everything_and_an_old_one_is_refused_with_the_reason() {
        let [old, supported] = [&KERNELS[0], &KERNELS[1]];
        let faults = |kernel, outcome, detail| judge(kernel, &report(outcome, detail)).len();
        assert_eq!(faults(supported, Outcome::Works, ""), 0);
        assert_eq!(faults(supported, Outcome::Refused, "it is too old"), 1);
        assert_eq!(faults(supported, Outcome::Failed, "no"), 1);
        assert_eq!(faults(old, Outcome::Refused, "it is too old"), 0);
        assert_eq!(faults(old, Outcome::Refused, "no"), 1);
        assert_eq!(faults(old, Outcome::Works, ""), 1);
        assert_eq!(faults(old, Outcome::Failed, "too old"), 2);
    }
}
