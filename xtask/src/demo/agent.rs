//! The agent under demonstration: its configuration, its listeners, its life.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lb_testkit::Process;

use super::{curl::Place, report::Report};

pub(super) struct Agent {
    binary: PathBuf,
    folder: PathBuf,
    /// Opened on the machine and kept open here: while no agent runs, connects wait in them.
    front: TcpListener,
    admin: TcpListener,
    process: Option<Process>,
}

impl Agent {
    /// Prepares an agent that attaches its hooks to `cgroup` and reads `source`, a part of its configuration.
    pub(super) fn new(binary: &Path, folder: &Path, cgroup: &Path, source: &str) -> Result<Self> {
        let place = folder.display();
        let config = format!(
            "state_dir = \"{place}/state\"\n\
             bpffs = \"{place}/bpf\"\n\
             cgroup = \"{}\"\n\
             socket = \"{place}/{SOCKET}\"\n\n\
             [vip]\npool = \"{POOL}\"\n\n\
             [sources.docker]\nsocket = \"off\"\n\n\
             {source}\n\
             [dns]\nlisten = [\"{RESOLVER}:53\"]\nupstreams = []\n",
            cgroup.display()
        );
        fs::write(folder.join(CONFIG), config).context("cannot write the agent's configuration")?;
        Ok(Self {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            front: listen(FRONT_PORT)?,
            admin: listen(ADMIN_PORT)?,
            process: None,
        })
    }

    pub(super) fn start(&mut self, place: Place<'_>) -> Result<()> {
        let process = place
            .process("lb-agent", &self.binary.to_string_lossy())
            .args(["run", "--config"])
            .arg(self.folder.join(CONFIG))
            // Settings of the user's own agent would come before those of the file.
            .hide("LB_")
            .hide("CONSUL_")
            .listener("front", &self.front)
            .listener("admin", &self.admin)
            .log(&self.folder)
            .start()?;
        self.process = Some(process);
        Ok(())
    }

    /// Fails if it ended by itself.
    pub(super) fn ensure_running(&mut self) -> Result<()> {
        match self.process.as_mut().map(Process::is_running) {
            Some(true) => Ok(()),
            _ => bail!("the agent ended; it said: {}", self.last_words()),
        }
    }

    /// Fails unless it serves everything it should.
    pub(super) fn ensure_ready(&self) -> Result<()> {
        let answer = Place::MACHINE.ask(&[&self.page("ready")?])?;
        match answer.status {
            200 => Ok(()),
            _ => bail!("not ready: {}", answer.body.replace('\n', "; ")),
        }
    }

    pub(super) fn report(&self) -> Result<Report> {
        let answer = Place::MACHINE.get(&self.page("api/v1/snapshot")?)?;
        Report::parse(&answer.body)
    }

    pub(super) fn terminate(&mut self) -> Result<()> {
        let mut process = self.process.take().context("no agent runs")?;
        process.terminate()?;
        let status = process.wait(END)?;
        match status.success() {
            true => Ok(()),
            false => bail!(
                "the agent ended with {status} after SIGTERM; it said: {}",
                self.last_words()
            ),
        }
    }

    pub(super) fn terminate_if_running(&mut self) -> Result<()> {
        match self.process.as_mut().map(Process::is_running) {
            Some(true) => self.terminate(),
            _ => Ok(()),
        }
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("no agent runs")?;
        Ok(process.kill()?)
    }

    /// The front's address and the status page's.
    pub(super) fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.front.local_addr()?, self.admin.local_addr()?))
    }

    /// How to ask it from a shell.
    pub(super) fn command_line(&self) -> String {
        format!(
            "{} --socket {}",
            self.binary.display(),
            self.folder.join(SOCKET).display()
        )
    }

    fn page(&self, path: &str) -> Result<String> {
        Ok(format!("http://{}/{path}", self.admin.local_addr()?))
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("lb-agent.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

/// Listens on the loopback address at `port`, or at the next that is free.
fn listen(port: u16) -> Result<TcpListener> {
    for port in port..port.saturating_add(PORTS_TRIED) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other.with_context(|| format!("cannot listen on 127.0.0.1:{port}")),
        }
    }
    bail!("the {PORTS_TRIED} ports from {port} on are all taken; end one of their owners")
}

/// Where VIPs come from.
pub(super) const POOL: &str = "198.18.0.0/16";

/// The agent's own address, the first of the pool, where it answers names.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

const FRONT_PORT: u16 = 8080;

const ADMIN_PORT: u16 = 9180;

const PORTS_TRIED: u16 = 50;

const CONFIG: &str = "lb.toml";

const SOCKET: &str = "admin.sock";

/// It lets requests in flight finish, but a demo has none that take long.
const END: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_means_the_next_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let next = listen(port).unwrap().local_addr().unwrap().port();
        assert!(next > port, "{next} after {port}");
    }
}
