//! The proxies, each alone on one core, and everybody else on another.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Cgroup, Netns, Process, Spawn, eventually};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::{
    config::{self, Listen},
    load::connected,
    origin, sink,
    wire::Trust,
    workload::Workload,
};
use crate::{rivals::libraries, subject::Subject};

/// Who stands between clients and backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    Front,
    Haproxy,
    Nginx,
}

impl Proxy {
    pub(super) const ALL: [Self; 3] = [Self::Front, Self::Haproxy, Self::Nginx];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Front => "the front",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }

    /// Where it listens for the clients of `workload`.
    pub(super) fn address(self, workload: Workload) -> SocketAddrV4 {
        let Listen { plain, http2, tls } = self.listen();
        match workload {
            // It cannot tell the one from the other.
            Workload::Http2 if self == Self::Nginx => http2,
            _ if workload.encrypted() => tls,
            _ => plain,
        }
    }

    fn listen(self) -> Listen {
        let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port + self as u16);
        Listen {
            plain: at(8081),
            http2: at(8091),
            tls: at(8441),
        }
    }
}

/// Where the backend listens: the agent takes no address of loopback for another's.
const ORIGIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 78, 0, 2), 8080);

/// Where HAProxy's log is collected.
const SINK: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8514);

/// How long a proxy may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// They end with this value.
pub(super) struct Stage {
    agent: Subject,
    _rivals: [Process; 2],
    /// The processes that do the work, in the order of [`Proxy::ALL`].
    workers: [u32; 3],
    _groups: [Cgroup; 4],
    /// What clients need who speak TLS.
    pub(super) trust: Trust,
    pub(super) cores: Cores,
}

/// Where everything runs.
#[derive(Clone, Copy)]
pub(super) struct Cores {
    /// The proxies.
    pub(super) proxies: usize,
    /// Clients, backend, and what of the agent is not the front.
    pub(super) others: usize,
}

impl Stage {
    /// Starts everything in `netns`, where the caller is, from the packages in `packages`. The caller is then on the core of
    /// the clients.
    ///
    /// # Errors
    /// When there are no two cores, or a proxy does not lead to the backend.
    pub(super) fn start(
        folder: &Path,
        packages: &Path,
        netns: &Netns,
        group: &Cgroup,
    ) -> Result<Self> {
        let cores = Cores::find()?;
        pin(Pid::from_raw(0), cores.others)?;
        netns.ip(&format!("addr add {}/32 dev lo\n", ORIGIN.ip()))?;
        let bpffs = folder.join("bpf");
        fs::create_dir(&bpffs).context("cannot make the folder of the bpf file system")?;
        netns.mount_bpffs(&bpffs)?;
        origin::start(ORIGIN)?;
        sink::start(SINK, folder.join("haproxy.access.log"))?;

        let [agents, hooked, haproxys, nginxs] =
            ["agent", "clients", "haproxy", "nginx"].map(|name| group.subgroup(name));
        let groups = [agents?, hooked?, haproxys?, nginxs?];
        let [agents, hooked, haproxys, nginxs] = &groups;
        let trust = config::write_certificate(folder)?;
        config::write_agent(folder, hooked.path(), Proxy::Front.listen(), ORIGIN)?;
        // Whoever is started from here is on that core, and sees one: the front has one worker.
        pin(Pid::from_raw(0), cores.proxies)?;
        let agent = Subject::start(folder, netns, agents)?;
        let start = |rival: Spawn<'_>, group| -> Result<Process> {
            let rival = rival.env("LD_LIBRARY_PATH", libraries(packages));
            Ok(rival.netns(netns).cgroup(group).log(folder).start()?)
        };
        let haproxy = start(haproxy(folder, packages)?, haproxys)?;
        let nginx = start(nginx(folder, packages)?, nginxs)?;
        pin(Pid::from_raw(0), cores.others)?;
        for proxy in Proxy::ALL {
            for workload in [Workload::KeepAlive, Workload::Tls] {
                let trust = trust.clone().filter(|_| workload.encrypted());
                eventually(PATIENCE, || {
                    connected(workload, proxy.address(workload), &trust)
                })
                .with_context(|| format!("{} does not lead to the backend", proxy.name()))?;
            }
        }
        let child = |of: u32, group: &Cgroup| {
            let processes = group.processes()?;
            let child = processes.into_iter().find(|&process| process != of);
            child.context("a proxy has no process beside its master")
        };
        let front = child(agent.id(), agents)?;
        let workers = [front, haproxy.id(), child(nginx.id(), nginxs)?];
        pin_process(agent.id(), cores.others)?;
        for worker in workers {
            pin_process(worker, cores.proxies)?;
        }
        Ok(Self {
            agent,
            _rivals: [haproxy, nginx],
            workers,
            trust,
            _groups: groups,
            cores,
        })
    }

    /// The process that does the work of a proxy.
    pub(super) fn worker(&self, proxy: Proxy) -> u32 {
        self.workers[proxy as usize]
    }

    /// Ends the agent, and its front.
    ///
    /// # Errors
    /// When it does not end.
    pub(super) fn end(self) -> Result<()> {
        self.agent.end()
    }
}

impl Cores {
    fn find() -> Result<Self> {
        let allowed =
            sched_getaffinity(Pid::from_raw(0)).context("cannot read the CPU affinity")?;
        let mut cores = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
        let first = cores.next().context("no CPU is allowed")?;
        // Devices mostly interrupt the first.
        let last = cores.next_back();
        Ok(Self {
            proxies: last.context("the proxies need a core of their own, and there is only one")?,
            others: first,
        })
    }
}

/// Puts a thread on one core, and whomever it starts.
fn pin(thread: Pid, core: usize) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(core).context("cannot name the CPU")?;
    sched_setaffinity(thread, &one).context("cannot keep a thread on one CPU")
}

/// Puts every thread of a process on one core.
fn pin_process(process: u32, core: usize) -> Result<()> {
    let mut any = false;
    for task in tasks(process)? {
        pin(Pid::from_raw(task), core)?;
        any = true;
    }
    ensure!(any, "the process {process} has no thread");
    Ok(())
}

/// The numbers of the threads of a process.
pub(super) fn tasks(process: u32) -> Result<Vec<i32>> {
    let folder = PathBuf::from(format!("/proc/{process}/task"));
    let entries = fs::read_dir(folder).context("a proxy has ended")?;
    let numbers = entries.flatten();
    Ok(numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// HAProxy, to be started; its configuration goes to `folder`.
fn haproxy<'s>(folder: &Path, packages: &Path) -> Result<Spawn<'s>> {
    let file = folder.join("haproxy.cfg");
    fs::write(
        &file,
        config::haproxy(folder, Proxy::Haproxy.listen(), ORIGIN, SINK),
    )
    .context("cannot write the configuration of HAProxy")?;
    let haproxy = Spawn::new("haproxy", packages.join("haproxy/usr/sbin/haproxy"));
    Ok(haproxy.args(["-db", "-f"]).arg(&file))
}

/// The same of nginx.
fn nginx<'s>(folder: &Path, packages: &Path) -> Result<Spawn<'s>> {
    let file = folder.join("nginx.conf");
    let text = config::nginx(folder, Proxy::Nginx.listen(), ORIGIN);
    fs::write(&file, text).context("cannot write the configuration of nginx")?;
    let nginx = Spawn::new("nginx", packages.join("nginx/usr/sbin/nginx"));
    // Not into the log of an installed one.
    Ok(nginx.args(["-e", "stderr", "-c"]).arg(&file))
}
