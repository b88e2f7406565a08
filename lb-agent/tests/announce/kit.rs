//! One network segment: a bridge with a Consul, hosts with an agent each, and a client with none.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use lb_testkit::{Cgroup, Netns, Process, Spawn, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::wire::{Mac, Wire};

/// How long a test waits for what must come.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
/// Of a session here. Consul takes so little because it is told to; with less, a busy machine loses sessions that nobody took.
pub(crate) const TTL: Duration = Duration::from_secs(4);
/// Consul ends a session within twice its time, and gives its lock to nobody for a second; the rest is for a busy machine.
pub(crate) const FOLLOWS: Duration = Duration::from_secs(2 * 4 + 1 + 6);

/// The segment. Processes go before what they live in.
pub(crate) struct Segment {
    consul: Process,
    hub: Netns,
    pub(crate) client: Netns,
    _folder: TempDir,
}

const CONSUL: &str = "10.77.0.1:8500";

impl Segment {
    /// A bridge with a Consul that has a leader, and a client.
    pub(crate) fn new() -> Self {
        let hub = Netns::new("hub").unwrap();
        hub.add_bridge("lb-br0", "10.77.0.1/24".parse().unwrap())
            .unwrap();
        let client = Netns::new("client").unwrap();
        plug(&hub, &client, "lb-client", 9);
        client
            .ip("route add 198.18.0.0/16 dev eth0\nroute add fd62:6c62:76:1::/64 dev eth0\n")
            .unwrap();
        let folder = TempDir::with_prefix("lb-announce-").unwrap();
        let consul = consul(&hub, &folder);
        Self {
            consul,
            hub,
            client,
            _folder: folder,
        }
    }

    /// The same with two hosts that have announced once: who answers comes first.
    pub(crate) fn with_two() -> (Self, Host, Host) {
        let segment = Self::new();
        let mut hosts = [1, 2].map(|number| {
            let mut host = Host::new(&segment, number);
            host.start();
            host
        });
        let mine = eventually(LIMIT, || {
            let told = [hosts[0].announces(), hosts[1].announces()];
            let mine = told.iter().position(|it| *it == Some(true));
            let other = told.iter().position(|it| *it == Some(false));
            mine.zip(other).ok_or(format!("{told:?}"))
        });
        let (mine, _) = mine.unwrap_or_else(|late| panic!("{late}\n{}", hosts[0].said()));
        hosts.rotate_left(mine);
        let [owner, other] = hosts;
        (segment, owner, other)
    }

    /// Makes Consul silent: its connections stay.
    pub(crate) fn freeze(&self) {
        self.consul.signal(Signal::SIGSTOP);
    }

    /// Ends the silence.
    pub(crate) fn thaw(&self) {
        self.consul.signal(Signal::SIGCONT);
    }

    /// What Consul answers.
    pub(crate) fn ask(&self, method: &str, path: &str) -> String {
        http(&self.hub, method, path, "").unwrap()
    }

    /// Tells Consul something.
    pub(crate) fn put(&self, path: &str, body: &Value) {
        let answer = http(&self.hub, "PUT", path, &body.to_string()).unwrap();
        assert_eq!(answer.trim(), "true", "{path}");
    }

    /// What goes over the wire at the client.
    pub(crate) fn wire(&self) -> Wire {
        Wire::open(&self.client, "eth0")
    }

    /// Where the client's kernel believes that an address is.
    pub(crate) fn neighbour(&self, address: &str) -> Option<Mac> {
        let told = self
            .client
            .ip(&format!("neigh show to {address} dev eth0\n"));
        let told = told.unwrap();
        let mut words = told.split_whitespace();
        words.find(|it| *it == "lladdr")?;
        Some(mac(words.next()?))
    }

    /// Lets the client's kernel look for an address.
    pub(crate) fn seek(&self, address: &str) {
        // Whether anybody is there is not known when this returns.
        let _ = self.client.enter(|| {
            let any: SocketAddr = match address.contains(':') {
                true => (Ipv6Addr::UNSPECIFIED, 0).into(),
                false => (Ipv4Addr::UNSPECIFIED, 0).into(),
            };
            let to = SocketAddr::new(address.parse().unwrap(), 9);
            std::net::UdpSocket::bind(any)?.send_to(b"?", to)
        });
    }

    /// Gives a host its device, which it had not, or has no more.
    pub(crate) fn plug(&self, host: &Host) {
        let port = format!("lb-host{}", host.number);
        plug(&self.hub, &host.netns, &port, 10 + host.number);
    }

    /// A router on the segment, without routes.
    pub(crate) fn router(&self) -> Netns {
        let router = Netns::new("router").unwrap();
        plug(&self.hub, &router, "lb-router", 8);
        router
    }

    /// Pulls or plugs the cable of a host.
    pub(crate) fn cable(&self, host: &Host, state: &str) {
        let port = format!("lb-host{}", host.number);
        self.hub.ip(&format!("link set {port} {state}\n")).unwrap();
    }
}

trait Signalled {
    fn signal(&self, signal: Signal);
}

impl Signalled for Process {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.id()).unwrap());
        kill(pid, signal).unwrap();
    }
}

fn plug(hub: &Netns, leaf: &Netns, port: &str, last: u8) {
    let address = format!("10.77.0.{last}/24").parse().unwrap();
    let via = Ipv4Addr::new(10, 77, 0, 1);
    hub.plug("lb-br0", port, leaf, address, via).unwrap();
    leaf.ip(&format!("addr add fd77::{last}/64 dev eth0 nodad\n"))
        .unwrap();
}

fn consul(hub: &Netns, folder: &TempDir) -> Process {
    let binary = std::env::var_os("LB_CONSUL").expect(
        "these tests need a Consul: run `cargo xtask test`, which fetches one, or set LB_CONSUL to its binary",
    );
    let config = serde_json::json!({
        "server": true, "bootstrap_expect": 1, "node_name": "hub", "bind_addr": "127.0.0.1",
        "client_addr": "10.77.0.1", "data_dir": folder.path().join("consul"),
        "disable_update_check": true, "log_level": "warn", "session_ttl_min": "1s",
        "ports": {"dns": -1, "grpc": -1},
        "performance": {"raft_multiplier": 1},
    });
    let file = folder.path().join("consul.json");
    fs::write(&file, config.to_string()).unwrap();
    let process = Spawn::new("consul", binary)
        .args(["agent", &format!("-config-file={}", file.display())])
        .netns(hub)
        .log(folder.path())
        .start()
        .unwrap();
    let up = eventually(LIMIT, || {
        let said = http(hub, "GET", "health/service/consul?passing", "").unwrap_or_default();
        said.contains("\"Node\"").then_some(()).ok_or(said)
    });
    up.unwrap_or_else(|late| panic!("Consul does not come up: {late}"));
    process
}

fn http(netns: &Netns, method: &str, path: &str, body: &str) -> Option<String> {
    netns
        .enter(|| {
            let mut stream = TcpStream::connect(CONSUL).ok()?;
            let length = body.len();
            let request = format!(
                "{method} /v1/{path} HTTP/1.0\r\nHost: consul\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            Some(answer.split_once("\r\n\r\n")?.1.to_owned())
        })
        .unwrap()
}

fn mac(text: &str) -> Mac {
    let bytes = text
        .split(':')
        .map(|it| u8::from_str_radix(it, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

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
            let mut stream = TcpStream::connect("127.0.0.1:9180").ok()?;
            let head = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
            stream.write_all(head.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            Some(answer)
        });
        let answer = answer.unwrap()?;
        let line = answer
            .lines()
            .find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
        line?.parse().ok()
    }
}

/// The twin of a VIP in the usual pools.
pub(crate) fn twin(vip: Ipv4Addr) -> Ipv6Addr {
    let host = u128::from(u32::from(vip) - 0xc612_0000);
    let pool: Ipv6Addr = "fd62:6c62:76:1::".parse().unwrap();
    Ipv6Addr::from_bits(pool.to_bits() | host)
}
