//! Faults: what is done to the cluster, how it is undone, and what is excused meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::Quality;
use nix::sys::signal::Signal;

use crate::{
    cluster::{Cluster, HOSTS, SERVICES, consul},
    moment::Moment,
};

mod clock;
mod limits;
mod wound;

pub use wound::Wound;

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The agent is killed, several times while it starts, too. Its front lives.
    AgentKill,
    /// The agent ends by SIGUSR2 and leaves its front to the next one.
    AgentHandover,
    /// The agent ends by SIGTERM, and the front with it.
    AgentStop,
    /// The agent and its front are killed.
    AgentAndFrontKill,
    /// An agent of another version takes over, and then this one again.
    OtherVersion,
    /// A Consul server that does not lead is killed.
    ConsulServerKill,
    /// The Consul server that leads is killed.
    ConsulLeaderLoss,
    /// Two of three Consul servers are killed.
    ConsulMajorityLoss,
    /// All Consul servers fall silent: connections stay, and nobody answers.
    ConsulSilence,
    /// Nothing that Consul's servers send arrives at one host.
    ConsulPartition,
    /// Nothing that hosts with an agent send each other arrives.
    HostPartition,
    /// Nothing that one backend sends arrives at one host.
    BackendPartition,
    /// The link of one host is slow and loses packets.
    BadLink,
    /// A backend is killed and comes back, again and again.
    BackendFlapping,
    /// The Docker Engine ends by SIGTERM, and its containers with it.
    EngineStop,
    /// The Docker Engine is killed. Its containers live until there is another one.
    EngineKill,
    /// The registrar is killed, and a container after it.
    RegistrarKill,
    /// Services come and go, a thousand changes a minute.
    ManyChanges,
    /// There is no room for the agent's state.
    StateDiskFull,
    /// The agent may open nothing more.
    NoDescriptors,
    /// A host has next to no ports for new connections.
    NoPorts,
    /// The agent has less memory than it needs, and is ended whenever it starts.
    NoMemory,
    /// The time of day jumps, as one agent sees it: an hour forth, two back, and forth again.
    ClockJump,
    /// There are more services than the maps have room for.
    FullMaps,
    /// A client of one host means harm.
    HostileClient,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::AgentKill,
        Self::AgentHandover,
        Self::AgentStop,
        Self::AgentAndFrontKill,
        Self::OtherVersion,
        Self::ConsulServerKill,
        Self::ConsulLeaderLoss,
        Self::ConsulMajorityLoss,
        Self::ConsulSilence,
        Self::ConsulPartition,
        Self::HostPartition,
        Self::BackendPartition,
        Self::BadLink,
        Self::BackendFlapping,
        Self::EngineStop,
        Self::EngineKill,
        Self::RegistrarKill,
        Self::ManyChanges,
        Self::StateDiskFull,
        Self::NoDescriptors,
        Self::NoPorts,
        Self::NoMemory,
        Self::ClockJump,
        Self::FullMaps,
        Self::HostileClient,
    ];

    /// Whether Consul takes changes while it lasts.
    pub fn consul_takes_changes(self) -> bool {
        !matches!(self, Self::ConsulMajorityLoss | Self::ConsulSilence)
    }

    /// Brings it upon the cluster. `pick` chooses whom it hits.
    ///
    /// # Errors
    /// When the cluster does not do what it has to, or the fault does not happen.
    pub fn apply(self, cluster: &mut Cluster, pick: u32) -> Result<Wound> {
        let pick = pick as usize;
        let host = pick % HOSTS;
        match self {
            Self::AgentKill => agent_kill(cluster, host, pick),
            Self::AgentHandover => {
                cluster.history.blind(host, Moment::now());
                let front = cluster.hosts[host].front_id()?;
                cluster.hosts[host].end_agent(Signal::SIGUSR2)?;
                Ok(Wound::Agent {
                    host,
                    front: Some(front),
                })
            }
            Self::AgentStop => {
                cluster.history.blind(host, Moment::now());
                cluster.history.frontless(host, Moment::now());
                cluster.hosts[host].end_agent(Signal::SIGTERM)?;
                Ok(Wound::Agent { host, front: None })
            }
            Self::AgentAndFrontKill => {
                cluster.history.blind(host, Moment::now());
                cluster.history.frontless(host, Moment::now());
                cluster.hosts[host].kill_all()?;
                Ok(Wound::Agent { host, front: None })
            }
            Self::OtherVersion => {
                cluster.history.blind(host, Moment::now());
                cluster.hosts[host].end_agent(Signal::SIGUSR2)?;
                let former = cluster.programs.former.clone();
                cluster.hosts[host].start_agent_by(former, &[])?;
                cluster.await_ready(host)?;
                Ok(Wound::OtherVersion { host })
            }
            Self::ConsulServerKill => {
                let leader = cluster.consul.await_leader(&cluster.lan)?;
                let server = (leader + 1 + pick % (consul::SERVERS - 1)) % consul::SERVERS;
                cluster.consul.kill(server)?;
                Ok(Wound::Consul(vec![server]))
            }
            Self::ConsulLeaderLoss => {
                let leader = cluster.consul.await_leader(&cluster.lan)?;
                // The other servers may not have been told of the last change yet, and tell nobody before one of them leads.
                cluster.blind_who_does_not_know();
                cluster.consul.kill(leader)?;
                let next = cluster.consul.await_leader(&cluster.lan)?;
                ensure!(next != leader, "the leader that was killed leads");
                for host in 0..HOSTS {
                    cluster.history.sees(host, Moment::now());
                }
                Ok(Wound::Consul(vec![leader]))
            }
            Self::ConsulMajorityLoss => {
                blind_all(cluster);
                let stays = pick % consul::SERVERS;
                let gone: Vec<_> = (0..consul::SERVERS).filter(|it| *it != stays).collect();
                for server in &gone {
                    cluster.consul.kill(*server)?;
                }
                Ok(Wound::Consul(gone))
            }
            Self::ConsulSilence => {
                blind_all(cluster);
                cluster.consul.signal(Signal::SIGSTOP)?;
                Ok(Wound::Silence)
            }
            Self::ConsulPartition => {
                cluster.history.blind(host, Moment::now());
                let address = cluster.hosts[host].address;
                for server in 0..consul::SERVERS {
                    let netns = cluster.consul.netns(server);
                    netns.ip(&format!("route add blackhole {address}/32\n"))?;
                }
                Ok(Wound::ConsulPartition { host })
            }
            Self::HostPartition => {
                for (host, other) in pairs() {
                    let address = cluster.hosts[other].address;
                    let line = format!("route add blackhole {address}/32\n");
                    cluster.hosts[host].netns.ip(&line)?;
                }
                Ok(Wound::HostPartition)
            }
            Self::BackendPartition => {
                let backend = pick % cluster.process_count();
                let (id, from) = cluster.backend(backend);
                let id = id.to_owned();
                cluster.history.severed(host, &id, Moment::now());
                let to = cluster.hosts[host].address;
                let rule = format!("from {from} to {to} blackhole");
                cluster.backend_netns().ip(&format!("rule add {rule}\n"))?;
                cluster.await_unusable(host, &id)?;
                Ok(Wound::BackendPartition { host, id, rule })
            }
            Self::BadLink => {
                cluster.hosts[host].cable.spoil(BAD);
                Ok(Wound::BadLink { host })
            }
            Self::BackendFlapping => {
                let backend = pick % cluster.backend_count();
                for _ in 0..FLAPS {
                    cluster.kill_backend(backend)?;
                    cluster.await_tries(5)?;
                    cluster.start_backend(backend)?;
                    cluster.await_tries(5)?;
                }
                Ok(Wound::None)
            }
            Self::EngineStop => {
                cluster.stop_engine()?;
                Ok(Wound::Engine)
            }
            Self::EngineKill => {
                cluster.engine.docker.kill()?;
                Ok(Wound::Engine)
            }
            Self::RegistrarKill => {
                let containers = cluster.containers();
                let container = containers.start + pick % containers.len();
                cluster.engine.kill_registrar()?;
                cluster.kill_backend(container)?;
                Ok(Wound::Registrar { container })
            }
            Self::ManyChanges => many_changes(cluster),
            Self::StateDiskFull => limits::fill_disk(cluster, host),
            Self::NoDescriptors => limits::take_descriptors(cluster, host),
            Self::NoPorts => limits::take_ports(cluster, host),
            Self::NoMemory => limits::take_memory(cluster, host),
            Self::ClockJump => clock::jump(cluster, host),
            Self::FullMaps => {
                let ids: Vec<_> = (0..SERVICES).map(|n| format!("full-{n}")).collect();
                for id in &ids {
                    cluster.register_other(id, id)?;
                }
                limits::await_told(cluster, "limits.services")?;
                Ok(Wound::Services(ids))
            }
            Self::HostileClient => {
                let vips = cluster.vips();
                cluster.hosts[host].start_hostile(&vips)?;
                Ok(Wound::Hostile { host })
            }
        }
    }
}

/// What a bad link does to packets, each way.
const BAD: Quality = Quality {
    lost: 20,
    twice: 0,
    late: 0,
    takes: Duration::from_millis(30),
};
/// How often a backend that flaps is killed.
const FLAPS: usize = 3;
/// Of services that come and go: the time between two, for a thousand a minute.
const CHANGE_EVERY: Duration = Duration::from_millis(60);
/// What of that a machine that does much else must reach.
const LEAST_RATE: f64 = 500.0;
/// How many changes are made at that pace.
const CHANGES: usize = 120;
/// How many services come and go.
const CHANGING: usize = 8;

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    let all = (0..HOSTS).flat_map(|host| (0..HOSTS).map(move |other| (host, other)));
    all.filter(|(host, other)| host != other)
}

fn blind_all(cluster: &mut Cluster) {
    for host in 0..HOSTS {
        cluster.history.blind(host, Moment::now());
    }
}

/// Kills the agent, starts others and kills them at moments that are counted in tries of clients, and leaves none.
fn agent_kill(cluster: &mut Cluster, host: usize, pick: usize) -> Result<Wound> {
    cluster.history.blind(host, Moment::now());
    let front = cluster.hosts[host].front_id()?;
    cluster.hosts[host].kill_agent()?;
    for kill in 0..pick / HOSTS % 3 {
        cluster.hosts[host].start_agent()?;
        cluster.await_tries((pick / 7 + kill * 13) % 30)?;
        cluster.hosts[host].kill_agent()?;
    }
    Ok(Wound::Agent {
        host,
        front: Some(front),
    })
}

/// Registers and removes services at their pace, and ends with as many as there were.
fn many_changes(cluster: &mut Cluster) -> Result<Wound> {
    let began = Instant::now();
    let of_all: &Cluster = cluster;
    // Several at once: Consul may take longer for one change than their pace leaves.
    let change = |who: usize| {
        for turn in 0..CHANGES / CHANGING {
            // The pace of who changes: nothing is waited for.
            let due = CHANGE_EVERY * u32::try_from(turn * CHANGING + who)?;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let id = format!("changing-{who}");
            match turn % 2 {
                0 => of_all.register_other(&id, &id)?,
                _ => of_all.deregister_other(&id)?,
            }
        }
        anyhow::Ok(())
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..CHANGING)
            .map(|who| scope.spawn(move || change(who)))
            .collect();
        let mut ends = all.into_iter().map(std::thread::ScopedJoinHandle::join);
        ends.try_for_each(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let rate = f64::from(u32::try_from(CHANGES)?) / minutes;
    println!("             {rate:.0} changes a minute");
    ensure!(
        rate > LEAST_RATE,
        "only {rate:.0} changes a minute reached Consul"
    );
    let left = (0..CHANGING).map(|n| format!("changing-{n}"));
    Ok(Wound::Services(left.collect()))
}

impl Cluster {
    /// Waits until a host's agent says that a backend is not usable.
    fn await_unusable(&self, host: usize, id: &str) -> Result<()> {
        let noticed = lb_testkit::eventually(crate::cluster::LIMIT, || {
            let report = self.hosts[host].report()?;
            let services = report["services"].as_array().into_iter().flatten();
            let mut backends =
                services.flat_map(|it| it["backends"].as_array().into_iter().flatten());
            let usable = backends.any(|it| it["id"] == id && it["state"] == "usable");
            ensure!(!usable, "{id} is usable");
            Ok(())
        });
        noticed.context("a backend out of reach is not noticed")
    }

    /// Waits until a host's agent is ready.
    fn await_ready(&mut self, host: usize) -> Result<()> {
        let host = &mut self.hosts[host];
        let ready = lb_testkit::eventually(crate::cluster::LIMIT, || {
            if !host.agent_runs() {
                return Ok(false);
            }
            let report = host.report()?;
            ensure!(
                report["ready"] == true,
                "it waits for {}",
                report["waiting_for"]
            );
            Ok(true)
        });
        let runs = ready.context("the agent does not get ready")?;
        ensure!(runs, "the agent has ended");
        Ok(())
    }

    /// Waits until a host's agent has ended by itself.
    pub(crate) fn await_agent_end(&mut self, host: usize) -> Result<()> {
        let host = &mut self.hosts[host];
        let ended = lb_testkit::eventually(crate::cluster::LIMIT, || {
            ensure!(!host.agent_runs(), "it still runs");
            Ok(())
        });
        ended.context("the agent was to end")?;
        host.kill_agent()
    }
}
