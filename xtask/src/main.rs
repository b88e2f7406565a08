//! Project commands.

mod demo;
#[expect(dead_code, reason = "the other commands are not here yet")]
mod packages;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// The main job, step by step, in network namespaces of its own.
    Demo(demo::Args),
}

fn main() -> anyhow::Result<()> {
    let Command::Demo(args) = Command::parse();
    demo::run(args)
}
