//! The Docker Engine on the host of the backends, and the registrar that keeps its containers in Consul. A backend in a container is
//! the same program as the others, at a port that the host publishes.

use std::{net::SocketAddrV4, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Cgroup, Docker, Process, Spawn};

use super::{BACKENDS, Programs, consul, read_log};

/// The image of every backend.
const IMAGE: &str = "backend";
/// Where a backend listens in its container.
const INNER_PORT: u16 = 8080;
/// Where its libraries are, which are those of this machine: the program is built for it.
const LIBRARIES: [&str; 2] = ["/lib", "/lib64"];

/// Both. Who registers goes before what it follows.
pub(crate) struct Engine {
    registrar: Option<Process>,
    group: Cgroup,
    pub(crate) docker: Docker,
    agent: PathBuf,
}

impl Engine {
    /// An engine without containers, and no registrar yet. Its namespace is the host.
    pub(super) fn start(programs: &Programs, group: Cgroup) -> Result<Self> {
        let docker = Docker::start(&programs.docker)?;
        let files = [("/backend", &*programs.own)];
        docker.image(IMAGE, &files, &[r#"ENTRYPOINT ["/backend", "backend"]"#])?;
        Ok(Self {
            registrar: None,
            group,
            docker,
            agent: programs.agent.clone(),
        })
    }

    /// Makes a container and starts it: its labels say what is registered.
    pub(super) fn create(&self, id: &str, service: &str, at: SocketAddrV4) -> Result<()> {
        let [name, label] = [
            format!("SERVICE_NAME={service}"),
            format!("SERVICE_ID={id}"),
        ];
        let publish = format!("{}:{INNER_PORT}", at.port());
        let inner = format!("0.0.0.0:{INNER_PORT}");
        let there = LIBRARIES
            .iter()
            .filter(|it| std::path::Path::new(it).exists());
        let libraries: Vec<_> = there.map(|it| format!("{it}:{it}:ro")).collect();
        let mut arguments = vec!["run", "--detach", "--name", id, "--publish", &publish];
        // As process 1 it is deaf to SIGTERM.
        arguments.extend(["--restart", "always", "--stop-timeout", "1"]);
        for library in &libraries {
            arguments.extend(["--volume", library]);
        }
        for word in [&*name, &*label].into_iter().chain(CHECK) {
            arguments.extend(["--label", word]);
        }
        arguments.extend([IMAGE, id, &inner]);
        self.docker.docker(arguments)?;
        Ok(())
    }

    /// Ends a container in the middle of whatever it does.
    pub(super) fn kill(&self, id: &str) -> Result<()> {
        Ok(self.docker.docker(["kill", id]).map(drop)?)
    }

    /// Starts a container that has ended.
    pub(super) fn start_again(&self, id: &str) -> Result<()> {
        Ok(self.docker.docker(["start", id]).map(drop)?)
    }

    /// Starts the registrar, beside the Consul agent of its host.
    pub(crate) fn start_registrar(&mut self) -> Result<()> {
        ensure!(self.registrar.is_none(), "the registrar runs already");
        let process = Spawn::new("registrar", &self.agent)
            .hide("LB_")
            .hide("DOCKER_")
            .hide("CONSUL_")
            // All hosts here have the name of the machine.
            .args(["register", "--give-up", "0", "--host", consul::LOCAL])
            .arg("--docker")
            .arg(self.docker.socket())
            .arg(format!("consul://{BACKENDS}:8500"))
            .netns(self.docker.netns())
            .cgroup(&self.group)
            .log(self.docker.folder())
            .start()?;
        self.registrar = Some(process);
        Ok(())
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill_registrar(&mut self) -> Result<()> {
        let mut registrar = self.registrar.take().context("no registrar runs")?;
        ensure!(registrar.is_running(), "the registrar has ended by itself");
        Ok(registrar.kill()?)
    }

    /// All that registrars wrote.
    pub(crate) fn log(&self) -> String {
        read_log(&self.docker.folder().join("registrar.log"))
    }
}

/// What Consul does to find out whether a backend is there: as for those outside containers.
const CHECK: [&str; 4] = [
    "SERVICE_CHECK_TCP=true",
    "SERVICE_CHECK_INTERVAL=1s",
    "SERVICE_CHECK_TIMEOUT=2s",
    "SERVICE_CHECK_INITIAL_STATUS=passing",
];
