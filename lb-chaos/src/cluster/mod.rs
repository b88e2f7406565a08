//! A small cluster: three Consul servers, backends with checks, of which some are containers of a Docker Engine with a registrar, hosts with
//! an agent and clients, all on one switch.

mod backends;
pub(crate) mod consul;
mod engine;
mod host;
pub(crate) mod lan;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use lb_testkit::{Cgroup, Netns, eventually};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use host::{Host, SERVICES};

use self::{consul::Consul, engine::Engine, lan::Lan};
use crate::{client::Target, history::History, moment::Moment, rules};

/// How long anything may take that only has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How many hosts have an agent.
pub const HOSTS: usize = 2;

/// The services, and how many backends each has as processes. One more is in a container.
const SERVICES_OF_BACKENDS: [(&str, usize); 2] = [("www_hello", 3), ("api_hello", 3)];

/// Where the backends are.
const BACKENDS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 20);

/// How many lines of a log are told.
const LAST_WORDS: usize = 25;

/// The programs that take part.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This crate's own.
    pub own: PathBuf,
    /// The agent.
    pub agent: PathBuf,
    /// The agent of another version.
    pub former: PathBuf,
    /// Consul.
    pub consul: PathBuf,
    /// The folder with the packages of a Docker Engine.
    pub docker: PathBuf,
}

impl Programs {
    /// Those beside `own`, and the Consul and the Docker Engine that `LB_CONSUL` and `LB_DOCKER` name. Another version is the program that `LB_FORMER` names; without one it
    /// is the same, which is only ended and started.
    ///
    /// # Errors
    /// When one is not there.
    pub fn beside(own: PathBuf) -> Result<Self> {
        let agent = own.with_file_name("lb-agent");
        ensure!(
            agent.is_file(),
            "{} is not there: build it with `cargo build -p lb-agent`",
            agent.display()
        );
        let consul = std::env::var_os("LB_CONSUL").context(
            "a Consul is needed: run `cargo xtask chaos`, which fetches one, or set LB_CONSUL to its binary",
        )?;
        let docker = std::env::var_os("LB_DOCKER").context(
            "a Docker Engine is needed: run `cargo xtask chaos`, which fetches one, or set LB_DOCKER to the folder of its packages",
        )?;
        let former = std::env::var_os("LB_FORMER").map_or_else(|| agent.clone(), PathBuf::from);
        ensure!(
            former.is_file(),
            "LB_FORMER names {}, which is no program",
            former.display()
        );
        Ok(Self {
            own,
            agent,
            former,
            consul: consul.into(),
            docker: docker.into(),
        })
    }
}

/// The cluster. Fields are dropped in this order: processes before what they live in.
pub struct Cluster {
    pub(crate) hosts: Vec<Host>,
    backends: Vec<backends::Backend>,
    pub(crate) consul: Consul,
    /// On the host of the backends.
    pub(crate) engine: Engine,
    backend_group: Cgroup,
    pub(crate) lan: Lan,
    pub(crate) group: Cgroup,
    folder: TempDir,
    pub(crate) programs: Programs,
    /// What happened so far.
    pub(crate) history: History,
    vips: BTreeMap<String, Ipv4Addr>,
    began: Moment,
}

impl Cluster {
    /// Starts all of it, and waits until clients on every host are served.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn start(programs: &Programs) -> Result<Self> {
        let folder = TempDir::with_prefix("lb-chaos-")?;
        let group = Cgroup::new("chaos")?;
        let lan = Lan::new()?;
        let engine = Engine::start(programs, group.subgroup("registrar")?)
            .context("the Docker Engine does not come up")?;
        lan.plug(engine.docker.netns(), "backends", BACKENDS)?;
        let consul = Consul::start(
            &programs.consul,
            &lan,
            (engine.docker.netns(), BACKENDS),
            group.subgroup("consul")?,
            folder.path(),
        )
        .context("Consul does not come up")?;
        let mut cluster = Self {
            hosts: Vec::new(),
            backends: Vec::new(),
            consul,
            engine,
            backend_group: group.subgroup("backends")?,
            lan,
            group,
            folder,
            programs: programs.clone(),
            history: History::of(HOSTS),
            vips: BTreeMap::new(),
            began: Moment::now(),
        };
        let backends = cluster.start_backends();
        backends.with_context(|| cluster.last_words())?;
        cluster.start_hosts()?;
        Ok(cluster)
    }

    fn start_hosts(&mut self) -> Result<()> {
        let folder = self.folder.path();
        for index in 0..HOSTS {
            let host = Host::new(&self.programs, &self.lan, index, &self.group, folder)?;
            self.hosts.push(host);
        }
        for host in &mut self.hosts {
            host.start_agent()?;
        }
        let vips = eventually(LIMIT, || -> Result<_> {
            let told = vips(&self.hosts[0].report()?);
            let vip = |(service, _): &(&str, usize)| {
                let vip = told.get(*service).copied();
                let vip = vip.with_context(|| format!("{service} has no VIP"));
                Ok(((*service).to_owned(), vip?))
            };
            SERVICES_OF_BACKENDS.iter().map(vip).collect::<Result<_>>()
        });
        self.vips = vips.with_context(|| self.last_words())?;
        self.await_calm().with_context(|| self.last_words())?;
        let targets: Vec<_> = self.targets();
        for host in &mut self.hosts {
            host.start_clients(&targets)?;
        }
        self.await_tries(5)?;
        // What clients saw before is not judged.
        Ok(())
    }

    fn targets(&self) -> Vec<Target> {
        let all = SERVICES_OF_BACKENDS.iter().filter_map(|(service, _)| {
            Some(Target {
                service: (*service).to_owned(),
                vip: *self.vips.get(*service)?,
            })
        });
        all.collect()
    }

    /// The numbers of the processes of a host's agent and its front.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn agent_processes(&self, host: usize) -> Result<Vec<u32>> {
        self.hosts[host].agent_processes()
    }

    /// The VIPs of the services that clients use.
    pub(crate) fn vips(&self) -> Vec<Ipv4Addr> {
        self.targets().iter().map(|it| it.vip).collect()
    }

    /// When it began.
    pub fn began(&self) -> Moment {
        self.began
    }

    /// Waits until the clients on every host have tried everything so many times more.
    pub(crate) fn await_tries(&mut self, more: usize) -> Result<()> {
        let goals: Vec<_> = self
            .hosts
            .iter_mut()
            .map(|host| Ok(host.tries()?.map(|it| it + more)))
            .collect::<Result<_>>()?;
        for (host, goal) in self.hosts.iter_mut().zip(goals) {
            eventually(LIMIT, || {
                let tries = host.tries()?;
                let enough = tries.iter().zip(goal).all(|(tried, goal)| *tried >= goal);
                ensure!(enough, "{tries:?} tries instead of {goal:?}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Waits until every host is ready, and knows every service and exactly the backends that are usable.
    ///
    /// # Errors
    /// What the last host does not know yet.
    pub(crate) fn await_calm(&mut self) -> Result<()> {
        for index in 0..self.hosts.len() {
            let calm = eventually(LIMIT, || {
                // One that has ended will never be.
                if !self.hosts[index].agent_runs() {
                    return Ok(Err(anyhow!("the agent of host {index} has ended")));
                }
                self.calm(index).map(Ok)
            });
            calm.with_context(|| format!("host {index} does not recover"))??;
            self.history.calm(index, Moment::now());
        }
        Ok(())
    }

    /// Hosts that know all there is now must heed it from now on, and the others cannot know more.
    pub(crate) fn blind_who_does_not_know(&mut self) {
        for index in 0..self.hosts.len() {
            let before = Moment::now();
            match self.calm(index) {
                Ok(()) => self.history.calm(index, Moment::now()),
                Err(_) => self.history.blind(index, before),
            }
        }
    }

    fn calm(&self, index: usize) -> Result<()> {
        let report = self.hosts[index].report()?;
        ensure!(
            report["ready"] == true,
            "not ready: {}",
            report["waiting_for"]
        );
        let told = vips(&report);
        let services = report["services"].as_array().into_iter().flatten();
        let mut usable = BTreeSet::new();
        for service in services {
            let name = service["name"].as_str().unwrap_or_default();
            if !self.vips.contains_key(name) {
                continue;
            }
            ensure!(
                told.get(name) == self.vips.get(name),
                "{name} is {:?} instead of {:?}",
                told.get(name),
                self.vips.get(name)
            );
            let backends = service["backends"].as_array().into_iter().flatten();
            let backends = backends.filter(|it| it["state"] == "usable");
            usable.extend(backends.filter_map(|it| Some((name, it["id"].as_str()?))));
        }
        let expected = self.history.usable();
        ensure!(
            usable == expected,
            "usable are {usable:?} instead of {expected:?}"
        );
        let front = self.hosts[index].front_id();
        front.map(drop)
    }

    /// What is wrong with the VIPs: of all services, as far as hosts tell.
    pub(crate) fn vips_differ(&self) -> Vec<rules::Violation> {
        let all = self.hosts.iter().enumerate();
        let told: Vec<_> = all
            .filter_map(|(index, host)| Some((index, vips(&host.report().ok()?))))
            .collect();
        // A host that chose otherwise than the first one did, at any time, is told as well.
        let first = (usize::MAX, self.vips.clone());
        let all: Vec<_> = std::iter::once(first).chain(told).collect();
        rules::compare_vips(Moment::now(), &all)
    }

    /// The namespace of the host of the backends.
    pub(crate) fn backend_netns(&self) -> &Netns {
        self.engine.docker.netns()
    }

    /// The last words of every agent, and of the registrar.
    pub(crate) fn last_words(&self) -> String {
        let all = self.hosts.iter().enumerate();
        let agents = all.map(|(index, host)| (format!("agent of host {index}"), host.log()));
        let all = agents.chain([("registrar".to_owned(), self.engine.log())]);
        let each = all.map(|(who, log)| format!("the {who} said last:\n{}\n", end_of(&log)));
        each.collect()
    }
}

/// What a process wrote so far; nothing before it writes.
fn read_log(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// The end of a log, without the lines of the access log.
fn end_of(log: &str) -> String {
    let all: Vec<_> = log.lines().filter(|it| !it.contains("\"GET /")).collect();
    all[all.len().saturating_sub(LAST_WORDS)..].join("\n")
}

/// The VIPs that a report tells.
fn vips(report: &Value) -> BTreeMap<String, Ipv4Addr> {
    let services = report["services"].as_array().into_iter().flatten();
    let vips = services.filter_map(|service| {
        let name = service["name"].as_str()?.to_owned();
        Some((name, service["vip"].as_str()?.parse().ok()?))
    });
    vips.collect()
}
