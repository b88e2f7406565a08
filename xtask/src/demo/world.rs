//! The place the demo plays in: a Docker host without Docker.
//!
//! ```text
//!   the machine: browser, curl ──► 127.0.0.1:8080 front ─┐ listeners opened here and
//!                                  127.0.0.1:9180 page ──┤ passed to the agent
//!   ┌ host ──────────────────────────────────────────────▼───────────┐
//!   │ lb-agent (198.18.0.1 on lo), Consul                            │
//!   │ lb-br0 10.77.0.1/24 ──┬──────────┬──────────┬──────────┐       │
//!   └───────────────────────┼──────────┼──────────┼──────────┼───────┘
//!                    client .2      a .11      b .12      w .21
//!                    in a cgroup    hello      hello      hello
//!                    with the hooks
//! ```
//! Every box and every leaf is a network namespace. The pool is unreachable from the client's: what the hooks do
//! not rewrite goes nowhere.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use lb_testkit::{Cgroup, Netns, Process};
use tempfile::TempDir;

use super::{
    Kind, Stop,
    agent::Agent,
    binaries::Binaries,
    client::Client,
    curl::Place,
    report::Report,
    source::{Registration, Source},
};

/// Everything that the demo made. Fields are dropped in this order: processes before what they live in.
pub(super) struct World {
    agent: Agent,
    instances: BTreeMap<&'static str, Instance>,
    source: Source,
    client: Client,
    host: Netns,
    /// Of the agent alone: after its end nothing may be left in it.
    agents: Cgroup,
    servers: Cgroup,
    cgroup: Cgroup,
    folder: TempDir,
    hello: PathBuf,
    stop: Stop,
}

/// An instance of a service in a namespace of its own.
struct Instance {
    what: &'static Registration,
    /// `None` after it was killed.
    process: Option<Process>,
    netns: Netns,
}

impl World {
    /// Makes the place, with nobody in it but the source.
    pub(super) fn new(binaries: &Binaries, kind: Kind, stop: Stop) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("lb-{LABEL}-{}-", std::process::id()))
            .tempdir()
            .context("cannot make a temporary folder")?;
        let cgroup = Cgroup::new(LABEL)?;
        let servers = cgroup.subgroup("servers")?;
        let agents = cgroup.subgroup("agent")?;

        let host = Netns::new("host")?;
        host.add_bridge(BRIDGE, in_network(GATEWAY)?)?;
        let client = Client::new(cgroup.subgroup("client")?, folder.path())?;
        plug(&host, client.netns(), "client", CLIENT)?;
        client.route_pool_via(GATEWAY)?;

        let bpffs = folder.path().join("bpf");
        fs::create_dir(&bpffs).context("cannot make the folder for bpffs")?;
        host.mount_bpffs(&bpffs)?;

        let place = Place {
            netns: Some(&host),
            cgroup: Some(&servers),
        };
        let source = match (kind, &binaries.consul) {
            (Kind::Consul, Some(binary)) => Source::consul(binary, place, folder.path(), &stop)?,
            _ => Source::file(folder.path()),
        };
        let agent = Agent::new(
            &binaries.agent,
            folder.path(),
            client.cgroup().path(),
            &source.config(),
        )?;
        Ok(Self {
            agent,
            instances: BTreeMap::new(),
            source,
            client,
            host,
            agents,
            servers,
            cgroup,
            folder,
            hello: binaries.hello.clone(),
            stop,
        })
    }

    /// Starts these instances, those that do not run, and registers them and all others that the world has.
    pub(super) fn scale_up(&mut self, instances: &[&'static Registration]) -> Result<()> {
        for what in instances {
            self.start_instance(what)?;
        }
        self.publish()
    }

    /// Kills instance `id` as `docker kill` does; its registration stays, nobody says goodbye.
    pub(super) fn kill_instance(&mut self, id: &str) -> Result<()> {
        let instance = self.instances.get_mut(id);
        let process = instance.and_then(|instance| instance.process.take());
        Ok(process
            .with_context(|| format!("no instance {id} runs"))?
            .kill()?)
    }

    fn start_instance(&mut self, what: &'static Registration) -> Result<()> {
        let netns = match self.instances.remove(what.id) {
            Some(instance) => instance.netns,
            None => {
                let netns = Netns::new(what.id)?;
                plug(&self.host, &netns, what.id, what.address)?;
                netns
            }
        };
        let process = Place {
            netns: Some(&netns),
            cgroup: Some(&self.servers),
        }
        .process(&format!("hello-{}", what.id), &self.hello.to_string_lossy())
        .args(["--id", what.id, "--name", what.greeting])
        .args(["--listen", &what.socket().to_string()])
        .log(self.folder.path())
        .start()?;
        let instance = Instance {
            what,
            process: Some(process),
            netns,
        };
        self.instances.insert(what.id, instance);
        self.until(START, || self.connect(what.socket()))
            .with_context(|| format!("instance {} does not start", what.id))
    }

    fn publish(&mut self) -> Result<()> {
        let registrations: Vec<_> = self.instances.values().map(|i| i.what).collect();
        let place = Place {
            netns: Some(&self.host),
            ..Place::MACHINE
        };
        self.source.publish(&registrations, place)
    }

    /// Opens a connection from the host's namespace, past every hook.
    pub(super) fn connect(&self, address: SocketAddr) -> Result<()> {
        let connected = self
            .host
            .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)))?;
        connected
            .map(drop)
            .with_context(|| format!("cannot connect to {address}"))
    }

    /// Starts the agent, which finds what an earlier one left, and waits until it is ready.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        let place = Place {
            netns: Some(&self.host),
            cgroup: Some(&self.agents),
        };
        self.agent.start(place)?;
        let Self { agent, stop, .. } = self;
        let started = stop.or_until(START, || match agent.ensure_running() {
            // It will not come to life any more.
            Err(ended) => Ok(Err(ended)),
            Ok(()) => agent.ensure_ready().map(Ok),
        });
        started.context("the agent does not become ready")?
    }

    /// Ends the agent as systemd does, and waits.
    pub(super) fn terminate_agent(&mut self) -> Result<()> {
        self.agent.terminate()
    }

    /// Ends the agent in the middle of whatever it does.
    pub(super) fn kill_agent(&mut self) -> Result<()> {
        self.agent.kill()
    }

    /// What the agent knows now.
    pub(super) fn report(&self) -> Result<Report> {
        self.agent.report()
    }

    /// A client on this host: hooks see its connects, the agent answers its names.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The host's namespace, where no hook is.
    pub(super) fn on_host(&self) -> Place<'_> {
        Place {
            netns: Some(&self.host),
            cgroup: Some(&self.servers),
        }
    }

    /// Where the machine's browser finds the front, and where the status page.
    pub(super) fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        self.agent.addresses()
    }

    /// The command line's socket, and the program.
    pub(super) fn command_line(&self) -> String {
        self.agent.command_line()
    }

    /// Where downloads and logs go.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks `probe` until it has a value, the time is over, or somebody asks the demo to end.
    pub(super) fn until<T>(&self, limit: Duration, probe: impl FnMut() -> Result<T>) -> Result<T> {
        self.stop.or_until(limit, probe)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_asked()
    }

    /// Lets the folder with the logs outlive the demo.
    pub(super) fn keep_logs(&mut self) {
        self.folder.disable_cleanup(true);
        eprintln!(
            "demo: the logs stay in {} until the next demo",
            self.folder.path().display()
        );
    }

    /// Ends everything in good order and looks whether it is gone.
    pub(super) fn take_down(mut self) -> Result<()> {
        let ended = self.agent.terminate_if_running().and_then(|()| {
            let left = self.agents.processes()?;
            ensure!(left.is_empty(), "the agent left processes: {left:?}");
            Ok(())
        });
        let group = self.cgroup.path().to_owned();
        drop(self);
        ensure!(!group.exists(), "{} is still there", group.display());
        ended
    }
}

/// Removes what killed demos left: cgroups, if their watchdogs were killed too, and folders.
pub(super) fn sweep() -> Result<()> {
    for path in lb_testkit::sweep(LABEL)? {
        eprintln!("demo: removed {} of a killed demo", path.display());
    }
    let folder = env::temp_dir();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix("lb-demo-"));
        let pid = rest.and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Somebody else's may have such a name; then it stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn plug(host: &Netns, leaf: &Netns, name: &str, address: Ipv4Addr) -> Result<()> {
    Ok(host.plug(
        BRIDGE,
        &format!("lb-{name}"),
        leaf,
        in_network(address)?,
        GATEWAY,
    )?)
}

fn in_network(address: Ipv4Addr) -> Result<Ipv4Net> {
    Ok(Ipv4Net::new(address, 24)?)
}

/// In the names of all that the demo makes.
const LABEL: &str = "demo";

const BRIDGE: &str = "lb-br0";

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// An instance listens within milliseconds and the agent within a second, on an idle machine.
const START: Duration = Duration::from_secs(20);
