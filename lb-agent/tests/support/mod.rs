//! A real Consul on loopback for the tests, and nothing left of it afterwards.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// No condition in these tests may take longer.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// A running `consul agent`, ended by its process id when dropped.
pub(crate) struct Consul {
    binary: PathBuf,
    ports: Ports,
    data: tempfile::TempDir,
    process: Option<Child>,
    http: reqwest::Client,
    acl: Acl,
}

/// Whether tokens matter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acl {
    Off,
    /// Whoever has no token sees nothing.
    Deny,
}

/// The token that may do everything where tokens matter.
pub(crate) const MASTER: &str = "6a1253d2-1785-24fd-91c2-f8e78c745511";

#[derive(Clone, Copy)]
struct Ports {
    http: u16,
    server: u16,
    serf_lan: u16,
    serf_wan: u16,
}

impl Consul {
    /// A Consul that has a leader and knows no service but itself.
    pub(crate) async fn start() -> Self {
        Self::start_with(Acl::Off).await
    }

    /// The same, but only [`MASTER`] has any right.
    pub(crate) async fn start_guarded() -> Self {
        Self::start_with(Acl::Deny).await
    }

    async fn start_with(acl: Acl) -> Self {
        let binary = std::env::var_os("LB_CONSUL").map_or_else(
            || {
                panic!(
                    "these tests need a Consul: run `cargo xtask test`, which fetches one, or set \
                     LB_CONSUL to its binary"
                )
            },
            PathBuf::from,
        );
        // reqwest looks for one whenever it makes a client; fails if another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut consul = Self {
            binary,
            ports: free_ports(),
            data: tempfile::Builder::new()
                .prefix("lb-consul-")
                .tempdir()
                .unwrap(),
            process: None,
            http: reqwest::Client::builder()
                .no_proxy()
                .default_headers(
                    [(TOKEN, HeaderValue::from_static(MASTER))]
                        .into_iter()
                        .collect(),
                )
                .build()
                .unwrap(),
            acl,
        };
        consul.run().await;
        consul
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.http)
    }

    /// Kills it; its data stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again on the same ports with nothing in its memory.
    pub(crate) async fn wipe(&mut self) {
        self.kill();
        self.data = tempfile::Builder::new()
            .prefix("lb-consul-")
            .tempdir()
            .unwrap();
        self.run().await;
    }

    /// Starts it again with the data it had.
    pub(crate) async fn run(&mut self) {
        let Ports {
            http,
            server,
            serf_lan,
            serf_wan,
        } = self.ports;
        let mut config = json!({
            "server": true, "bootstrap_expect": 1, "node_name": "lb-test", "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1", "data_dir": self.data.path().join("data"),
            "disable_update_check": true, "leave_on_terminate": false, "log_level": "warn",
            "ports": {"http": http, "dns": -1, "grpc": -1, "server": server, "serf_lan": serf_lan,
                      "serf_wan": serf_wan},
            // Elections in a second instead of ten.
            "performance": {"raft_multiplier": 1},
        });
        if self.acl == Acl::Deny {
            config["acl"] = json!({"enabled": true, "default_policy": "deny",
                                   "tokens": {"master": MASTER, "agent": MASTER}});
        }
        let file = self.data.path().join("consul.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let log = std::fs::File::create(self.data.path().join("log")).unwrap();
        // Ends with the thread of its test, also when that is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.binary)
            .arg("agent")
            .arg(format!("-config-file={}", file.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let deadline = Instant::now() + BOUND;
        // A leader, and the node's own entry, which anti-entropy makes a moment later.
        while !self.has_itself().await {
            assert!(
                Instant::now() < deadline,
                "Consul does not come up: {}",
                std::fs::read_to_string(self.data.path().join("log")).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn has_itself(&self) -> bool {
        let url = format!("http://{}/v1/health/service/consul?passing", self.address());
        match self.http.get(url).send().await {
            Ok(answer) if answer.status().is_success() => answer
                .json::<Vec<Value>>()
                .await
                .is_ok_and(|entries| !entries.is_empty()),
            _ => false,
        }
    }

    /// A request that must succeed.
    pub(crate) async fn put(&self, path: &str, body: Value) {
        let url = format!("http://{}/v1/{path}", self.address());
        let answer = self
            .http
            .put(url)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
    }

    /// Registers an instance of `service` with the id `id` at a port of 10.99.0.1, without a check.
    pub(crate) async fn register(&self, service: &str, id: &str, port: u16) {
        let body = json!({"Name": service, "ID": id, "Address": "10.99.0.1", "Port": port});
        self.put("agent/service/register", body).await;
    }

    pub(crate) async fn deregister(&self, id: &str) {
        self.put(&format!("agent/service/deregister/{id}"), Value::Null)
            .await;
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Ports that were free a moment ago.
fn free_ports() -> Ports {
    let holders: Vec<_> = (0..4)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let port = |n: usize| holders[n].local_addr().unwrap().port();
    Ports {
        http: port(0),
        server: port(1),
        serf_lan: port(2),
        serf_wan: port(3),
    }
}
