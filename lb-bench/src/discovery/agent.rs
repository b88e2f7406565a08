//! The agent that is measured.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Cgroup, Netns, Process, Spawn};
use serde::Deserialize;

use super::{
    POOL, Transport,
    consul::{self, Consul},
};

pub(super) struct Agent {
    process: Process,
    folder: PathBuf,
}

/// It lets requests in flight finish, but there are none.
const END: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Report {
    services: Option<Vec<Service>>,
}

#[derive(Deserialize)]
struct Service {
    name: String,
    vip: Option<Ipv4Addr>,
}

impl Agent {
    /// Starts it with nothing in its memory and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(
        binary: &Path,
        netns: &Netns,
        group: &Cgroup,
        folder: &Path,
        consul: &Consul,
        transport: Transport,
    ) -> Result<Self> {
        let folder = folder.join(format!("agent-{transport:?}"));
        fs::create_dir_all(&folder)?;
        let source = match transport {
            Transport::Https => format!(
                "address = \"https://{}\"\nca_file = \"{}\"\n",
                consul::HTTPS,
                consul.ca.display()
            ),
            Transport::Plain => format!("address = \"{}\"\n", consul::HTTP),
        };
        let bpffs = folder.with_file_name("bpf");
        let config = format!(
            "state_dir = \"{0}/state\"\nbpffs = \"{1}\"\ncgroup = \"{2}\"\nsocket = \"{0}/admin.sock\"\n\
             [vip]\npool = \"{POOL}\"\n[sources.consul]\n{source}[dns]\nupstreams = []\n",
            folder.display(),
            bpffs.display(),
            group.path().display(),
        );
        let file = folder.join("lb.toml");
        fs::write(&file, config)?;
        let process = Spawn::new("lb-agent", binary)
            .args(["run", "--config"])
            .arg(&file)
            .hide("LB_")
            .hide("CONSUL_")
            .netns(netns)
            .cgroup(group)
            .log(&folder)
            .start()?;
        Ok(Self { process, folder })
    }

    /// The VIP of each service, in the order of their numbers.
    ///
    /// # Errors
    /// When the agent does not tell, or tells of fewer.
    pub(super) fn vips(&self, services: usize) -> Result<Vec<Ipv4Addr>> {
        let mut socket = UnixStream::connect(self.folder.join("admin.sock"))
            .context("cannot reach the agent's socket")?;
        write!(
            socket,
            "GET /api/v1/snapshot HTTP/1.0\r\nHost: localhost\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.context("the agent hung up")?;
        let report: Report = serde_json::from_slice(&answer[end + 4..])
            .with_context(|| String::from_utf8_lossy(&answer[..end]).into_owned())?;
        let vips: BTreeMap<_, _> = report
            .services
            .into_iter()
            .flatten()
            .filter_map(|service| Some((service.name, service.vip?)))
            .collect();
        let found: Vec<_> = (0..services)
            .filter_map(|n| vips.get(&consul::name(n)).copied())
            .collect();
        ensure!(
            found.len() == services,
            "the agent knows {} services only",
            found.len()
        );
        Ok(found)
    }

    /// Its resident memory, without the front's process.
    ///
    /// # Errors
    /// When it ended.
    pub(super) fn rss_mb(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))
            .context("the agent ended")?;
        let kib = status.lines().find_map(|line| {
            let text = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
            text.parse::<f64>().ok()
        });
        Ok(kib.context("no VmRSS in its status")? / 1024.0)
    }

    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("lb-agent.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Ends it; its front with it.
    ///
    /// # Errors
    /// When it does not end.
    pub(super) fn end(mut self) -> Result<()> {
        self.process.terminate()?;
        self.process.wait(END)?;
        Ok(())
    }
}
