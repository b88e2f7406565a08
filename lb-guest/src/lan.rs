//! Three hosts: a client and a backend, each at a device of the one that balances.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_testkit::Netns;

/// Long for what takes milliseconds elsewhere.
const LIMIT: Duration = Duration::from_secs(20);

/// The numbers of the networks of clients and of backends.
const CLIENTS: u8 = 77;
const BACKENDS: u8 = 1;

/// The devices of the host that balances.
pub(crate) const TO_CLIENT: &str = "vm0";
pub(crate) const TO_BACKEND: &str = "eth1";

/// One that the kernel's stack fills more than one packet with.
const SAID: usize = 20_000;

/// The hosts. Each is a network namespace.
pub(crate) struct Lan {
    pub(crate) host: Netns,
    client: Netns,
    backend: Netns,
}

/// The address of host `number` of a network, of the family of `like`.
fn ip(like: IpAddr, network: u8, number: u8) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(10, network, 0, number).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd10, network.into(), 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The balancing host's own address towards backends.
pub(crate) fn source(like: IpAddr) -> IpAddr {
    ip(like, BACKENDS, 1)
}

/// Where the backend listens.
pub(crate) fn backend(like: IpAddr) -> SocketAddr {
    SocketAddr::new(ip(like, BACKENDS, 10), 8080)
}

const FOUR: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const SIX: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

impl Lan {
    pub(crate) fn new() -> Result<Self> {
        let [host, client, backend] = ["host", "client", "backend"].map(Netns::new);
        let lan = Self {
            host: host?,
            client: client?,
            backend: backend?,
        };
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let file = format!("/proc/sys/net/{name}");
            lan.host
                .enter(|| std::fs::write(&file, "1"))?
                .with_context(|| format!("cannot write {file}"))?;
        }
        lan.join(&lan.client, TO_CLIENT, CLIENTS, 2)?;
        lan.join(&lan.backend, TO_BACKEND, BACKENDS, 10)?;
        Ok(lan)
    }

    /// Joins a host to a device of the one that balances, which leads it everywhere.
    fn join(&self, leaf: &Netns, device: &str, network: u8, number: u8) -> Result<()> {
        let there = leaf.path().display().to_string();
        let [near, far] = [1, number].map(|it| (ip(FOUR, network, it), ip(SIX, network, it)));
        let addresses = |device: &str, (four, six): (IpAddr, IpAddr)| {
            format!(
                "link set {device} up\naddr add {four}/24 dev {device}\naddr add {six}/64 dev {device} nodad\n"
            )
        };
        self.host.ip(&format!(
            "link add {device} type veth peer name eth0 netns {there}\n{}",
            addresses(device, near)
        ))?;
        leaf.ip(&format!(
            "{}route add default via {}\nroute add default via {}\n",
            addresses("eth0", far),
            near.0,
            near.1
        ))?;
        // XDP on a veth needs whole checksums.
        leaf.enter(|| lb_sys::ethtool::offload_checksums("eth0", false))?
            .context("cannot set up a veth")
    }

    /// Lets the client talk to the backend through `vip`, and answers whom the backend saw.
    pub(crate) fn talk(&self, vip: SocketAddr) -> Result<IpAddr> {
        let listener = self
            .backend
            .enter(|| TcpListener::bind(backend(vip.ip())))??;
        thread::scope(|scope| {
            // The client is there first, so that nobody waits for one that does not come.
            let client = self
                .client
                .enter(|| TcpStream::connect_timeout(&vip, LIMIT))?
                .with_context(|| format!("cannot connect to {vip}"))?;
            let (server, peer) = listener.accept()?;
            for stream in [&client, &server] {
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
            }
            let echo = scope.spawn(move || repeat(server));
            let said: Vec<u8> = (0..=250).cycle().take(SAID).collect();
            let mut stream = &client;
            stream.write_all(&said)?;
            stream.shutdown(Shutdown::Write)?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard)?;
            ensure!(heard == said, "{} of {SAID} bytes come back", heard.len());
            echo.join().ok().context("the backend fails")??;
            Ok(peer.ip())
        })
    }

    /// The client's address.
    pub(crate) fn client(like: IpAddr) -> IpAddr {
        ip(like, CLIENTS, 2)
    }
}

/// Says what it hears.
fn repeat(mut stream: TcpStream) -> Result<()> {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard)?;
    Ok(stream.write_all(&heard)?)
}
