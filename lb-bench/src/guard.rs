//! Kernel programs of two builds side by side: what this kernel's verifier and compiler make of each, and how long those for a
//! packet take in turns.

mod weight;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use self::weight::Weighed;
use crate::{packet, statistics::Interval};

/// Which builds.
#[derive(clap::Args)]
pub(crate) struct Guard {
    /// The folder with the objects of the base.
    #[arg(long, value_name = "DIR")]
    before: PathBuf,
    /// The folder with the objects of this tree.
    #[arg(long, value_name = "DIR")]
    now: PathBuf,
    /// No times.
    #[arg(long)]
    untimed: bool,
}

/// The last line of the output.
#[derive(Debug, Serialize)]
struct Figures {
    programs: Vec<Weighed>,
    times: Vec<Time>,
    /// Why there are none, if there are none.
    not_timed: Option<String>,
}

/// How long something takes now, over before.
#[derive(Debug, Serialize)]
struct Time {
    what: &'static str,
    ratio: Interval,
}

/// The objects that the agent loads.
const OBJECTS: [&str; 2] = ["socket", "packet"];

/// Compares and prints.
///
/// # Errors
/// When an object cannot be read, or the kernel refuses the programs of this tree.
pub(crate) fn run(guard: &Guard) -> Result<()> {
    let mut figures = Figures {
        programs: Vec::new(),
        times: Vec::new(),
        not_timed: None,
    };
    for object in OBJECTS {
        let [before, now] = [&guard.before, &guard.now].map(|folder| {
            let path = folder.join(object);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        });
        let (before, now) = (before?, now?);
        let said = |which: &str| format!("the programs of {object} {which}");
        let weighed = [
            weight::of(&before).with_context(|| said("in the base"))?,
            weight::of(&now).with_context(|| said("in this tree"))?,
        ];
        figures.programs.extend(weight::beside(object, &weighed));
        if object != "packet" {
            continue;
        }
        if guard.untimed {
            figures.not_timed = Some("not in the short form".to_owned());
            continue;
        }
        // The base's may not know the maps of today's, which is no fault.
        match packet::versus(&before) {
            Ok(times) => figures.times = times.into_iter().map(Time::from).collect(),
            Err(error) => figures.not_timed = Some(format!("{error:#}")),
        }
    }
    for time in &figures.times {
        let Interval { median, low, high } = time.ratio;
        println!(
            "{}: {median:.3} [{low:.3}, {high:.3}] of the base's time",
            time.what
        );
    }
    let line = serde_json::to_string(&figures).context("cannot write the figures")?;
    println!("{line}");
    Ok(())
}

impl From<(&'static str, Interval)> for Time {
    fn from((what, ratio): (&'static str, Interval)) -> Self {
        Self {
            what,
            ratio: ratio.rounded(),
        }
    }
}
