//! The time of day as one agent sees it, by libfaketime: the machine's own clock is not touched.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::eventually;

use super::Wound;
use crate::{
    cluster::{Cluster, LIMIT},
    moment::Moment,
};

/// The jumps, in seconds from the true time. The last one stays until the fault is over.
const JUMPS: [i64; 3] = [3600, -3600, 1800];
/// How well the agent's answer tells what time it is there: it may be late.
const ABOUT: Duration = Duration::from_secs(60);

/// Starts an agent whose time of day can be moved, and moves it.
pub(super) fn jump(cluster: &mut Cluster, host: usize) -> Result<Wound> {
    let library = std::env::var_os("LB_FAKETIME").map(PathBuf::from).context(
        "libfaketime is needed for this fault: run `cargo xtask chaos`, which fetches it, or set LB_FAKETIME to its library",
    )?;
    let file = cluster.hosts[host].folder.join("time");
    let tell = |seconds: i64| {
        let new = file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(&new, &file)
    };
    tell(0)?;
    cluster.history.blind(host, Moment::now());
    cluster.hosts[host].kill_agent()?;
    let agent = cluster.hosts[host].agent_program().display().to_string();
    let before = [
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        // That clock does not jump on any machine.
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
        agent,
    ];
    cluster.hosts[host].start_agent_by("/usr/bin/env".into(), &before)?;
    cluster.await_calm()?;
    for seconds in JUMPS {
        tell(seconds)?;
        eventually(LIMIT, || {
            let told = cluster.hosts[host].report()?["now_unix"].as_i64();
            let told = told.context("the agent does not tell the time")?;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            let wrong = told - i64::try_from(now.as_secs())?;
            let away = Duration::from_secs(wrong.abs_diff(seconds));
            ensure!(
                away < ABOUT,
                "the agent is {wrong} s away instead of {seconds}"
            );
            Ok(())
        })?;
        cluster.await_tries(20)?;
    }
    Ok(Wound::Clock { host })
}

/// Starts an agent that has the true time.
pub(super) fn set(cluster: &mut Cluster, host: usize) -> Result<()> {
    cluster.history.blind(host, Moment::now());
    cluster.hosts[host].kill_agent()?;
    cluster.hosts[host].start_agent()
}
