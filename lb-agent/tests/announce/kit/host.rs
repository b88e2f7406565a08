//! A host, its agent, and what is asked of both.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::Command,
};

use lb_testkit::{Cgroup, Netns, Process, Spawn, eventually, http};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{CONSUL, LIMIT, Segment, Signalled as _, TTL, mac};
use crate::wire::Mac;

/// A host with an agent.
pub(crate) struct Host {
    agent: Option<Process>,
    pub(crate) number: u8,
    runs: usize,
    agents: Cgroup,
    clients: Cgroup,
    _group: Cgroup,
    pub(crate) netns: Netns,
    folder: TempDir,
}

const BINARY: &str = env!("CARGO_BIN_EXE_lb-agent");

impl Host {
    /// One that announces on `eth0` and has the service `www`, with no agent yet.
    pub(crate) fn new(segment: &Segment, number: u8) -> Self {
        let host = Self::bare(number);
        segment.plug(&host);
        host.configure_more("");
        host
    }

    /// Writes the configuration of one that announces on `eth0`, and this.
    pub(crate) fn configure_more(&self, more: &str) {
        self.configure(&format!(
            "[sources.consul]\naddress = \"{CONSUL}\"\nwait = \"5s\"\n\
             [announce]\ndevices = [\"eth0\"]\nttl = \"{}s\"\n{more}",
            TTL.as_secs()
        ));
    }

    /// Waits until so many backends of a service are usable.
    #[track_caller]
    pub(crate) fn await_usable(&self, service: &str, count: u64) {
        let usable = eventually(LIMIT, || {
            let services = self.json(&["services"]);
            let all = services.as_array().cloned().unwrap_or_default();
            let one = all.iter().find(|it| it["service"] == service);
            let usable = one.and_then(|it| it["usable"].as_u64());
            match usable == Some(count) {
                true => Ok(()),
                false => Err(format!("{services}")),
            }
        });
        usable.unwrap_or_else(|late| panic!("{late}\n{}", self.said()));
    }

    /// One on no network, with no agent.
    pub(crate) fn bare(number: u8) -> Self {
        let netns = Netns::new(&format!("host{number}")).unwrap();
        let folder = TempDir::with_prefix("lb-announce-").unwrap();
        fs::create_dir(folder.path().join("bpf")).unwrap();
        netns.mount_bpffs(&folder.path().join("bpf")).unwrap();
        let group = Cgroup::new("announce-test").unwrap();
        let host = Self {
            agent: None,
            number,
            runs: 0,
            agents: group.subgroup("agent").unwrap(),
            clients: group.subgroup("client").unwrap(),
            _group: group,
            netns,
            folder,
        };
        host.publish(&["www"]);
        host
    }

    /// Writes the configuration: the usual, and this.
    pub(crate) fn configure(&self, more: &str) {
        let folder = self.folder.path().display();
        let text = format!(
            "state_dir = \"{folder}/state\"\nbpffs = \"{folder}/bpf\"\ncgroup = \"{}\"\n\
             socket = \"{folder}/admin.sock\"\n\
             [sources.docker]\nsocket = \"off\"\n[sources.file]\npath = \"{folder}/services.toml\"\n\
             [dns]\nenabled = false\n[front]\nenabled = false\n{more}",
            self.clients.path().display()
        );
        fs::write(self.path("lb.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Lets it have these services.
    pub(crate) fn publish(&self, services: &[&str]) {
        let one = |name: &&str| {
            format!(
                "[[service]]\nname = \"{name}\"\n[[service.instance]]\nid = \"{name}\"\n\
                 address = \"10.77.0.1\"\nport = 1\n"
            )
        };
        let text: String = services.iter().map(one).collect();
        let new = self.path("services.new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, self.path("services.toml")).unwrap();
    }

    /// Starts the agent.
    pub(crate) fn start(&mut self) {
        self.runs += 1;
        let agent = Spawn::new(format!("agent-{}", self.runs), BINARY)
            .args(["run", "--config"])
            .arg(self.path("lb.toml"))
            .hide("LB_")
            .netns(&self.netns)
            .cgroup(&self.agents)
            .log(self.folder.path())
            .start();
        self.agent = Some(agent.unwrap());
    }

    /// What the agent of the last start wrote.
    pub(crate) fn said(&self) -> String {
        let log = self.path(&format!("agent-{}.log", self.runs));
        fs::read_to_string(log).unwrap_or_default()
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.agent.take().unwrap().kill().unwrap();
    }

    /// Ends it as systemd does.
    pub(crate) fn terminate(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.terminate().unwrap();
        let status = agent.wait(LIMIT).unwrap();
        assert!(status.success(), "{status}\n{}", self.said());
        assert!(!self.said().contains("panicked"), "{}", self.said());
    }

    /// Waits for an end that is on its way.
    pub(crate) fn await_end(&mut self) {
        let mut agent = self.agent.take().unwrap();
        let status = agent.wait(LIMIT).unwrap();
        assert!(status.success(), "{status}\n{}", self.said());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.agent.as_ref().unwrap().signal(signal);
    }

    /// What a command of the program prints in here.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.netns.enter(|| {
            let mut command = Command::new(BINARY);
            command.args(arguments);
            command.output().unwrap()
        });
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// What `doctor` says of announcing.
    pub(crate) fn doctor(&self) -> String {
        let config = self.path("lb.toml").display().to_string();
        let told = self.run(&["doctor", "--config", &config]);
        let lines = told.lines().filter(|it| it.contains("announce"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What the agent answers to a command, as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let socket = self.path("admin.sock").display().to_string();
        let all = [arguments, &["--socket", &socket, "-o", "json"]].concat();
        serde_json::from_str(&self.run(&all)).unwrap_or_default()
    }

    /// The line of `status` about announcing: how it is, and in words.
    pub(crate) fn line(&self) -> Option<(String, String)> {
        let status = self.json(&["status"]);
        let components = status["components"].as_array()?;
        let line = components.iter().find(|it| it["name"] == "announce")?;
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        Some((text("mark"), text("detail")))
    }

    /// Whether this host answers for the VIPs; `None` if nobody does, or it does not say.
    pub(crate) fn announces(&self) -> Option<bool> {
        let (_, detail) = self.line()?;
        if detail.starts_with("this host answers for ") {
            return Some(true);
        }
        detail.contains(") answers for the VIPs").then_some(false)
    }

    /// Waits until it says so.
    #[track_caller]
    pub(crate) fn await_line(&self, mark: &str, holds: impl Fn(&str) -> bool) -> String {
        let told = eventually(LIMIT, || {
            let line = self.line();
            match &line {
                Some((of, detail)) if of == mark && holds(detail) => Ok(detail.clone()),
                _ => Err(format!("{line:?}")),
            }
        });
        told.unwrap_or_else(|late| panic!("{late}\n{}", self.said()))
    }

    /// The address of a service.
    pub(crate) fn vip(&self, service: &str) -> Ipv4Addr {
        let vip = eventually(LIMIT, || {
            let services = self.json(&["services"]);
            let all = services.as_array().cloned().unwrap_or_default();
            let one = all.iter().find(|it| it["service"] == service);
            let vip = one.and_then(|it| it["vip"].as_str()?.parse().ok());
            vip.ok_or(format!("{services}"))
        });
        vip.unwrap_or_else(|late| panic!("{late}\n{}", self.said()))
    }

    /// The address of its network card.
    pub(crate) fn mac(&self) -> Mac {
        let told = self.netns.ip("link show dev eth0\n").unwrap();
        let mut words = told.split_whitespace();
        words.find(|it| *it == "link/ether").unwrap();
        mac(words.next().unwrap())
    }

    /// One of its metrics.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.netns.enter(|| {
            let stream = TcpStream::connect("127.0.0.1:9180")?;
            http::ask(stream, "GET", "/metrics", "")?.text()
        });
        let answer = answer.unwrap().ok()?;
        let line = answer
            .lines()
            .find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
        line?.parse().ok()
    }
}
