//! What the user reads: one block a step, with its evidence and its verdict.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Kind, world::World};

/// The transcript so far.
pub(super) struct Transcript {
    start: Instant,
    played: usize,
    failed: usize,
}

/// The evidence of one step, printed as it comes.
pub(super) struct Evidence(());

impl Evidence {
    /// Adds a line.
    pub(super) fn say(&mut self, line: impl AsRef<str>) {
        println!("      {}", line.as_ref());
    }
}

impl Transcript {
    pub(super) fn new(source: Kind) -> Self {
        let made_of = match source {
            Kind::File | Kind::Consul => "the network is made of namespaces",
            Kind::Docker => "the Docker Engine is the demo's own",
        };
        println!(
            "lb-agent demo, source {}. Every process is real; {made_of}.",
            source.as_str()
        );
        Self {
            start: Instant::now(),
            played: 0,
            failed: 0,
        }
    }

    /// Plays one step and says how it went; true is well.
    pub(super) fn step(
        &mut self,
        title: &str,
        step: impl FnOnce(&mut Evidence) -> Result<()>,
    ) -> bool {
        self.played += 1;
        println!("\n{:3}. {title}", self.played);
        let start = Instant::now();
        let result = step(&mut Evidence(()));
        let seconds = start.elapsed().as_secs_f64();
        match &result {
            Ok(()) => println!("      ok ({seconds:.1} s)"),
            Err(error) => {
                self.failed += 1;
                println!("      FAILED ({seconds:.1} s): {error:#}");
            }
        }
        result.is_ok()
    }

    /// Says what the user can do while everything is up.
    pub(super) fn invite(&self, world: &World) {
        if let Ok((front, page)) = world.addresses() {
            println!(
                "\nNow you: http://www.hello.localhost:{}/ and http://{page}/ in your browser, or\n    {} services\n\
                 Ctrl-C takes everything down.",
                front.port(),
                world.command_line()
            );
        }
    }

    /// The last line.
    ///
    /// # Errors
    /// When one of the `steps` failed.
    pub(super) fn end(&self, steps: usize) -> Result<()> {
        println!(
            "\n{} of {steps} steps ok, in {:.0} s; everything is taken down.",
            self.played - self.failed,
            self.start.elapsed().as_secs_f64()
        );
        ensure!(
            self.failed == 0,
            "{} of the demo's steps failed",
            self.failed
        );
        Ok(())
    }

    pub(super) fn failed(&self) -> usize {
        self.failed
    }
}
