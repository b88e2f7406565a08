//! What the front costs, against HAProxy and nginx.
//!
//! The agent of the image and the rivals stand before the same backend, each with one worker on the same core; clients
//! and backend are on another. Single figures of these machines spread by half, so the proxies take turns for a moment
//! each, in an order that cancels drift, and only ratios within one such round count.

mod calls;
mod config;
mod http2;
mod idle;
mod load;
mod origin;
mod reply;
mod report;
mod rounds;
mod sink;
mod stage;
mod wire;
mod workload;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use lb_testkit::{Cgroup, Netns};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use self::{
    calls::Counter,
    load::Load,
    report::Measured,
    rounds::{Rounds, Turn},
    stage::{Proxy, Stage},
    workload::Workload,
};
use crate::{ratios::there_and_back, subject::last_words, world};

/// How the front is measured.
#[derive(Args)]
pub(crate) struct Front {
    /// The folder with the packages of HAProxy, nginx and strace.
    #[arg(long, env = "LB_RIVALS", value_name = "DIR")]
    rivals: PathBuf,
    /// A few seconds instead of a few minutes: shows that it works, proves nothing.
    #[arg(long)]
    quick: bool,
    /// Only this workload, and no idle connections; may be said several times. For work on one of them: with the numbers of the
    /// proxies' processes.
    #[arg(long, value_name = "WORKLOAD")]
    only: Vec<Workload>,
}

/// How much to measure.
struct Effort {
    rounds: usize,
    /// How long one proxy works at a stretch.
    slice: Duration,
    /// The same while system calls are counted.
    counted: Duration,
    /// Without a fall of a proxy's memory for so long there is none to come.
    settled: Duration,
}

const FULL: Effort = Effort {
    rounds: 75,
    slice: Duration::from_millis(100),
    counted: Duration::from_secs(1),
    settled: Duration::from_secs(7),
};

const QUICK: Effort = Effort {
    rounds: 3,
    slice: Duration::from_millis(50),
    counted: Duration::from_millis(200),
    settled: Duration::from_secs(1),
};

/// Of each process, at least: HAProxy wants two for each connection that it may get.
const DESCRIPTORS: u64 = 20_000;

/// Measures and prints.
///
/// # Errors
/// When a proxy does not do what it has to.
pub(crate) fn run(front: &Front) -> Result<()> {
    rustix::process::setpriority_process(None, -20)
        .context("cannot raise the priority; run this as root")?;
    // Thousands of connections, with both ends on this machine.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read a limit")?;
    let limit = hard.max(DESCRIPTORS);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).context("cannot raise a limit")?;
    let folder = tempfile::Builder::new().prefix("lb-bench-").tempdir()?;
    let folder = folder.path();
    let netns = Netns::new("bench-front")?;
    world::limit_closed(&netns)?;
    let group = Cgroup::new("bench-front")?;
    let effort = if front.quick { &QUICK } else { &FULL };
    let measured = netns.enter(|| {
        let stage = Stage::start(folder, &front.rivals, &netns, &group)?;
        let counter = Counter::new(&front.rivals, folder);
        let measured = measure(&stage, &counter, effort, &front.only)?;
        stage.end()?;
        anyhow::Ok(measured)
    })?;
    let measured =
        measured.with_context(|| format!("the agent's last words:\n{}", last_words(folder)))?;
    report::print(&measured)
}

fn measure(
    stage: &Stage,
    counter: &Counter,
    effort: &Effort,
    only: &[Workload],
) -> Result<Measured> {
    let (proxies, others) = (stage.cores.proxies, stage.cores.others);
    println!("the proxies on CPU {proxies}, clients and backend on CPU {others}");
    // First: memory that was used and freed would be used again.
    let mut idle_kb = [None; 3];
    for proxy in Proxy::ALL {
        if only.is_empty() {
            let kb = idle::kb_per_connection(stage, proxy, effort.settled)?;
            idle_kb[proxy as usize] = Some(kb);
        } else {
            println!("{}: process {}", proxy.name(), stage.worker(proxy));
        }
    }
    let wanted = |workload: &Workload| only.is_empty() || only.contains(workload);
    let mut workloads = Vec::new();
    for workload in Workload::ALL.into_iter().filter(wanted) {
        let mut loads = Vec::new();
        for proxy in Proxy::ALL {
            let load = Load::open(workload, proxy.address(workload), &stage.trust);
            loads.push(load.with_context(|| failed(workload, proxy))?);
        }
        workloads.push((workload, loads, Rounds::default()));
    }
    for (workload, loads, _) in &mut workloads {
        // Caches, page tables and the allocators warm up.
        round(stage, *workload, loads, 0, effort.slice)?;
    }
    for number in 0..effort.rounds {
        if number > 0 && number % 25 == 0 {
            eprintln!("    {number} rounds of {}", effort.rounds);
        }
        for (workload, loads, rounds) in &mut workloads {
            rounds.add(round(stage, *workload, loads, number, effort.slice)?);
        }
    }
    let calls: Result<Vec<_>> = workloads
        .iter_mut()
        .map(|(_, loads, _)| count(stage, counter, loads, effort.counted))
        .collect();
    let calls = calls
        .inspect_err(|error| println!("system calls are not counted: {error:#}"))
        .ok();
    Ok(Measured {
        workloads: workloads
            .into_iter()
            .map(|(workload, _, rounds)| (workload, rounds))
            .collect(),
        calls,
        idle_kb,
    })
}

/// Two slices of each proxy.
fn round(
    stage: &Stage,
    workload: Workload,
    loads: &mut [Load],
    number: usize,
    slice: Duration,
) -> Result<[Turn; 3]> {
    let mut turns = [(); 3].map(|()| Turn::default());
    for proxy in there_and_back(Proxy::ALL.to_vec(), number) {
        let worker = stage.worker(proxy);
        let before = cpu_s(worker)?;
        let slice = loads[proxy as usize].run(slice);
        let slice = slice.with_context(|| failed(workload, proxy))?;
        turns[proxy as usize].add(slice, cpu_s(worker)? - before);
    }
    Ok(turns)
}

fn count(
    stage: &Stage,
    counter: &Counter,
    loads: &mut [Load],
    slice: Duration,
) -> Result<[f64; 3]> {
    let mut counted = [0.0; 3];
    for proxy in Proxy::ALL {
        let load = &mut loads[proxy as usize];
        counted[proxy as usize] = counter.per_request(stage.worker(proxy), load, slice)?;
    }
    Ok(counted)
}

fn failed(workload: Workload, proxy: Proxy) -> String {
    format!("{} failed through {}", workload.name(), proxy.name())
}

/// What all threads of a process have had of CPUs so far, in seconds: what /proc tells in hundredths, to the nanosecond.
fn cpu_s(process: u32) -> Result<f64> {
    let process = i32::try_from(process).context("a process has a number")?;
    let clock = clock_getcpuclockid(Pid::from_raw(process)).context("a proxy has ended")?;
    let time: Duration = clock_gettime(clock).context("a proxy has ended")?.into();
    Ok(time.as_secs_f64())
}
