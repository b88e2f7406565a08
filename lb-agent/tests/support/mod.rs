//! A real Consul on loopback for the tests, and nothing left of it afterwards.

use std::{
    collections::BTreeSet,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
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
    node: String,
    /// What is said beyond the usual; its tables are united with the usual ones.
    extra: Value,
}

/// The token that may do everything where tokens matter.
pub(crate) const MASTER: &str = "6a1253d2-1785-24fd-91c2-f8e78c745511";

#[derive(Clone, Copy)]
pub(crate) struct Ports {
    http: u16,
    pub(crate) https: u16,
    pub(crate) server: u16,
    serf_lan: u16,
    serf_wan: u16,
}

impl Consul {
    /// A Consul that has a leader and knows no service but itself.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| json!({})).await
    }

    /// The same, but only [`MASTER`] has any right.
    pub(crate) async fn start_guarded() -> Self {
        let acl = json!({"enabled": true, "default_policy": "deny",
                         "tokens": {"master": MASTER, "agent": MASTER}});
        Self::start_with(|_| json!({"acl": acl})).await
    }

    /// The same as the first, with `extra` in its configuration.
    pub(crate) async fn start_with(extra: impl FnOnce(&Ports) -> Value) -> Self {
        let mut consul = Self::prepare("lb-test");
        consul.extra = extra(&consul.ports);
        consul.run().await;
        consul
    }

    /// Three servers of one cluster that have a leader.
    pub(crate) async fn start_three() -> [Self; 3] {
        let mut all = ["lb-test-0", "lb-test-1", "lb-test-2"].map(Self::prepare);
        let join = all
            .each_ref()
            .map(|it| format!("127.0.0.1:{}", it.ports.serf_lan));
        for consul in &mut all {
            consul.extra =
                json!({"bootstrap_expect": 3, "retry_join": join, "retry_interval": "1s"});
            consul.spawn();
        }
        for consul in &all {
            consul.up().await;
        }
        all
    }

    /// An agent that is no server, of the cluster of `server`.
    pub(crate) async fn start_client(server: &Self) -> Self {
        let mut consul = Self::prepare("lb-test-client");
        let join = [format!("127.0.0.1:{}", server.ports.serf_lan)];
        consul.extra = json!({"server": false, "bootstrap_expect": 0, "retry_join": join,
                              "retry_interval": "1s"});
        consul.run().await;
        consul
    }

    fn prepare(node: &str) -> Self {
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
        Self {
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
            node: node.to_owned(),
            extra: json!({}),
        }
    }

    pub(crate) fn ports(&self) -> Ports {
        self.ports
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

    /// Makes it silent: its connections stay, and nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends the silence.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().unwrap();
        let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
        kill(pid, signal).unwrap();
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
        self.spawn();
        self.up().await;
    }

    fn spawn(&mut self) {
        let Ports {
            http,
            https: _,
            server,
            serf_lan,
            serf_wan,
        } = self.ports;
        let mut config = json!({
            "server": true, "bootstrap_expect": 1, "node_name": self.node, "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1", "data_dir": self.data.path().join("data"),
            "disable_update_check": true, "leave_on_terminate": false, "log_level": "warn",
            "ports": {"http": http, "dns": -1, "grpc": -1, "server": server, "serf_lan": serf_lan,
                      "serf_wan": serf_wan},
            // Elections in a second instead of ten.
            "performance": {"raft_multiplier": 1},
        });
        unite(&mut config, &self.extra);
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
    }

    /// Waits for a leader, and the node's own entry, which anti-entropy makes a moment later.
    async fn up(&self) {
        let deadline = Instant::now() + BOUND;
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
        // Every server has an instance of `consul`; another agent has its checks alone.
        let path = match self.extra["server"] == false {
            true => format!("health/node/{}", self.node),
            false => "health/service/consul?passing".to_owned(),
        };
        let url = format!("http://{}/v1/{path}", self.address());
        let Ok(answer) = self.http.get(url).send().await else {
            return false;
        };
        let entries: Vec<Value> = answer.json().await.unwrap_or_default();
        entries
            .iter()
            .any(|entry| [&entry["Node"], &entry["Node"]["Node"]].contains(&&json!(self.node)))
    }

    /// A request that must succeed; gives its answer.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        self.put_as(MASTER, path, body).await
    }

    /// The same with a token of one's own.
    pub(crate) async fn put_as(&self, token: &str, path: &str, body: Value) -> Value {
        let url = format!("http://{}/v1/{path}", self.address());
        let answer = self
            .http
            .put(url)
            .header(TOKEN, token)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Registers an instance of `service` with the id `id` at a port of 10.99.0.1, without a check.
    pub(crate) async fn register(&self, service: &str, id: &str, port: u16) {
        let body = json!({"Name": service, "ID": id, "Address": "10.99.0.1", "Port": port});
        self.put("agent/service/register", body).await;
    }

    /// The same, as soon as there is a leader that takes it.
    pub(crate) async fn register_when_led(&self, service: &str, id: &str, port: u16) {
        let deadline = Instant::now() + BOUND;
        while self.get("status/leader").await == "" {
            assert!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.register(service, id, port).await;
    }

    /// The answer to a request that must succeed.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}/v1/{path}", self.address());
        let answer = self.http.get(url).send().await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
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
    Ports {
        http: free_port(),
        https: free_port(),
        server: free_port(),
        serf_lan: free_port(),
        serf_wan: free_port(),
    }
}

/// Below those that the kernel gives to whoever connects somewhere, which would take it until Consul listens. Never one
/// that another test of this process was given: its Consul may not listen yet.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let free = |port: &u16| {
        GIVEN
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(*port)
            && TcpListener::bind(("127.0.0.1", *port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", *port)).is_ok()
    };
    let mut chances = std::iter::repeat_with(|| fastrand::u16(20_000..32_000));
    chances.find(free).unwrap()
}

/// Adds what `more` says to `all`, table by table.
fn unite(all: &mut Value, more: &Value) {
    match (all, more) {
        (Value::Object(all), Value::Object(more)) => {
            for (key, value) in more {
                unite(all.entry(key).or_insert(Value::Null), value);
            }
        }
        (all, more) => *all = more.clone(),
    }
}

/// Waits until `holds`.
pub(crate) async fn until(bound: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {bound:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
