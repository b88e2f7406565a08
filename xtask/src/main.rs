//! What building and testing need, as commands. Every command does the set-up that it needs by itself.

mod bench;
mod chaos;
mod check;
mod demo;
mod deploy;
mod dist;
mod fuzz;
mod image;
mod kernels;
mod mutants;
mod packages;
mod setup;
mod shell;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

/// Project commands: each does the set-up that it needs by itself.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The main job, step by step, in network namespaces of its own. Needs root.
    Demo(demo::Args),
    /// Run every test: unit, property, wire, kernel, Consul. Needs root.
    Test,
    /// What must be green: format, lints, licences, documentation, and every test. Needs root.
    Ci,
    /// Measure what the data plane and the front cost. Needs root.
    Bench(bench::Bench),
    /// Fault after fault upon a small cluster, by a seed, and what must hold is looked at all the time. Needs root.
    Chaos(chaos::Chaos),
    /// A small cluster under load and steady changes: nothing may grow. Needs root.
    Soak(chaos::Soak),
    /// Look for inputs that break the parsers. The tests replay what was found.
    Fuzz(fuzz::Fuzz),
    /// Change the pure cores in one place after another, and tell which changes no test notices.
    Mutants(mutants::Mutants),
    /// Build the container images of the agent and of the demo's application, from nothing but this source.
    Image(image::Args),
    /// Make what is given to others: the static program, its image, a Debian package, what they are made of, and sums.
    Dist(dist::Args),
    /// Try what the agent is made of on the kernels of Debian's releases, in virtual machines.
    Kernels(kernels::Args),
    /// Find or install everything that building and testing need.
    Setup,
    /// Build the kernel programs.
    BuildEbpf,
    /// Write what of the documentation is made from the code. The tests say when that is due.
    Docs,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Demo(args) => {
            setup::require_root("demo")?;
            setup::programs()?;
            setup::test_programs()?;
            demo::run(args)
        }
        Command::Test => check::test(),
        Command::Ci => check::ci(),
        Command::Chaos(args) => chaos::chaos(&args),
        Command::Soak(args) => chaos::soak(&args),
        Command::Fuzz(options) => fuzz::fuzz(&options),
        Command::Mutants(options) => mutants::mutants(&options),
        Command::Image(args) => image::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Setup => setup::everything(),
        Command::BuildEbpf => {
            setup::programs()?;
            let objects = lb_ebpf_build::build(workspace(), &workspace().join("target/ebpf"))?;
            println!("the objects are in {}", objects.display());
            Ok(())
        }
        Command::Docs => {
            setup::programs()?;
            // The tests that compare them write them, too.
            for tests in [
                &["lb-core", "--lib"],
                &["lb-agent", "--lib"],
                &["xtask", "--bins"],
            ] {
                let mut write = shell::cargo();
                write
                    .args(["test", "--quiet", "--locked", "--package"])
                    .args(tests)
                    .args(["--", "the_documented_"])
                    .env("LB_WRITE_DOCS", "1");
                shell::run(&mut write)?;
            }
            Ok(())
        }
        Command::Bench(bench) => bench::bench(&bench),
    }
}

/// The folder of the workspace.
fn workspace() -> &'static Path {
    // xtask is built and run in the workspace that it serves.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// The ignored folder with the tools of this project.
fn tools() -> PathBuf {
    lb_ebpf_build::tools_dir(workspace())
}

#[cfg(test)]
mod tests {
    use lb_testkit::markdown::{blocks, code, documents};

    use super::*;

    /// Every `cargo xtask` that a document names: in back quotes, or in a block that shows commands.
    #[test]
    fn every_command_that_a_document_names_is_one() {
        let (mut parsed, mut faults) = (0, Vec::new());
        for document in documents().unwrap() {
            let blocks = blocks(&document.text);
            let shown = blocks.iter().filter(|block| block.language == "sh");
            let shown = shown.flat_map(|block| block.text.lines());
            let named = code(&document.text).into_iter().map(|(_, word)| word);
            for line in shown.chain(named) {
                let Some(words) = line.strip_prefix("cargo xtask ") else {
                    continue;
                };
                let words = words.split('#').next().unwrap_or_default();
                // In a notation such as `demo [--source file|consul]` what is in brackets may be left out or not.
                let typed = words.replace(['[', ']'], "").replace('\\', "");
                let typed = typed.split_whitespace().map(|word| match word {
                    "TARGET" => "options",
                    "N" | "S" => "1",
                    "SUITE" => "bookworm",
                    "SUBJECT" => "packet",
                    "REF" => "HEAD",
                    "CRATE" => "lb-packet",
                    word => word.split('|').next().unwrap_or(word),
                });
                let cli = Cli::try_parse_from(["cargo xtask"].into_iter().chain(typed));
                // A name alone is a name, also of what has commands below it.
                let wrong = cli.err().filter(|error| {
                    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
                    error.kind() != DisplayHelpOnMissingArgumentOrSubcommand
                });
                if let Some(error) = wrong {
                    faults.push(format!("{}: {line}: {error}", document.path.display()));
                }
                parsed += 1;
            }
        }
        assert!(parsed > 20, "{parsed}");
        assert!(faults.is_empty(), "{faults:#?}");
    }
    /// README shows some steps of a run of the demo.
    #[test]
    fn the_steps_that_readme_shows_are_those_of_the_demo() {
        let readme = include_str!("../../README.md");
        let blocks = blocks(readme);
        let shown = blocks.iter().filter(|block| block.language == "text");
        let lines = shown.flat_map(|block| block.text.lines());
        let titles: Vec<_> = lines
            .filter_map(|line| line.strip_prefix("  ")?.split_once(". "))
            .filter(|(number, _)| number.parse::<u8>().is_ok())
            .collect();
        assert!(titles.len() > 3, "{titles:?}");
        for (_, title) in titles {
            let step = format!("\"{title}\"");
            assert!(include_str!("demo/steps.rs").contains(&step), "{title}");
        }
    }
}
