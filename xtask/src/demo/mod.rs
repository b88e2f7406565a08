//! `cargo xtask demo`: the main job on one machine, in network namespaces that it makes and removes.
//!
//! [`steps`] is the script and reads like one; [`world`] is the place it plays in. Nothing of the machine is
//! changed: besides the namespaces there is a cgroup for the hooks and a temporary folder, and all of it is gone
//! afterwards, even when this process was killed. [`docker`] is another script in another place: our images and the
//! files of compose/, in a Docker Engine of its own.

mod agent;
mod binaries;
mod cast;
mod client;
mod consul;
mod curl;
mod docker;
mod download;
mod report;
mod source;
mod steps;
mod traffic;
mod transcript;
mod world;

use std::{
    io::{IsTerminal, stdin, stdout},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_testkit::eventually;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use transcript::Transcript;
use world::World;

use crate::image::Build;

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check every step, take everything down and end; without a terminal this is so anyway.
    #[arg(long)]
    pub(crate) once: bool,

    /// Where the agent learns of the instances; with `docker` the agent and all else run in containers.
    #[arg(long, value_enum, default_value_t = Kind::File)]
    pub(crate) source: Kind,

    /// With `--source docker`: images of a debug build, which is done sooner.
    #[arg(long)]
    pub(crate) debug_build: bool,
}

/// A discovery source of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A TOML file that the demo rewrites.
    File,
    /// A real Consul, fetched if need be, that the demo registers the instances in.
    Consul,
    /// Containers in a Docker Engine of the demo's own, registered in a Consul that is one of them: the files of compose/.
    Docker,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Consul => "consul",
            Self::Docker => "docker",
        }
    }
}

/// Plays the demo.
///
/// # Errors
/// When a step failed, or the demo could not be set up or taken down.
pub(crate) fn run(args: Args) -> Result<()> {
    ensure_root(&args)?;
    let stop = Stop::on_signals()?;
    let interactive = !args.once && stdin().is_terminal() && stdout().is_terminal();
    if args.source == Kind::Docker {
        return docker::run(interactive, how(&args), stop);
    }
    let binaries = binaries::build(args.source)?;
    world::sweep()?;

    let mut world = World::new(&binaries, args.source, stop.clone())?;
    let mut transcript = Transcript::new(args.source);
    steps::play(&mut world, &mut transcript);

    let interrupted = stop.is_asked();
    if interactive && !interrupted {
        transcript.invite(&world);
        stop.wait();
    }
    if transcript.failed() > 0 && !interrupted {
        world.keep_logs();
    }
    world
        .take_down()
        .context("the demo could not be taken down in good order")?;
    ensure!(
        !interrupted,
        "interrupted before its end; everything is taken down"
    );
    transcript.end(steps::COUNT)
}

fn how(args: &Args) -> Build {
    match args.debug_build {
        true => Build::Soon,
        false => Build::Small,
    }
}

fn ensure_root(args: &Args) -> Result<()> {
    let once = if args.once { " --once" } else { "" };
    ensure!(
        nix::unistd::Uid::effective().is_root(),
        "the demo makes network namespaces and a cgroup of its own, and needs root for that:\n    \
         sudo env \"PATH=$PATH\" cargo xtask demo{once} --source {}",
        args.source.as_str()
    );
    Ok(())
}

/// Whether somebody asked the demo to end: Ctrl-C once. A second Ctrl-C ends it where it is.
#[derive(Clone, Debug)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn on_signals() -> Result<Self> {
        let asked = Arc::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the second signal finds what the first one set.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self(asked))
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on as if nobody had asked, for what has to be done in the end.
    fn forget(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Returns when it is asked.
    fn wait(&self) {
        while !self.is_asked() {
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Asks `probe` until it has a value, the time is over, or somebody asks the demo to end.
    fn or_until<T>(&self, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
        let answer = eventually(limit, || match self.is_asked() {
            true => Ok(None),
            false => probe().map(Some),
        });
        answer?.context("interrupted")
    }
}
