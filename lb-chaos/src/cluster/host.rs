//! A host with an agent and clients.

use std::{
    fs,
    io::{BufRead as _, BufReader, PipeReader},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Cable, Cgroup, Netns, Process, Spawn, eventually, http};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{LIMIT, Programs, consul, lan::Lan, read_log};
use crate::{client::Target, event::Seen};

/// Endpoints that the maps of every agent here have room for.
pub(crate) const SERVICES: usize = 48;

/// The host. Processes go before what they live in.
pub(crate) struct Host {
    agent: Option<Process>,
    clients: Option<Clients>,
    hostile: Option<Process>,
    agents: Cgroup,
    client_group: Cgroup,
    /// Between this host and the switch.
    pub(crate) cable: Cable,
    pub(crate) netns: Netns,
    pub(crate) address: Ipv4Addr,
    pub(crate) folder: PathBuf,
    agent_program: PathBuf,
    own_program: PathBuf,
    /// Of the agent's log: what was judged.
    judged: usize,
}

/// The process of the clients, and what they have seen and nobody has taken.
struct Clients {
    process: Process,
    seen: Arc<Mutex<Vec<Seen>>>,
    counts: Arc<Counts>,
}

/// How often they saw what.
#[derive(Debug, Default)]
struct Counts {
    connects: AtomicUsize,
    requests: AtomicUsize,
    echoes: AtomicUsize,
}

/// The same as numbers: new flows, requests, words on established flows.
pub(crate) type Tries = [usize; 3];

impl Host {
    /// One without an agent.
    pub(super) fn new(
        programs: &Programs,
        lan: &Lan,
        index: usize,
        group: &Cgroup,
        folder: &Path,
    ) -> Result<Self> {
        let netns = Netns::new(&format!("host{index}"))?;
        let address = Ipv4Addr::new(10, 78, 0, 101 + u8::try_from(index)?);
        let cable = lan.lay(&netns, &format!("host{index}"), address)?;
        // Before anything else can happen: nothing for a VIP leaves the host.
        netns.ip("route add unreachable 198.18.0.0/16\n")?;
        let folder = folder.join(format!("host{index}"));
        for name in ["", "bpf", "state"] {
            fs::create_dir(folder.join(name))?;
        }
        netns.mount_bpffs(&folder.join("bpf"))?;
        let state = folder.join("state");
        let small = || {
            mount(
                Some("lb-state"),
                &state,
                Some("tmpfs"),
                MsFlags::empty(),
                Some("size=2m,mode=700"),
            )
        };
        netns
            .enter(small)?
            .context("cannot mount a disk for the state")?;
        let host = Self {
            agent: None,
            clients: None,
            hostile: None,
            agents: group.subgroup(&format!("agent{index}"))?,
            client_group: group.subgroup(&format!("clients{index}"))?,
            cable,
            netns,
            address,
            folder,
            agent_program: programs.agent.clone(),
            own_program: programs.own.clone(),
            judged: 0,
        };
        host.configure()?;
        Ok(host)
    }

    fn configure(&self) -> Result<()> {
        let servers: Vec<_> = (0..consul::SERVERS)
            .map(|index| format!("\"{}:8500\"", consul::address(index)))
            .collect();
        let (folder, servers) = (self.folder.display(), servers.join(", "));
        let cgroup = self.client_group.path().display();
        let text = format!(
            "state_dir = \"{folder}/state\"\nbpffs = \"{folder}/bpf\"\ncgroup = \"{cgroup}\"\n\
             socket = \"{folder}/admin.sock\"\n\
             [sources.docker]\nsocket = \"off\"\n\
             [sources.consul]\naddress = [{servers}]\nwait = \"10s\"\nmax_stale = \"5s\"\n\
             [dns]\nupstreams = []\n\
             [health]\ninterval = \"500ms\"\ntimeout = \"1s\"\n\
             [limits]\nservices = {SERVICES}\nbackends = 256\n"
        );
        Ok(fs::write(self.folder.join("lb.toml"), text)?)
    }

    /// Starts the agent and does not wait.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        let program = self.agent_program.clone();
        self.start_agent_by(program, &[])
    }

    /// The same by way of another program, which is told `before` and then what would have been run.
    pub(crate) fn start_agent_by(&mut self, program: PathBuf, before: &[String]) -> Result<()> {
        ensure!(self.agent.is_none(), "the agent runs already");
        let process = Spawn::new("agent", program)
            .args(before)
            .args(["run", "--config"])
            .arg(self.folder.join("lb.toml"))
            .hide("LB_")
            .hide("DOCKER_")
            .hide("CONSUL_")
            .netns(&self.netns)
            .cgroup(&self.agents)
            .log(&self.folder)
            .start()?;
        self.agent = Some(process);
        Ok(())
    }

    /// The agent's program.
    pub(crate) fn agent_program(&self) -> &Path {
        &self.agent_program
    }

    /// The number of the agent's process.
    pub(crate) fn agent_id(&self) -> Result<u32> {
        let agent = self.agent.as_ref().context("no agent runs")?;
        Ok(agent.id())
    }

    /// The numbers of its process and of the front's.
    pub(super) fn agent_processes(&self) -> Result<Vec<u32>> {
        Ok(self.agents.processes()?)
    }

    /// Whether the agent runs.
    pub(crate) fn agent_runs(&mut self) -> bool {
        self.agent.as_mut().is_some_and(Process::is_running)
    }

    /// The number of the front's process.
    pub(crate) fn front_id(&self) -> Result<u32> {
        let agent = self.agent.as_ref().map(Process::id);
        let all = self.agents.processes()?;
        let front = all.into_iter().find(|&id| Some(id) != agent);
        front.context("no front runs")
    }

    /// Ends the agent in the middle of whatever it does, if it runs.
    pub(crate) fn kill_agent(&mut self) -> Result<()> {
        match self.agent.take() {
            Some(mut agent) => Ok(agent.kill()?),
            None => Ok(()),
        }
    }

    /// Ends the agent and its front in the middle of whatever they do.
    pub(crate) fn kill_all(&mut self) -> Result<()> {
        self.kill_agent()?;
        for id in self.agents.processes()? {
            kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGKILL)?;
        }
        eventually(LIMIT, || {
            let left = self.agents.processes()?;
            ensure!(left.is_empty(), "{left:?} still run");
            Ok(())
        })?;
        Ok(())
    }

    /// Ends the agent by a signal that it obeys.
    pub(crate) fn end_agent(&mut self, signal: Signal) -> Result<()> {
        let mut agent = self.agent.take().context("no agent runs")?;
        kill(Pid::from_raw(i32::try_from(agent.id())?), signal)?;
        let status = agent.wait(LIMIT)?;
        ensure!(
            status.success(),
            "the agent ended by {signal} with {status}"
        );
        Ok(())
    }

    /// What the agent answers on its socket.
    pub(crate) fn ask(&self, path: &str) -> Result<String> {
        let socket = UnixStream::connect(self.folder.join("admin.sock"));
        let socket = socket.context("cannot reach the agent's socket")?;
        socket.set_read_timeout(Some(ANSWERS_WITHIN))?;
        let answer = http::ask(socket, "GET", path, "")?.accepted();
        Ok(answer.with_context(|| path.to_owned())?.text()?)
    }

    /// Everything that the agent knows.
    pub(crate) fn report(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("/api/v1/snapshot")?)?)
    }

    /// Lets clients ask for these, in the cgroup that the agent balances.
    pub(super) fn start_clients(&mut self, targets: &[Target]) -> Result<()> {
        let targets: Vec<_> = targets
            .iter()
            .map(|it| format!("{}={}", it.service, it.vip))
            .collect();
        let (process, lines) = Spawn::new("clients", &self.own_program)
            .arg("client")
            .args(targets)
            .netns(&self.netns)
            .cgroup(&self.client_group)
            .start_with_stderr()?;
        let clients = Clients {
            process,
            seen: Arc::default(),
            counts: Arc::default(),
        };
        let (seen, counts) = (Arc::clone(&clients.seen), Arc::clone(&clients.counts));
        // It ends with the process, whose end closes the pipe.
        thread::spawn(move || listen(lines, &seen, &counts));
        self.clients = Some(clients);
        Ok(())
    }

    /// How much the clients have tried.
    pub(crate) fn tries(&mut self) -> Result<Tries> {
        let clients = self.clients.as_mut().context("no clients run")?;
        ensure!(clients.process.is_running(), "the clients have ended");
        let counts = &clients.counts;
        Ok([&counts.connects, &counts.requests, &counts.echoes]
            .map(|it| it.load(Ordering::Relaxed)))
    }

    /// What the clients have seen since they were asked last.
    pub(crate) fn take_seen(&mut self) -> Vec<Seen> {
        let Some(clients) = &self.clients else {
            return Vec::new();
        };
        let mut seen = clients.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *seen)
    }

    /// Lets a client do harm here.
    pub(crate) fn start_hostile(&mut self, vips: &[Ipv4Addr]) -> Result<()> {
        let process = Spawn::new("hostile", &self.own_program)
            .arg("hostile")
            .args(vips.iter().map(ToString::to_string))
            .netns(&self.netns)
            .cgroup(&self.client_group)
            .log(&self.folder)
            .start()?;
        self.hostile = Some(process);
        Ok(())
    }

    /// Ends it, which had to go on until now.
    pub(crate) fn end_hostile(&mut self) -> Result<()> {
        let mut hostile = self.hostile.take().context("nobody does harm")?;
        ensure!(hostile.is_running(), "who should do harm has ended");
        Ok(hostile.kill()?)
    }

    /// All that agents of this host wrote.
    pub(crate) fn log(&self) -> String {
        read_log(&self.folder.join("agent.log"))
    }

    /// What they wrote since this was asked last.
    pub(crate) fn new_log(&mut self) -> String {
        let log = self.log();
        let new = log.get(self.judged..).unwrap_or_default().to_owned();
        self.judged = log.len();
        new
    }
}

/// Takes what clients say to its end.
fn listen(lines: PipeReader, seen: &Mutex<Vec<Seen>>, counts: &Counts) {
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        // What is no event is a complaint of the process, and it will be missed.
        let Ok(event) = serde_json::from_str(&line) else {
            eprintln!("a client: {line}");
            continue;
        };
        let count = match event {
            Seen::Connect(_) => &counts.connects,
            Seen::Request(_) => &counts.requests,
            Seen::Echo | Seen::Broken { .. } => &counts.echoes,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if event != Seen::Echo {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(event);
        }
    }
}

/// How long the agent may take for one answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
