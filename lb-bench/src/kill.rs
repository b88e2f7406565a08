//! From `docker kill` to the last flow that could begin to the killed container.
//!
//! A real engine and the agent of the image share a network namespace of their own. No flow has to be made: the
//! hook sends each to a slot of the kernel's table, so after the table lacks the container, no flow begins to it.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::Docker;
use serde::Serialize;

use crate::{
    statistics::{median, percentile},
    subject::{Services, Subject, services},
};

/// The figures.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// From the request to the engine until the kernel's table lacks the container: the median.
    pub(crate) kill_p50_ms: f64,
    /// The same at the 99th percentile.
    pub(crate) kill_p99_ms: f64,
    /// How many were killed.
    pub(crate) kills: usize,
}

/// Kills so many containers, one after the other. `packages` is the folder with the engine's packages.
///
/// # Errors
/// When the engine or the agent cannot be started, or a container does not come into the maps or leave them in time.
pub(crate) fn measure(packages: &Path, kills: usize) -> Result<Figures> {
    let docker = Docker::start(packages)?;
    docker.busybox("web")?;
    start(&docker, "stays")?;
    let bpffs = docker.prepare_for_agent("bpf")?;
    let clients = docker.cgroup().subgroup("clients")?;
    let own = docker.cgroup().subgroup("agent")?;
    configure(&docker, clients.path())?;
    let mut agent = Subject::start(docker.folder(), docker.netns(), &own)?;
    let mut times = Vec::with_capacity(kills);
    for kill in 0..kills {
        let name = format!("victim-{kill}");
        start(&docker, &name)?;
        let killed = docker.netns().enter(|| -> Result<Duration> {
            await_instances(&bpffs, 2, &mut agent)?;
            let services = services(&bpffs)?;
            let began = Instant::now();
            let mut answer = ask_to_kill(&docker.socket(), &name)?;
            agent
                .wait_until(Duration::from_micros(50), || Ok(instances(&services)? == 1))
                .with_context(|| format!("{name} does not leave the map"))?;
            let took = began.elapsed();
            let mut said = String::new();
            answer
                .read_to_string(&mut said)
                .context("the engine breaks off")?;
            ensure!(said.starts_with("HTTP/1.1 204"), "the engine says: {said}");
            Ok(took)
        })??;
        times.push(killed.as_secs_f64() * 1000.0);
        docker.docker(["rm", "-f", &name])?;
    }
    let kill_p50_ms = median(&times).context("nothing was killed")?;
    let kill_p99_ms = percentile(&times, 99).context("nothing was killed")?;
    agent.end()?;
    Ok(Figures {
        kill_p50_ms,
        kill_p99_ms,
        kills,
    })
}

fn start(docker: &Docker, name: &str) -> Result<()> {
    let label = ["-l", "SERVICE_NAME=shop"];
    let run = ["run", "-d", "--name", name];
    docker.docker(run.iter().chain(&label).chain(&["web"]))?;
    Ok(())
}

fn configure(docker: &Docker, clients: &Path) -> Result<()> {
    let (folder, clients) = (docker.folder().display(), clients.display());
    let text = format!(
        "state_dir = \"{folder}/state\"\nbpffs = \"{folder}/bpf\"\ncgroup = \"{clients}\"\n\
         socket = \"{folder}/admin.sock\"\n\
         [sources.docker]\nsocket = \"unix://{}\"\n\
         [front]\nlisten = [\"127.0.0.1:8000\"]\n\
         [dns]\nupstreams = []\n\
         [health]\ninterval = \"200ms\"\n",
        docker.socket().display()
    );
    fs::write(docker.folder().join("lb.toml"), text).context("cannot write the configuration")
}

/// Sends what `docker kill` sends, without the time that the command itself takes to start.
fn ask_to_kill(socket: &Path, name: &str) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).context("cannot connect to the engine")?;
    write!(
        stream,
        "POST /containers/{name}/kill HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    .context("cannot ask the engine")?;
    Ok(stream)
}

/// The slots of the only service: one for each instance that may be sent to. Of the views that tell it apart, the one that
/// reaches most: an instance is gone when no view has it.
fn instances(services: &Services) -> Result<u32> {
    services.iter().try_fold(0, |most, element| {
        let (_, service) = element?;
        Ok(most.max(service.count))
    })
}

fn await_instances(bpffs: &Path, count: u32, agent: &mut Subject) -> Result<()> {
    agent
        .wait_until(Duration::from_millis(5), || {
            // The agent may not have made them yet.
            let Ok(services) = services(bpffs) else {
                return Ok(false);
            };
            Ok(instances(&services)? == count)
        })
        .with_context(|| format!("the map does not come to {count} instances"))
}
