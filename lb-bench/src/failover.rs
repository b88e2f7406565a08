//! What clients notice when a backend refuses, falls silent, or is drained.
//!
//! Three backends in a namespace each, the agent as in the image, with a services file, and a steady load on their VIP.
//! Nothing is judged by how long something took: what counts is when a flow was begun, and what became of it.

mod backend;
mod load;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use lb_common::{Backend, Suspect, map};
use lb_testkit::{Cgroup, Netns, Spawn};
use serde::Serialize;

pub(crate) use backend::answer;

use self::{
    backend::{HOST, Server},
    load::{Flow, Load, Outcome},
};
use crate::{
    subject::{Subject, last_words, pinned, program, services},
    world::Membership,
};

/// The last line of the output.
#[derive(Debug, Serialize)]
struct Figures {
    /// Flows that failed after the listener of a backend was closed.
    refused_failed: usize,
    /// Flows that were under way when the first of them was refused, that one among them.
    refused_in_flight: usize,
    /// Flows that failed after a backend fell silent.
    blackhole_failed: usize,
    /// Those of them that were begun after the backend was suspected.
    blackhole_new_flows_after_suspicion: usize,
    /// From the silence to the suspicion.
    blackhole_suspicion_ms: f64,
    /// Flows to a drained backend that were begun after the command said that it is drained.
    drained_new_flows: usize,
    /// Flows that failed while it was.
    drained_failed: usize,
    /// Flows in all.
    flows: usize,
}

/// How long the load is watched after each event. Longer than a suspicion lasts, in the full form: whoever was suspected
/// must not be tried again because it is over.
const WATCHED: Duration = Duration::from_secs(12);
const WATCHED_QUICK: Duration = Duration::from_secs(2);

/// How long anything may take that only has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures and prints.
///
/// # Errors
/// When the agent or a backend does not do what it has to.
pub(crate) fn run(quick: bool) -> Result<()> {
    rustix::process::setpriority_process(None, -20)
        .context("cannot raise the priority; run this as root")?;
    let folder = tempfile::Builder::new().prefix("lb-bench-").tempdir()?;
    let watched = if quick { WATCHED_QUICK } else { WATCHED };
    let figures = measure(folder.path(), watched)
        .with_context(|| format!("the agent's last words:\n{}", last_words(folder.path())))?;
    let met = |good: bool| if good { "met" } else { "MISSED" };
    println!(
        "refused: {} of {} flows in flight failed; goal: none but these: {}",
        figures.refused_failed,
        figures.refused_in_flight,
        met(figures.refused_failed <= figures.refused_in_flight),
    );
    println!(
        "silent: suspected after {:.0} ms, {} flows begun later failed; goal: 0: {}",
        figures.blackhole_suspicion_ms,
        figures.blackhole_new_flows_after_suspicion,
        met(figures.blackhole_new_flows_after_suspicion == 0),
    );
    println!(
        "drained: {} new flows after the answer; goal: 0: {}",
        figures.drained_new_flows,
        met(figures.drained_new_flows == 0),
    );
    println!(
        "{}",
        serde_json::to_string(&figures).context("cannot write the figures")?
    );
    Ok(())
}

fn measure(folder: &Path, watched: Duration) -> Result<Figures> {
    let host = Netns::new("bench-failover")?;
    let group = Cgroup::new("bench-failover")?;
    let (agents, clients) = (group.subgroup("agent")?, group.subgroup("clients")?);
    let bpffs = folder.join("bpf");
    fs::create_dir(&bpffs).context("cannot make the folder of the bpf file system")?;
    host.mount_bpffs(&bpffs)?;
    host.add_bridge("lb-bridge", format!("{HOST}/16").parse()?)?;
    let mut servers = Server::three(&host)?;
    configure(folder, clients.path())?;
    // Goes home before the cgroups are emptied by force, which are older.
    let mut membership = Membership::of_this_process(group.path())?;
    let figures = host.enter(|| {
        let mut agent = Subject::start(folder, &host, &agents)?;
        let mut stage = Stage::new(folder, &bpffs, &host, &mut agent)?;
        membership.move_to(clients.path())?;
        let vip = stage.vip;
        // The threads of the load end with it.
        let mut load = Load::start(vip);
        for server in &servers {
            load.await_flow_to(server.number, PATIENCE)?;
        }
        let figures = stage.play(&mut servers, &mut load, watched)?;
        drop(load);
        agent.end()?;
        anyhow::Ok(figures)
    })?;
    drop(membership);
    figures
}

/// What the events happen on.
struct Stage<'a> {
    folder: PathBuf,
    host: &'a Netns,
    vip: SocketAddr,
    suspects: Array<MapData, Suspect>,
    backends: Array<MapData, Backend>,
}

impl<'a> Stage<'a> {
    /// Waits until the agent has brought the service into the maps.
    fn new(folder: &Path, bpffs: &Path, host: &'a Netns, agent: &mut Subject) -> Result<Self> {
        let mut vip = None;
        agent.wait_until(Duration::from_millis(5), || {
            // The agent may not have made the map yet.
            let Ok(services) = services(bpffs) else {
                return Ok(false);
            };
            vip = services
                .iter()
                .flatten()
                .find(|(_, service)| service.count >= 3)
                .map(|(key, _)| Ipv4Addr::from(key.vip.host()));
            Ok(vip.is_some())
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            host,
            vip: (vip.context("the service has a VIP")?, 80).into(),
            suspects: Map::Array(pinned(bpffs, map::SUSPECTS)?).try_into()?,
            backends: Map::Array(pinned(bpffs, map::BACKENDS)?).try_into()?,
        })
    }

    fn play(
        &mut self,
        servers: &mut [Server; 3],
        load: &mut Load,
        watched: Duration,
    ) -> Result<Figures> {
        let [refuses, silent, drained] = servers;
        let mut flows = 0;

        eprintln!("    a backend refuses");
        let before = Instant::now();
        refuses.close()?;
        let seen = load.until(before, Instant::now() + watched)?;
        flows += seen.len();
        let (refused_failed, refused_in_flight) = refusals(&seen);
        refuses.open(self.host)?;
        load.await_flow_to(refuses.number, PATIENCE)?;

        eprintln!("    a backend falls silent");
        let index = self.index_of(silent.address)?;
        // A backend on a busy machine may have been suspected before.
        let earlier = self.suspects.get(&index, 0)?.until_ns;
        let before = Instant::now();
        silent.fall_silent()?;
        let suspected = self.await_suspicion(index, earlier)?;
        let blackhole_suspicion_ms = ((suspected - before).as_secs_f64() * 1e3).round();
        let seen = load.until(before, suspected + watched)?;
        flows += seen.len();
        let failed = seen.iter().filter(|flow| flow.failed());
        let blackhole_failed = failed.clone().count();
        let blackhole_new_flows_after_suspicion =
            failed.filter(|flow| flow.begun > suspected).count();
        silent.speak()?;
        load.await_flow_to(silent.number, PATIENCE)?;

        eprintln!("    a backend is drained");
        let before = Instant::now();
        self.drain(drained)?;
        let acknowledged = Instant::now();
        let seen = load.until(before, acknowledged + watched)?;
        flows += seen.len();
        let drained_new_flows = seen
            .iter()
            .filter(|flow| flow.begun > acknowledged)
            .filter(|flow| flow.outcome == Outcome::Reached(drained.number))
            .count();
        Ok(Figures {
            refused_failed,
            refused_in_flight,
            blackhole_failed,
            blackhole_new_flows_after_suspicion,
            blackhole_suspicion_ms,
            drained_new_flows,
            drained_failed: seen.iter().filter(|flow| flow.failed()).count(),
            flows,
        })
    }

    fn index_of(&self, address: Ipv4Addr) -> Result<u32> {
        for index in 1..self.backends.len() {
            let backend = self.backends.get(&index, 0)?;
            if backend.port.host() != 0 && backend.address[3] == u32::from(address).to_be() {
                return Ok(index);
            }
        }
        anyhow::bail!("{address} is not in the kernel's map")
    }

    /// When a suspicion that lasts longer than until `earlier` was seen in the map, by looking again and again.
    fn await_suspicion(&self, index: u32, earlier: u64) -> Result<Instant> {
        let began = Instant::now();
        while self.suspects.get(&index, 0)?.until_ns <= earlier {
            ensure!(
                began.elapsed() < PATIENCE,
                "nobody suspects a silent backend"
            );
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(Instant::now())
    }

    /// Drains as an operator would.
    fn drain(&self, server: &Server) -> Result<()> {
        Spawn::new("lb-agent drain", program()?)
            .arg("drain")
            .arg(format!("web/{}", server.id()))
            .arg("--socket")
            .arg(self.folder.join("admin.sock"))
            .hide("LB_")
            .output()
            .context("the agent does not drain a backend")?;
        Ok(())
    }
}

/// How many failed, and how many were under way when the first was refused. Whoever was connected before it failed was
/// under way when the listener was closed. Pure.
fn refusals(seen: &[Flow]) -> (usize, usize) {
    let failed = seen.iter().filter(|flow| flow.failed()).count();
    let first = seen
        .iter()
        .filter(|flow| flow.outcome == Outcome::Refused)
        .map(|flow| flow.ended)
        .min();
    let in_flight = seen
        .iter()
        .filter(|flow| {
            flow.outcome == Outcome::Broken
                || first.is_some_and(|moment| flow.begun <= moment && moment <= flow.ended)
        })
        .count();
    (failed, in_flight)
}

fn configure(folder: &Path, cgroup: &Path) -> Result<()> {
    let instances: String = (1..=3)
        .map(|number| {
            format!(
                "  {{ id = \"{}\", address = \"{}\", port = {} }},\n",
                backend::id(number),
                backend::address(number),
                backend::PORT
            )
        })
        .collect();
    let services = format!("[[service]]\nname = \"web\"\ninstance = [\n{instances}]\n");
    fs::write(folder.join("services.toml"), services).context("cannot write the services")?;
    let (folder_name, cgroup) = (folder.display(), cgroup.display());
    let text = format!(
        "state_dir = \"{folder_name}/state\"\nbpffs = \"{folder_name}/bpf\"\ncgroup = \"{cgroup}\"\n\
         socket = \"{folder_name}/admin.sock\"\n[sources.docker]\nsocket = \"off\"\n\
         [sources.file]\npath = \"{folder_name}/services.toml\"\n\
         [dns]\nenabled = false\n[front]\nenabled = false\n[limits]\nservices = 64\nbackends = 64\n"
    );
    fs::write(folder.join("lb.toml"), text).context("cannot write the configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_began_after_the_first_refusal_was_not_in_flight() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let flow = |begun, ended, outcome| Flow {
            begun: at(begun),
            ended: at(ended),
            outcome,
        };
        let seen = [
            flow(0, 1, Outcome::Reached(1)),
            flow(0, 3, Outcome::Broken),
            flow(2, 5, Outcome::Refused),
            flow(4, 6, Outcome::Refused),
            flow(4, 7, Outcome::Reached(2)),
            flow(6, 8, Outcome::Refused),
        ];
        assert_eq!(refusals(&seen), (4, 4));
        assert_eq!(refusals(&seen[..1]), (0, 0));
    }
}
