//! A program of the operator that is told which VIPs this host takes and releases, for routers and their daemons.
//!
//! It is run as `PROGRAM take ADDRESS…` and `PROGRAM release ADDRESS…`, one run at a time, for a bounded time each. A run that
//! failed is repeated. It has nothing of the agent's environment but `PATH`, and the agent's rights.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Announcing, Metrics, Moment, Status, Vips, both};
use crate::{vip::Pools, wait::at};

/// For one run.
const LIMIT: Duration = Duration::from_secs(5);
/// After a run that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// Addresses of one run, far below what the kernel takes as arguments.
const AT_ONCE: usize = 256;
/// What is kept of what it says.
const SAID: u64 = 4096;

/// The program, and what it was told.
pub(super) struct Hook {
    pub(super) program: PathBuf,
    pub(super) pools: Pools,
    pub(super) announcing: watch::Receiver<Announcing>,
    pub(super) vips: watch::Receiver<Vips>,
    pub(super) status: watch::Sender<Status>,
    pub(super) metrics: Arc<Metrics>,
}

impl Hook {
    /// Tells the program whatever changes, until `stop`; then that this host releases everything, unless another agent
    /// follows (`keep`).
    pub(super) async fn run(mut self, stop: CancellationToken, keep: CancellationToken) {
        let mut taken = BTreeSet::new();
        let mut is_first = true;
        let mut again: Option<Instant> = None;
        loop {
            let announcing = self.announcing.borrow_and_update().clone();
            let vips = self.vips.borrow_and_update().clone();
            let is_due = again.is_none_or(|again| again <= Instant::now());
            // Before it is known who is the owner, what an agent before has told holds.
            if let Some(vips) = vips
                && announcing.since.is_some()
                && is_due
            {
                let all = || vips.iter().flat_map(|vip| both(self.pools, *vip)).collect();
                let wanted: BTreeSet<IpAddr> = match announcing.holds(Moment::now()) {
                    true => all(),
                    false => BTreeSet::new(),
                };
                // A killed agent has released nothing.
                if std::mem::take(&mut is_first) && wanted.is_empty() {
                    taken = all();
                }
                let is_done = self.change(&mut taken, &wanted).await;
                again = (!is_done).then(|| Instant::now() + AGAIN);
                // It took its time: there may be news.
                if self.has_news() {
                    continue;
                }
            }
            let is_taken = !taken.is_empty();
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.announcing.changed() => {}
                Ok(()) = self.vips.changed() => {}
                () = at(announcing.until.map(|it| it.at)), if is_taken && announcing.holds(Moment::now()) => {}
                () = at(again) => {}
            }
        }
        if !keep.is_cancelled() {
            self.change(&mut taken, &BTreeSet::new()).await;
        }
    }

    fn has_news(&self) -> bool {
        let announcing = self.announcing.has_changed().unwrap_or(false);
        announcing || self.vips.has_changed().unwrap_or(false)
    }

    /// Tells what has to be told so that `taken` becomes `wanted`; whether all of it worked.
    async fn change(&self, taken: &mut BTreeSet<IpAddr>, wanted: &BTreeSet<IpAddr>) -> bool {
        let gone: Vec<_> = taken.difference(wanted).copied().collect();
        let new: Vec<_> = wanted.difference(taken).copied().collect();
        let mut failure = None;
        for (verb, addresses) in [("release", gone), ("take", new)] {
            for addresses in addresses.chunks(AT_ONCE) {
                match call(&self.program, verb, addresses, LIMIT).await {
                    Ok(()) => {
                        self.metrics.hooks.fetch_add(1, Ordering::Relaxed);
                        info!(verb, addresses = addresses.len(), "the hook was told");
                        for address in addresses {
                            match verb {
                                "take" => taken.insert(*address),
                                _ => taken.remove(address),
                            };
                        }
                    }
                    Err(why) => {
                        self.metrics.failed_hooks.fetch_add(1, Ordering::Relaxed);
                        failure = Some(format!(
                            "{} {verb}: {why}; correct it, it is run again every {} seconds",
                            self.program.display(),
                            AGAIN.as_secs()
                        ));
                    }
                }
            }
        }
        let is_done = failure.is_none();
        self.status.send_if_modified(|status| {
            let changed = status.hook != failure;
            if let Some(failure) = failure.as_ref().filter(|_| changed) {
                warn!("{failure}");
            }
            status.hook = failure;
            changed
        });
        is_done
    }
}

/// One run; why it failed.
async fn call(
    program: &Path,
    verb: &str,
    addresses: &[IpAddr],
    limit: Duration,
) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .arg(verb)
        .args(addresses.iter().map(ToString::to_string))
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| PATH.into()),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // What it starts in turn ends with it.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| format!("it cannot be started ({error})"))?;
    let stderr = child.stderr.take();
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            // What it said before a failure is good enough.
            let _ = stderr.take(SAID).read_to_end(&mut said).await;
        }
        said
    });
    let ended = timeout(limit, child.wait()).await;
    if ended.is_err() {
        end(&mut child).await;
    }
    // Whoever it left behind may keep the pipe.
    let said = timeout(LATER, said).await;
    let said = said.ok().and_then(Result::ok).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rfind(|it| !it.trim().is_empty());
    let last = last.map(|it| format!(": {}", it.trim().replace(char::is_control, " ")));
    let last = last.unwrap_or_default();
    match ended {
        Err(_) => Err(format!(
            "it was ended after {} seconds{last}",
            limit.as_secs_f32()
        )),
        Ok(Err(error)) => Err(wait_failed(&error)),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("it failed ({status}){last}")),
    }
}

fn wait_failed(error: &io::Error) -> String {
    format!("its end cannot be waited for ({error})")
}

/// For what it said last.
const LATER: Duration = Duration::from_millis(200);
/// Where the agent has no `PATH` itself.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

async fn end(child: &mut Child) {
    if let Some(group) = child.id().and_then(|it| i32::try_from(it).ok()) {
        // It has just ended, then.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.wait().await;
}

#[cfg(test)]
#[path = "hook_tests.rs"]
mod tests;
