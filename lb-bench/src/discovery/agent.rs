//! The agent that is measured.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{
    Cgroup, Netns,
    http::{self, Answer},
};
use serde::Deserialize;

use super::{
    POOL, Transport,
    consul::{self, Consul},
    front::FRONT,
};
use crate::subject::{Subject, last_words, resident_mb};

pub(super) struct Agent {
    pub(super) subject: Subject,
    folder: PathBuf,
}

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
             [vip]\npool = \"{POOL}\"\n[sources.docker]\nsocket = \"off\"\n[sources.consul]\n{source}\
             [dns]\nupstreams = []\n[front]\nlisten = [\"{FRONT}\"]\n",
            folder.display(),
            bpffs.display(),
            group.path().display(),
        );
        let file = folder.join("lb.toml");
        fs::write(&file, config)?;
        let subject = Subject::start(&folder, netns, group)?;
        Ok(Self { subject, folder })
    }

    /// Waits until maps and front have all that was known at first.
    ///
    /// # Errors
    /// When it takes too long.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
        let folder = &self.folder;
        let ready = || Ok(ask(folder, "/ready")?.status == 200);
        self.subject.wait_until(Duration::from_millis(10), ready)
    }

    /// The VIP of each service, in the order of their numbers.
    ///
    /// # Errors
    /// When the agent does not tell, or tells of fewer.
    pub(super) fn vips(&self, services: usize) -> Result<Vec<Ipv4Addr>> {
        let answer = ask(&self.folder, "/api/v1/snapshot")?;
        let report: Report = serde_json::from_slice(&answer.body).context(answer.head)?;
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
        resident_mb(self.subject.id())
    }

    pub(super) fn last_words(&self) -> String {
        last_words(&self.folder)
    }
}

/// What the agent answers on its socket.
fn ask(folder: &Path, path: &str) -> Result<Answer> {
    let socket = UnixStream::connect(folder.join("admin.sock"));
    let socket = socket.context("cannot reach the agent's socket")?;
    Ok(http::ask(socket, "GET", path, "")?)
}
