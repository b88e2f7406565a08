//! The demo with everything in containers: our images, the files of compose/, a real Consul, and a Docker Engine of the
//! demo's own, which ends with it.
//!
//! [`steps`] is the script, with [`load`] for what happens under load; [`stack`] is the place. The engine's host is a network namespace: what is at 127.0.0.1 in there,
//! [`relay`] shows to the machine's browser.

mod load;
mod relay;
mod rights;
mod stack;
mod steps;

use anyhow::{Context, Result, ensure};
use stack::Stack;

use super::{Kind, Stop, transcript::Transcript};
use crate::image::Build;

/// Plays the demo.
///
/// # Errors
/// When a step failed, or the demo could not be set up or taken down.
pub(super) fn run(interactive: bool, how: Build, stop: Stop) -> Result<()> {
    let mut stack = Stack::start(how, stop.clone())?;
    let mut transcript = Transcript::new(Kind::Docker);
    steps::play(&mut stack, &mut transcript);
    let interrupted = stop.is_asked();
    if interactive && !interrupted {
        relay::invite(&stack, &stop)?;
        stop.forget();
    }
    if !interrupted {
        if transcript.failed() > 0 {
            stack.show_logs();
        }
        steps::take_down(&stack, &mut transcript);
    }
    stack
        .end()
        .context("the demo could not be taken down in good order")?;
    ensure!(
        !interrupted,
        "interrupted before its end; everything is taken down"
    );
    transcript.end(steps::COUNT)
}
