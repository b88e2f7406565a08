//! What it takes to look at an agent with many services: the command `status`, the page, its search, and a scrape.
//!
//! The agent is that of the image, with everything it usually does, in a namespace and a cgroup of its own. The command is the
//! same program, started anew each time; the page comes over loopback, on a connection of its own, to its last byte.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::{
    scale,
    statistics::{median, percentile},
    subject::program,
};

/// The last line of the output: the time of each, the median and the 99th percentile, in milliseconds.
#[derive(Debug, Serialize)]
struct Figures {
    status_ms: f64,
    status_p99_ms: f64,
    page_ms: f64,
    page_p99_ms: f64,
    metrics_ms: f64,
    metrics_p99_ms: f64,
    /// As the others, among ten times as many services.
    status_at_10000_ms: f64,
    page_at_10000_ms: f64,
    search_at_10000_ms: f64,
}

/// Measures and prints.
///
/// # Errors
/// When the agent does not come up, or does not answer as it should.
pub(crate) fn run(quick: bool) -> Result<()> {
    let rounds = if quick { 3 } else { 200 };
    let few = look(1_000, rounds)?;
    let many = look(10_000, rounds)?;
    for (what, all) in [("1,000 services", &few), ("10,000 services", &many)] {
        for (name, times) in ["status", "page", "search", "metrics"].iter().zip(all) {
            let [middle, worst] = figures(times)?;
            println!("{what}: {name} in {middle:.1} ms, 99 of 100 in {worst:.1} ms");
        }
    }
    let [
        [status, status_p99],
        [page, page_p99],
        _,
        [metrics, metrics_p99],
    ] = [0, 1, 2, 3].map(|at| figures(&few[at]).unwrap_or([f64::NAN; 2]));
    let many = [0, 1, 2].map(|at| figures(&many[at]).unwrap_or([f64::NAN; 2])[0]);
    for (what, time, goal) in [("status", status, 50.0), ("the page", page, 200.0)] {
        let met = if time <= goal { "met" } else { "MISSED" };
        println!("{what} of 1,000 services: {time:.1} ms; goal: at most {goal}: {met}");
    }
    let figures = Figures {
        status_ms: status,
        status_p99_ms: status_p99,
        page_ms: page,
        page_p99_ms: page_p99,
        metrics_ms: metrics,
        metrics_p99_ms: metrics_p99,
        status_at_10000_ms: many[0],
        page_at_10000_ms: many[1],
        search_at_10000_ms: many[2],
    };
    let line = serde_json::to_string(&figures).context("cannot write the figures")?;
    println!("{line}");
    Ok(())
}

/// The times in milliseconds of the command, the page, a search on it, and a scrape, one after the other in each round.
fn look(services: usize, rounds: usize) -> Result<[Vec<f64>; 4]> {
    scale::among(services, 3, |folder| {
        let mut all = [const { Vec::new() }; 4];
        for _ in 0..rounds {
            all[0].push(milliseconds(status(folder, services)?));
            for (at, path) in ["/", "/?q=service-77", "/metrics"].iter().enumerate() {
                all[at + 1].push(milliseconds(get(path)?));
            }
        }
        Ok(all)
    })
}

/// Runs the command.
fn status(folder: &Path, services: usize) -> Result<Duration> {
    let mut command = Command::new(program()?);
    command.arg("status").arg("--socket");
    command
        .arg(folder.join("admin.sock"))
        .env_remove("LB_SOCKET");
    let began = Instant::now();
    let done = command.output().context("cannot run the command")?;
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&done.stdout);
    ensure!(
        matches!(done.status.code(), Some(0 | 3)) && text.contains(&services.to_string()),
        "status does not tell {services} services: {done:?}"
    );
    Ok(took)
}

/// Gets what lies at `path`, to its end.
fn get(path: &str) -> Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(ADMIN).context("nobody listens for the page")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .context("the answer breaks off")?;
    let took = began.elapsed();
    let head = String::from_utf8_lossy(&answer[..answer.len().min(200)]);
    ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    Ok(took)
}

fn figures(times: &[f64]) -> Result<[f64; 2]> {
    let figures = median(times).zip(percentile(times, 99));
    figures
        .map(|(middle, worst)| [middle, worst])
        .context("nothing was measured")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Where the page is unless something else is configured.
const ADMIN: &str = "127.0.0.1:9180";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
