//! The segment, its Consul and its client.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
};

use lb_testkit::{Netns, Process, Spawn, eventually, http};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{CONSUL, Host, LIMIT, Signalled as _, mac};
use crate::wire::{Mac, Wire};

/// The segment. Processes go before what they live in.
pub(crate) struct Segment {
    consul: Process,
    hub: Netns,
    pub(crate) client: Netns,
    _folder: TempDir,
}

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
        ask(&self.hub, method, path, "").unwrap()
    }

    /// Tells Consul something.
    pub(crate) fn put(&self, path: &str, body: &Value) {
        let answer = ask(&self.hub, "PUT", path, &body.to_string()).unwrap();
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
        let said = ask(hub, "GET", "health/service/consul?passing", "").unwrap_or_default();
        said.contains("\"Node\"").then_some(()).ok_or(said)
    });
    up.unwrap_or_else(|late| panic!("Consul does not come up: {late}"));
    process
}

fn ask(netns: &Netns, method: &str, path: &str, body: &str) -> io::Result<String> {
    let exchange = || {
        let stream = TcpStream::connect(CONSUL)?;
        http::ask(stream, method, &format!("/v1/{path}"), body)?.text()
    };
    netns.enter(exchange).unwrap()
}
