//! What must be green: `test` runs every test, `ci` checks everything else as well.
//!
//! One cargo call for each group: in one call for all, features would unify, and the `user` feature of
//! lb-common would pull std into the kernel programs.

use anyhow::Result;

use crate::{
    bench::guard,
    chaos, demo, deploy, dist, fuzz, kernels, mutants, packages, setup,
    shell::{cargo, run, say},
    tools, workspace,
};

/// Arguments that name each group, linted, documented and tested by itself.
const GROUPS: [&[&str]; 15] = [
    &["--package", "lb-common"],
    &["--package", "lb-common", "--features", "user"],
    &["--package", "lb-ebpf", "--lib"],
    &["--package", "lb-sys"],
    &["--package", "lb-ebpf-build"],
    &["--package", "lb-testkit"],
    &["--package", "lb-packet"],
    &["--package", "lb-bench"],
    &["--package", "lb-chaos"],
    &["--package", "lb-guest"],
    &["--package", "hello"],
    &["--package", "lb-front"],
    &["--package", "lb-core"],
    &["--package", "lb-agent"],
    &["--package", "xtask"],
];

/// Every test.
///
/// # Errors
/// When one fails, or something that they need can be neither found nor installed.
pub(crate) fn test() -> Result<()> {
    setup::require_root("test")?;
    setup::programs()?;
    setup::test_programs()?;
    let packages = packages::for_tests(&tools())?;
    let axe = setup::axe()?;
    // The tests of lb-bench and lb-chaos start the agent's program.
    run(cargo().args(["build", "--quiet", "--locked", "--package", "lb-agent"]))?;
    for group in GROUPS {
        say(&format!("test {}", group.join(" ")));
        run(cargo()
            .args(["test", "--quiet", "--locked"])
            .args(group)
            .envs(packages.iter().map(|(name, path)| (name, path)))
            .env("LB_CHROMIUM", "chromium")
            .env("LB_CHROMEDRIVER", "chromedriver")
            .env("LB_AXE", &axe))?;
    }
    for (name, source) in [
        ("demo", demo::Kind::File),
        ("demo, in containers", demo::Kind::Docker),
    ] {
        say(name);
        demo::run(demo::Args {
            once: true,
            source,
            debug_build: true,
        })?;
    }
    say("the oldest kernel");
    kernels::oldest()
}

/// Everything that must be green before a change lands.
///
/// # Errors
/// When a check fails.
pub(crate) fn ci() -> Result<()> {
    setup::require_root("ci")?;
    setup::programs()?;
    say("format");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    for group in GROUPS {
        say(&format!("clippy {}", group.join(" ")));
        let targets: &[&str] = if group.contains(&"--lib") {
            &["--tests"]
        } else {
            &["--all-targets"]
        };
        run(cargo()
            .args(["clippy", "--quiet", "--locked"])
            .args(group)
            .args(targets)
            .args(["--", "-Dwarnings"]))?;
    }
    say("clippy of the kernel programs");
    lb_ebpf_build::clippy(workspace(), &workspace().join("target/ebpf-clippy"))?;
    deny()?;
    deploy::check()?;
    dist::short()?;
    say("documentation");
    for group in GROUPS {
        let mut doc = cargo();
        doc.args([
            "doc",
            "--quiet",
            "--locked",
            "--no-deps",
            "--document-private-items",
        ])
        .args(group);
        run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))?;
    }
    test()?;
    chaos::short()?;
    fuzz::short()?;
    mutants::short()?;
    say("whether anything is slower");
    guard::short()
}

fn deny() -> Result<()> {
    let binary = setup::cargo_deny()?;
    let deny = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&binary);
        command.current_dir(workspace()).args(arguments);
        run(&mut command)
    };
    // A workspace of its own, which needs fewer licences than the file allows.
    let fuzz = ["--locked", "--manifest-path", "fuzz/Cargo.toml", "check"];
    let fewer = ["--allow", "license-not-encountered"];
    let kinds = ["bans", "licenses", "sources"];
    say("licences, bans and sources of the dependencies");
    deny(&[&["--locked", "check"], &kinds[..]].concat())?;
    say("licences, bans and sources of what the fuzz targets need");
    deny(&[&fuzz[..], &fewer, &kinds].concat())?;
    say("advisories on the dependencies");
    if deny(&["--locked", "fetch", "db"]).is_err() {
        // Not a pass and not a failure of the change: the machine cannot reach the database.
        say("NOT CHECKED: the advisory database cannot be fetched from here");
        return Ok(());
    }
    deny(&["--locked", "check", "advisories"])?;
    deny(&[&fuzz[..], &["advisories"]].concat())
}
