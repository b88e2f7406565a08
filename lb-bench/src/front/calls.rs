//! System calls, as strace counts them. It slows its subject down, so nothing else is measured meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Spawn, eventually};

use super::{load::Load, stage::tasks};
use crate::rivals::libraries;

/// Counts the system calls of processes.
pub(super) struct Counter {
    packages: PathBuf,
    folder: PathBuf,
}

/// How long it may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

impl Counter {
    /// With strace of `packages`; its output goes to `folder`.
    pub(super) fn new(packages: &Path, folder: &Path) -> Self {
        Self {
            packages: packages.to_owned(),
            folder: folder.to_owned(),
        }
    }

    /// System calls of `process` for each request of `load`.
    ///
    /// # Errors
    /// When this machine lets nobody trace, or a request fails.
    pub(super) fn per_request(
        &self,
        process: u32,
        load: &mut Load,
        slice: Duration,
    ) -> Result<f64> {
        let summary = self.folder.join("strace.summary");
        let mut strace = Spawn::new("strace", self.packages.join("strace/usr/bin/strace"))
            .args(["-f", "-c", "-o"])
            .arg(&summary)
            .args(["-p", &process.to_string()])
            .env("LD_LIBRARY_PATH", libraries(&self.packages))
            .log(&self.folder)
            .start()?;
        eventually(PATIENCE, || traced(process)).context("strace does not count")?;
        let requests = load.run(slice)?.latencies.len();
        strace.terminate()?;
        strace.wait(PATIENCE)?;
        let summary = fs::read_to_string(summary).context("strace wrote no summary")?;
        let calls = total(&summary).context("strace wrote a summary without a total")?;
        #[expect(clippy::cast_precision_loss, reason = "nobody waits for 2^52 requests")]
        Ok(calls / requests as f64)
    }
}

/// Whether every thread of a process is traced.
fn traced(process: u32) -> Result<()> {
    for task in tasks(process)? {
        let status = fs::read_to_string(format!("/proc/{process}/task/{task}/status"))?;
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        ensure!(
            tracer.is_some_and(|tracer| tracer.trim() != "0"),
            "nobody traces it"
        );
    }
    Ok(())
}

/// The calls of the line `total`: `% time, seconds, usecs/call, calls, [errors,] total`. Pure.
fn total(summary: &str) -> Option<f64> {
    let line = summary.lines().find(|line| line.ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_of_calls_with_and_without_errors() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n \
                    50.00    0.100000           1       200           sendto\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.200000           1       410        10 total\n";
        assert_eq!(total(text), Some(410.0));
        let text = text.replace("        10 total", "           total");
        assert_eq!(total(&text), Some(410.0));
        assert_eq!(total("% time seconds\n"), None);
    }
}
