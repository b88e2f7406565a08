//! Clients, servers, and what stands between them: namespaces that hosts would be.
//!
//! Every way from a client to the servers has one host between, which routes, and a client of its own. What balances is at
//! work on its own way only: the programs at one client's device or at one host's cards, and connection tracking in the
//! host with the rule.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::programs::{Xdp, XdpMode as AyaMode};
use ipnet::{Ipv4Net, Ipv6Net};
use lb_packet::{
    Collected, Config, Desired, Flows, Limits, Member, Programs, Publisher, Role, Wanted, XdpMode,
};
use lb_testkit::{Cgroup, Netns, Process, Spawn, eventually};

use super::card;
use crate::{
    rivals,
    server::{Kind, Network, Place, backends},
    world::{self, POOL, POOL6},
};

/// From a client to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// To their own addresses, routed.
    Direct,
    /// The same once more.
    Again,
    /// To a VIP that programs of tc at the client's device replace.
    Tcx,
    /// To a VIP that the program of XDP at the cards replaces, and the client with it.
    Xdp,
    /// To an address that a rule of nftables replaces.
    Nft,
}

impl Way {
    pub(super) const ALL: [Self; 5] = [Self::Direct, Self::Again, Self::Tcx, Self::Xdp, Self::Nft];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Again => "direct again",
            Self::Tcx => "tcx",
            Self::Xdp => "XDP",
            Self::Nft => "nftables",
        }
    }

    /// Which host it leads through.
    fn host(self) -> u8 {
        match self {
            Self::Direct | Self::Again | Self::Tcx => 0,
            Self::Xdp => 1,
            Self::Nft => 2,
        }
    }

    /// The host's device towards its client.
    fn device(self) -> &'static str {
        match self {
            Self::Direct => "lb-direct",
            Self::Again => "lb-again",
            Self::Tcx => "lb-tcx",
            Self::Xdp => "lb-xdp",
            Self::Nft => "lb-nft",
        }
    }

    /// The first three bytes of the network between client and host.
    fn network(self) -> [u8; 3] {
        [10, 81, self as u8]
    }

    /// Whom a client of this kind turns to, in turn.
    pub(super) fn targets(self, kind: Kind) -> Vec<SocketAddr> {
        let servers = backends(Network::Bridge, kind, Place::Bare);
        match self {
            Self::Direct | Self::Again => servers.to_vec(),
            Self::Tcx | Self::Xdp => vec![vip(kind)],
            // The port is that of the servers: the rule has nothing to rewrite but the address.
            Self::Nft => vec![(TRANSLATED, servers[0].port()).into()],
        }
    }
}

/// How many hosts there are between.
const HOSTS: usize = 3;

/// A host's device towards the servers.
const TO_SERVERS: &str = "lb-servers";

/// The address that the rule replaces. No device has it.
const TRANSLATED: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);

/// How long the servers may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What clients of TCP do.
pub(super) const KINDS: [Kind; 3] = [Kind::Short, Kind::Echo, Kind::Sink];

/// All of it. It ends with this value.
pub(super) struct Lines {
    clients: Vec<Netns>,
    /// Who balances, in what host, which must not go before.
    balancers: [Balancer; 2],
    _hosts: [Netns; HOSTS],
    _servers: (Process, Netns, Cgroup),
}

impl Lines {
    /// Makes it, with nftables from `packages`, and waits until every way leads to servers.
    ///
    /// # Errors
    /// When a part cannot be made, or leads nowhere.
    pub(super) fn new(packages: &Path) -> Result<Self> {
        let servers = Netns::new("bench-servers")?;
        for address in addresses() {
            servers.ip(&format!("addr add {address}/32 dev lo\n"))?;
        }
        world::limit_closed(&servers)?;
        let hosts = [
            Netns::new("bench-host")?,
            Netns::new("bench-cards")?,
            Netns::new("bench-rule")?,
        ];
        for (number, host) in (0..).zip(&hosts) {
            connect_servers(host, &servers, number)?;
        }
        let clients = Way::ALL.map(|way| {
            let client = Netns::new("bench-client")?;
            connect_client(&hosts[usize::from(way.host())], &client, &servers, way)?;
            Ok::<_, anyhow::Error>(client)
        });
        let clients = clients.into_iter().collect::<Result<Vec<_>>>()?;
        let group = Cgroup::new("bench")?;
        let own = std::env::current_exe().context("cannot find this program")?;
        let process = Spawn::new("server", &own)
            .args(["serve", Network::Bridge.name()])
            .arg(group.path())
            .netns(&servers)
            .cgroup(&group)
            .start()?;
        let tcx = Balancer::for_client(&hosts[usize::from(Way::Tcx.host())])?;
        let xdp = Balancer::at_cards(
            &hosts[usize::from(Way::Xdp.host())],
            [&clients[Way::Xdp as usize], &servers],
        )?;
        translate(packages, &hosts[usize::from(Way::Nft.host())])?;
        let mut lines = Self {
            clients,
            balancers: [tcx, xdp],
            _hosts: hosts,
            _servers: (process, servers, group),
        };
        for way in Way::ALL {
            lines.as_client(way, || {
                for kind in KINDS {
                    for target in way.targets(kind) {
                        eventually(PATIENCE, || world::answers(kind, target))
                            .with_context(|| format!("{way:?} leads nowhere at {target}"))?;
                    }
                }
                Ok(())
            })?;
        }
        lines.collect()?;
        Ok(lines)
    }

    /// Forgets flows that are over, as an agent does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn collect(&mut self) -> Result<()> {
        for balancer in &mut self.balancers {
            balancer.last = balancer
                .flows
                .collect(&balancer.publisher, &balancer.last)?;
        }
        Ok(())
    }

    /// Runs `job` where the client of this way is.
    ///
    /// # Errors
    /// When `job` fails, or its namespace cannot be entered.
    pub(super) fn as_client<T: Send>(
        &self,
        way: Way,
        job: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        self.clients[way as usize].enter(job)?
    }
}

/// The VIP in front of the servers of this kind.
fn vip(kind: Kind) -> SocketAddr {
    (Ipv4Addr::new(198, 18, 0, 2 + kind as u8), 80).into()
}

fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    Place::BOTH.into_iter().flat_map(|place| {
        let servers = backends(Network::Bridge, Kind::Short, place);
        servers.into_iter().filter_map(|server| match server {
            SocketAddr::V4(server) => Some(*server.ip()),
            SocketAddr::V6(_) => None,
        })
    })
}

/// The network between host number `number` and the servers: its address and theirs.
fn between(number: u8) -> (Ipv4Addr, Ipv4Addr) {
    let address = |last| Ipv4Addr::new(10, 82, number, last);
    (address(1), address(2))
}

fn connect_servers(host: &Netns, servers: &Netns, number: u8) -> Result<()> {
    let there = servers.path().display().to_string();
    let (own, gateway) = between(number);
    host.ip(&format!(
        "link add {TO_SERVERS} type veth peer name eth{number} netns {there}\n\
         addr add {own}/24 dev {TO_SERVERS}\nlink set {TO_SERVERS} up\n\
         route add unreachable {POOL}\n"
    ))?;
    servers.ip(&format!(
        "addr add {gateway}/24 dev eth{number}\nlink set eth{number} up\n"
    ))?;
    for address in addresses() {
        host.ip(&format!("route add {address}/32 via {gateway}\n"))?;
    }
    world::set(host, "ipv4/ip_forward", "1")?;
    world::limit_closed(host)
}

fn connect_client(host: &Netns, client: &Netns, servers: &Netns, way: Way) -> Result<()> {
    let there = client.path().display().to_string();
    let ([first, second, third], device) = (way.network(), way.device());
    let network = format!("{first}.{second}.{third}");
    host.ip(&format!(
        "link add {device} type veth peer name eth0 netns {there}\n\
         addr add {network}.1/24 dev {device}\nlink set {device} up\n"
    ))?;
    client.ip(&format!(
        "addr add {network}.2/24 dev eth0\nlink set eth0 up\nroute add default via {network}.1\n"
    ))?;
    let (gateway, _) = between(way.host());
    servers.ip(&format!("route add {network}.0/24 via {gateway}\n"))?;
    world::limit_closed(client)
}

fn desired() -> Desired {
    let endpoints = KINDS.map(|kind| {
        let members: Arc<[Member]> = backends(Network::Bridge, kind, Place::Bare)
            .map(|address| Member { address, weight: 1 })
            .into();
        let wanted = Wanted {
            members,
            tunnel: false,
            trace: false,
        };
        (card::key(vip(kind)), wanted)
    });
    let vips = KINDS.map(|kind| Ipv4Addr::new(198, 18, 0, 2 + kind as u8));
    Desired {
        endpoints: BTreeMap::from(endpoints),
        vips: vips.into(),
        ..Desired::default()
    }
}

/// The programs, with what they should know, and who takes care of them.
struct Balancer {
    programs: Programs,
    publisher: Publisher,
    flows: Flows,
    last: Collected,
}

impl Balancer {
    /// To be made in the namespace of the host that the programs run at.
    fn new(source4: Option<Ipv4Addr>) -> Result<Self> {
        let mut programs = Programs::load(&Config {
            bpffs: card::BPFFS.into(),
            pool: POOL.parse::<Ipv4Net>()?,
            pool6: Some(Ipv6Net::new(POOL6, 64)?),
            own: Ipv4Addr::new(198, 18, 0, 1),
            source4,
            source6: None,
            ports: card::PORTS,
            limits: Limits {
                services: 64,
                backends: 64,
                flows: card::ROOM,
            },
        })?;
        let mut publisher = Publisher::open(&mut programs)?;
        publisher.apply(&desired())?;
        Ok(Self {
            publisher,
            flows: Flows::open(&mut programs)?,
            last: Collected::default(),
            programs,
        })
    }

    /// At the device of a client.
    fn for_client(host: &Netns) -> Result<Self> {
        host.mount_bpffs(Path::new(card::BPFFS))?;
        host.enter(|| {
            let mut balancer = Self::new(None)?;
            let device = Way::Tcx.device();
            balancer.programs.attach(device, Role::Client)?;
            Ok(balancer)
        })?
    }

    /// At both cards of `host`. At the other ends, in `ends`, stands a program that passes everything: without one, a veth takes
    /// no frame of XDP. What comes from there has its checksums, as what comes from a cable.
    fn at_cards(host: &Netns, ends: [&Netns; 2]) -> Result<Self> {
        host.mount_bpffs(Path::new(card::BPFFS))?;
        let (source, _) = between(Way::Xdp.host());
        let mut balancer = host.enter(|| {
            let mut balancer = Self::new(Some(source))?;
            for device in [Way::Xdp.device(), TO_SERVERS] {
                let mode = XdpMode::Native;
                balancer.programs.attach(device, Role::Card { mode })?;
            }
            balancer.pass()?.load()?;
            anyhow::Ok(balancer)
        })??;
        let to_servers = format!("eth{}", Way::Xdp.host());
        for (end, device) in ends.into_iter().zip(["eth0", &to_servers]) {
            let pass = balancer.pass()?;
            end.enter(|| {
                lb_sys::ethtool::offload_checksums(device, false)
                    .with_context(|| format!("cannot let {device} send whole checksums"))?;
                pass.attach(device, AyaMode::Driver)?;
                anyhow::Ok(())
            })??;
        }
        Ok(balancer)
    }

    /// The program that passes everything, for the other end of a veth.
    fn pass(&mut self) -> Result<&mut Xdp> {
        let program = self.programs.ebpf().program_mut("xdp_pass");
        Ok(program
            .context("there is no program xdp_pass")?
            .try_into()?)
    }
}

/// A rule that takes turns, in the host that routes.
fn translate(packages: &Path, host: &Netns) -> Result<()> {
    let [first, second] = backends(Network::Bridge, Kind::Short, Place::Bare).map(|it| it.ip());
    let rules = format!(
        "table ip bench {{\n chain to_servers {{\n  type nat hook prerouting priority -100;\n  \
         ip daddr {TRANSLATED} dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}\n }}\n}}\n"
    );
    let folder = tempfile::Builder::new().prefix("lb-bench-").tempdir()?;
    let file = folder.path().join("nft.rules");
    fs::write(&file, rules)?;
    Spawn::new("nft", packages.join("nftables/usr/sbin/nft"))
        .arg("-f")
        .arg(&file)
        .env("LD_LIBRARY_PATH", rivals::libraries(packages))
        .netns(host)
        .output()
        .context("the rule of nftables does not come into being")?;
    // The table of tracked connections is one for the machine: closed ones must not fill it.
    for timeout in ["time_wait", "close"] {
        let name = format!("netfilter/nf_conntrack_tcp_timeout_{timeout}");
        world::set(host, &name, "1")?;
    }
    Ok(())
}
