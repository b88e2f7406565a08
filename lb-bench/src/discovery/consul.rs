//! A real Consul, and the few requests that the bench itself makes.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::{Cgroup, Netns, Process, Spawn, eventually, http};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// A running Consul in a namespace.
pub(super) struct Consul {
    _process: Process,
    /// The certificate of who signed Consul's.
    pub(super) ca: PathBuf,
}

pub(super) const HTTP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8500);
pub(super) const HTTPS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8501);

const UP_WITHIN: Duration = Duration::from_secs(30);
/// Of every instance.
pub(super) const PORT: u16 = 80;
/// Nodes that the instances are spread over.
const NODES: usize = 50;
/// What Consul takes in one transaction.
const OPERATIONS: usize = 64;

/// An answer with status 200.
pub(super) struct Answer {
    pub(super) index: u64,
    pub(super) body: Vec<u8>,
}

impl Consul {
    /// Starts one with nothing in it.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn start(
        binary: &Path,
        netns: &Netns,
        group: &Cgroup,
        folder: &Path,
    ) -> Result<Self> {
        let [ca, certificate, key] = certificates(folder)?;
        let config = json!({
            "server": true, "bootstrap_expect": 1, "node_name": "lb-bench", "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1", "data_dir": folder.join("consul"), "disable_update_check": true,
            "log_level": "warn", "cert_file": certificate, "key_file": key,
            "ports": {"http": HTTP.port(), "https": HTTPS.port(), "dns": -1, "grpc": -1},
            "performance": {"raft_multiplier": 1},
        });
        let file = folder.join("consul.json");
        fs::write(&file, config.to_string())?;
        let process = Spawn::new("consul", binary)
            .args(["agent", "-config-file"])
            .arg(&file)
            .netns(netns)
            .cgroup(group)
            .log(folder)
            .start()?;
        let consul = Self {
            _process: process,
            ca,
        };
        netns.enter(|| {
            eventually(UP_WITHIN, || {
                let listed = get("/v1/health/service/consul?passing")?;
                ensure!(listed.body.len() > 2, "Consul does not know itself yet");
                Ok(())
            })
            .context("Consul does not come up")
        })??;
        Ok(consul)
    }

    /// Registers so many services with so many instances each.
    ///
    /// # Errors
    /// When Consul refuses.
    pub(super) fn fill(&self, services: usize, instances: usize) -> Result<()> {
        let node = |n| {
            let (node, address) = (node(n), Ipv4Addr::new(10, 76, 255, 1));
            json!({"Node": {"Verb": "set", "Node": {"Node": node, "Address": address}}})
        };
        self.change(&(0..NODES).map(node).collect::<Vec<_>>())?;
        let of = |service| {
            (0..instances).map(move |n| Instance {
                service,
                n,
                answers: false,
            })
        };
        let all = (0..services).flat_map(of);
        let operations: Vec<Value> = all.flat_map(Instance::register).collect();
        for some in operations.chunks(OPERATIONS) {
            self.change(some)?;
        }
        Ok(())
    }

    /// Carries out operations in one transaction.
    ///
    /// # Errors
    /// When Consul refuses.
    pub(super) fn change(&self, operations: &[Value]) -> Result<()> {
        ask("PUT", "/v1/txn", &Value::from(operations).to_string()).map(drop)
    }

    /// What Consul says of a service: at once, or when `index` is passed.
    ///
    /// # Errors
    /// When Consul refuses, or nothing changes for a long time.
    pub(super) fn listing(&self, service: usize, index: Option<u64>) -> Result<Answer> {
        let hold = index.map_or(String::new(), |index| format!("&index={index}&wait=30s"));
        get(&format!("/v1/health/service/{}?stale{hold}", name(service)))
    }
}

/// One instance of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instance {
    pub(super) service: usize,
    pub(super) n: usize,
    /// Whether somebody answers there. Such a one has most of the weight: the front tries it first or second.
    pub(super) answers: bool,
}

impl Instance {
    /// Registers it with a check that passes.
    pub(super) fn register(self) -> [Value; 2] {
        let n = u16::try_from(self.service * 16 + self.n).unwrap_or(u16::MAX);
        let [high, low] = n.to_be_bytes();
        let (net, weight) = if self.answers { (77, 10) } else { (76, 1) };
        let address = Ipv4Addr::new(10, net, high, low);
        // Most cannot be probed.
        let service = json!({"ID": self.id(), "Service": name(self.service), "Address": address,
                             "Port": PORT, "Tags": ["lb_check=off"],
                             "Weights": {"Passing": weight, "Warning": 1}});
        let node = self.node();
        [
            json!({"Service": {"Verb": "set", "Node": node, "Service": service}}),
            self.check("passing"),
        ]
    }

    /// Takes it away, and its check with it.
    pub(super) fn deregister(self) -> Value {
        let service = json!({"ID": self.id(), "Service": name(self.service)});
        json!({"Service": {"Verb": "delete", "Node": self.node(), "Service": service}})
    }

    /// Turns its check.
    pub(super) fn check(self, status: &str) -> Value {
        let id = self.id();
        json!({"Check": {"Verb": "set", "Check": {
            "Node": self.node(), "CheckID": format!("service:{id}"), "Name": "tcp", "Status": status,
            "ServiceID": id, "Output": "TCP connect 10.76.0.1:80: Success"}}})
    }

    fn id(self) -> String {
        format!("{}-{}", name(self.service), self.n)
    }

    fn node(self) -> String {
        node((self.service + self.n) % NODES)
    }
}

/// The name of a service.
pub(super) fn name(service: usize) -> String {
    format!("service-{service}")
}

fn node(n: usize) -> String {
    format!("node-{n}")
}

/// A certificate authority, and a certificate and its key for Consul, as files.
fn certificates(folder: &Path) -> Result<[PathBuf; 3]> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key)?;
    let issuer = Issuer::from_params(&params, &key);
    let own_key = KeyPair::generate()?;
    let names = ["127.0.0.1", "localhost", "server.dc1.consul"].map(str::to_owned);
    let own = CertificateParams::new(names)?.signed_by(&own_key, &issuer)?;
    let files = [
        ("ca.pem", ca.pem()),
        ("consul.pem", own.pem()),
        ("consul.key", own_key.serialize_pem()),
    ];
    for (file, text) in &files {
        fs::write(folder.join(file), text)?;
    }
    Ok(files.map(|(file, _)| folder.join(file)))
}

/// From other addresses than the agent's, which Consul allows only so many connections.
fn connect() -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let from = Ipv4Addr::new(127, 0, 1, fastrand::u8(1..=100));
    socket.bind(&SocketAddrV4::new(from, 0).into())?;
    socket.connect(&HTTP.into())?;
    Ok(socket.into())
}

fn get(path: &str) -> Result<Answer> {
    ask("GET", path, "")
}

/// One request, which must be answered with status 200.
fn ask(method: &str, path: &str, body: &str) -> Result<Answer> {
    let consul = connect().context("cannot reach Consul")?;
    consul.set_read_timeout(Some(Duration::from_secs(60)))?;
    let answer = http::ask(consul, method, path, body).and_then(http::Answer::accepted);
    let answer = answer.with_context(|| format!("Consul did not answer to {method} {path}"))?;
    let index = answer
        .field("X-Consul-Index")
        .and_then(|it| it.parse().ok());
    Ok(Answer {
        index: index.unwrap_or(0),
        body: answer.body,
    })
}
