//! Three Consul servers in a namespace each, and the Consul agent of the backends.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Cgroup, Netns, Process, Spawn, eventually, http};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{LIMIT, lan::Lan};

/// How many servers there are.
pub(crate) const SERVERS: usize = 3;

/// The node of the Consul agent of the backends.
pub(super) const LOCAL: &str = "backends";

/// A server, which may have ended.
struct Server {
    process: Option<Process>,
    netns: Netns,
}

/// All of it.
pub(crate) struct Consul {
    servers: Vec<Server>,
    /// Runs the checks of what is registered, so that a server's end takes no backend with it.
    _local: Process,
    binary: PathBuf,
    folder: PathBuf,
    group: Cgroup,
}

/// The address of the server number `index`.
pub(crate) fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, 1 + u8::try_from(index).unwrap_or(u8::MAX))
}

impl Consul {
    /// Starts all of it, and waits until there is a leader; `local` is where the backends are.
    pub(super) fn start(
        binary: &Path,
        lan: &Lan,
        local: (&Netns, Ipv4Addr),
        group: Cgroup,
        folder: &Path,
    ) -> Result<Self> {
        let mut servers = Vec::new();
        for index in 0..SERVERS {
            let netns = Netns::new(&format!("consul{index}"))?;
            lan.plug(&netns, &format!("consul{index}"), address(index))?;
            servers.push(Server {
                process: None,
                netns,
            });
        }
        let spawn = |name: &str, at, netns: &Netns, server| {
            spawn(binary, name, at, netns, &group, folder, server)
        };
        for (index, server) in servers.iter_mut().enumerate() {
            let name = format!("consul{index}");
            server.process = Some(spawn(&name, address(index), &server.netns, true)?);
        }
        let process = spawn(LOCAL, local.1, local.0, false)?;
        let consul = Self {
            servers,
            _local: process,
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            group,
        };
        consul.await_leader(lan)?;
        eventually(LIMIT, || {
            let said = ask(lan, local.1, "GET", "/v1/agent/members", "")?;
            let members: Vec<Value> = serde_json::from_str(&said)?;
            ensure!(members.len() == SERVERS + 1, "of Consul's cluster: {said}");
            // Its own node has to be in the catalog before services are.
            let nodes = ask(lan, address(0), "GET", "/v1/catalog/nodes", "")?;
            ensure!(
                nodes.contains(&format!("\"{LOCAL}\"")),
                "no node of backends: {nodes}"
            );
            Ok(())
        })?;
        Ok(consul)
    }

    /// The index of the leader, as soon as all servers that run name the same one, which runs.
    pub(crate) fn await_leader(&self, lan: &Lan) -> Result<usize> {
        let leader = eventually(LIMIT, || {
            let mut named = None;
            for (index, server) in self.servers.iter().enumerate() {
                if server.process.is_none() {
                    continue;
                }
                let told = ask(lan, address(index), "GET", "/v1/status/leader", "")?;
                ensure!(
                    named.get_or_insert_with(|| told.clone()) == &told,
                    "servers name different leaders"
                );
            }
            let named = named.context("no server runs")?;
            let is_it = |index: &usize| named == format!("\"{}:8300\"", address(*index));
            let leader = (0..SERVERS).find(is_it);
            let leader = leader.with_context(|| format!("the leader is {named}"))?;
            ensure!(
                self.servers[leader].process.is_some(),
                "the leader named does not run"
            );
            Ok(leader)
        });
        leader.context("Consul has no leader")
    }

    /// Ends a server in the middle of whatever it does.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        let server = &mut self.servers[index];
        let mut process = server.process.take().context("that server has ended")?;
        Ok(process.kill()?)
    }

    /// Starts it again, with what it knew.
    pub(crate) fn restart(&mut self, index: usize) -> Result<()> {
        let server = &mut self.servers[index];
        let name = format!("consul{index}");
        let process = spawn(
            &self.binary,
            &name,
            address(index),
            &server.netns,
            &self.group,
            &self.folder,
            true,
        )?;
        server.process = Some(process);
        Ok(())
    }

    /// Makes all servers silent, or ends that: their connections stay.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        for process in self.servers.iter().filter_map(|it| it.process.as_ref()) {
            kill(Pid::from_raw(i32::try_from(process.id())?), signal)?;
        }
        Ok(())
    }

    /// Where a server is.
    pub(crate) fn netns(&self, index: usize) -> &Netns {
        &self.servers[index].netns
    }
}

fn spawn(
    binary: &Path,
    name: &str,
    at: Ipv4Addr,
    netns: &Netns,
    group: &Cgroup,
    folder: &Path,
    server: bool,
) -> Result<Process> {
    let join: Vec<_> = (0..SERVERS).map(address).collect();
    let mut config = json!({
        "server": server, "node_name": name, "bind_addr": at, "client_addr": at,
        "data_dir": folder.join(format!("data-{name}")), "retry_join": join, "retry_interval": "1s",
        "disable_update_check": true, "leave_on_terminate": false, "log_level": "warn",
        "ports": {"dns": -1, "grpc": -1},
        // Elections in seconds instead of many; not the fastest, since the cores are shared.
        "performance": {"raft_multiplier": 4},
    });
    if server {
        config["bootstrap_expect"] = SERVERS.into();
    }
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, config.to_string())?;
    let process = Spawn::new(name, binary)
        .args(["agent", "-config-file"])
        .arg(&file)
        .netns(netns)
        .cgroup(group)
        .log(folder)
        .start()?;
    Ok(process)
}

/// What a Consul answers to one request.
pub(crate) fn ask(lan: &Lan, to: Ipv4Addr, method: &str, path: &str, body: &str) -> Result<String> {
    let exchange = || {
        let address = SocketAddrV4::new(to, 8500);
        let stream = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        http::ask(stream, method, path, body)?.accepted()?.text()
    };
    let answer = lan.hub.enter(exchange)?;
    answer.with_context(|| format!("Consul at {to} did not answer to {path}"))
}

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
