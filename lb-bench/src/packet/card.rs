//! The programs of the packet path where nothing but the bench sends packets: in a namespace with one device, whose
//! neighbours are known, so that every packet has somewhere to go. None of them leaves: what is run is a test run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::HashMap,
    programs::{ProgramFd, Xdp},
};
use ipnet::{Ipv4Net, Ipv6Net};
use lb_common::{
    Be16, Be32, PROTO_TCP,
    packet::{EndpointKey, Fate, Reply, ReplyKey4, packet_map, scope},
};
use lb_packet::{
    Config, Desired, Fates, Figures, Limits, Member, Programs, Publisher, Role, Wanted, XdpMode,
};
use lb_testkit::Netns;

use crate::world::{self, POOL, POOL6};

/// In the namespace's own mounts.
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// The one device, and its other end.
const DEVICE: &str = "lb-card";

/// Its address, from which full NAT and tunnels go out.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 1);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x6c62, 0x91, 0, 0, 0, 0, 1);

/// Where tunnels lead.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 2);

/// The VIPs. The IPv6 one is the twin of the first.
pub(super) const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2)), 80);
pub(super) const TUNNEL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 3)), 80);
pub(super) const VIP6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 2)),
    80,
);
/// Neither a VIP nor this host.
pub(super) const STRANGER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 91, 7, 7)), 80);

/// So many flows have room, as in the bench's own map.
pub(super) const ROOM: u32 = 262_144;

/// Of full NAT.
pub(super) const PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Behind each VIP: so many that the ports of full NAT suffice for all flows at once.
const BACKENDS: u8 = 100;

/// A namespace with the device.
pub(super) struct Card {
    netns: Netns,
    _wire: Netns,
}

impl Card {
    /// Makes it.
    ///
    /// # Errors
    /// When the caller is not root, or the kernel refuses.
    pub(super) fn new() -> Result<Self> {
        let (netns, wire) = (Netns::new("bench-card")?, Netns::new("bench-wire")?);
        netns.mount_bpffs(Path::new(BPFFS))?;
        let there = wire.path().display().to_string();
        let mut lines = format!(
            "link add {DEVICE} type veth peer name eth0 netns {there}\n\
             addr add {SOURCE}/16 dev {DEVICE}\naddr add {SOURCE6}/64 dev {DEVICE} nodad\nlink set {DEVICE} up\n"
        );
        let hosts = backends().chain(backends6()).chain([HOST.into()]);
        for host in hosts {
            lines +=
                &format!("neigh add {host} lladdr 02:6c:62:91:00:02 dev {DEVICE} nud permanent\n");
        }
        netns.ip(&lines)?;
        wire.ip("link set eth0 up\n")?;
        world::set(&netns, "ipv4/ip_forward", "1")?;
        world::set(&netns, "ipv6/conf/all/forwarding", "1")?;
        Ok(Self { netns, _wire: wire })
    }

    /// Runs `job` in there.
    ///
    /// # Errors
    /// When `job` fails, or the namespace cannot be entered.
    pub(super) fn enter<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.netns.enter(job)?
    }
}

/// One instance of the programs, with maps of its own. Within the namespace of a [`Card`].
pub(super) struct Balancer {
    figures: Figures,
    programs: Programs,
    /// The index of the device.
    pub(super) device: u32,
}

impl Balancer {
    /// Loads the programs and publishes the VIPs. `name` is for its pins.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn new(name: &str) -> Result<Self> {
        let mut programs = programs(name, 64)?;
        Publisher::open(&mut programs)?.apply(&desired())?;
        Ok(Self {
            figures: Figures::open(&mut programs)?,
            programs,
            device: nix::net::if_::if_nametoindex(DEVICE)?,
        })
    }

    /// Attaches it to the device. Without anything there, the kernel has no queue that test runs could come by.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn attach(&mut self) -> Result<()> {
        let mode = XdpMode::Native;
        self.programs.attach(DEVICE, Role::Card { mode })?;
        Ok(())
    }

    /// The program that packets are fed to.
    ///
    /// # Errors
    /// When the object has none.
    pub(super) fn eater(&mut self) -> Result<&ProgramFd> {
        Ok(self.xdp()?.fd()?)
    }

    /// The same, to be run by itself.
    ///
    /// # Errors
    /// When the object has none.
    pub(super) fn xdp(&mut self) -> Result<&Xdp> {
        let program = self.programs.ebpf().program("xdp_card");
        Ok(program
            .context("there is no program xdp_card")?
            .try_into()?)
    }

    /// What became of packets until now.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub(super) fn fates(&self) -> Result<Fates> {
        Ok(self.figures.fates()?)
    }

    /// Forgets to whom the answers of flows go, but not the flows: nobody else takes them out of this map, and the other
    /// one makes room by itself.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn forget_replies(&mut self) -> Result<()> {
        let map = self.programs.ebpf().map_mut(packet_map::REPLIES4);
        let map = map.context("there is no map of replies")?;
        let mut map: HashMap<_, ReplyKey4, Reply> = map.try_into()?;
        let keys: Vec<_> = map.keys().collect::<Result<_, _>>()?;
        for key in keys {
            map.remove(&key)?;
        }
        Ok(())
    }
}

/// The programs, with maps of their own and room for so many services. `name` is for their pins. Within the namespace of a
/// [`Card`].
///
/// # Errors
/// When the kernel refuses.
pub(super) fn programs(name: &str, services: u32) -> Result<Programs> {
    let programs = Programs::load(&Config {
        bpffs: Path::new(BPFFS).join(name),
        pool: POOL.parse::<Ipv4Net>()?,
        pool6: Some(Ipv6Net::new(POOL6, 64)?),
        own: Ipv4Addr::new(198, 18, 0, 1),
        source4: Some(SOURCE),
        source6: Some(SOURCE6),
        ports: PORTS,
        limits: Limits {
            services,
            backends: 4096,
            flows: ROOM,
        },
    })?;
    Ok(programs)
}

/// Makes sure that since `before` so many packets had this fate and none another one.
///
/// # Errors
/// When that is not so.
pub(super) fn ensure_fate(
    before: &Fates,
    after: &Fates,
    fate: Option<Fate>,
    packets: u32,
) -> Result<()> {
    for (each, count) in &after.packets {
        let counted = count - before.packets.get(each).unwrap_or(&0);
        let wanted = match fate {
            Some(fate) if fate == *each => u64::from(packets),
            _ => 0,
        };
        ensure!(
            counted == wanted,
            "{counted} of {packets} packets were counted as {each:?}, and {wanted} should be"
        );
    }
    Ok(())
}

fn backends() -> impl Iterator<Item = IpAddr> {
    (1..=BACKENDS).map(|last| Ipv4Addr::new(10, 91, 1, last).into())
}

fn backends6() -> impl Iterator<Item = IpAddr> {
    (1..=BACKENDS).map(|last| Ipv6Addr::new(0xfd00, 0x6c62, 0x91, 0, 0, 0, 1, last.into()).into())
}

/// The key of a VIP's packets that come by the card. A twin stands at the VIP whose twin it is.
pub(super) fn key(vip: SocketAddr) -> EndpointKey {
    let (address, scope) = match vip.ip() {
        IpAddr::V4(address) => (address, 0),
        IpAddr::V6(twin) => {
            let [high, low] = twin.segments()[7].to_be_bytes();
            (Ipv4Addr::new(198, 18, high, low), scope::V6)
        }
    };
    EndpointKey {
        vip: Be32::from_host(address.into()),
        port: Be16::from_host(vip.port()),
        proto: PROTO_TCP,
        scope,
    }
}

fn desired() -> Desired {
    let members: Arc<[Member]> = backends()
        .chain(backends6())
        .map(|address| Member {
            address: (address, 8080).into(),
            host: address.is_ipv4().then_some(HOST.into()),
            local: false,
            weight: 1,
        })
        .collect();
    let endpoints = [(VIP, false), (VIP6, false), (TUNNEL, true)].map(|(vip, tunnel)| {
        let wanted = Wanted {
            members: members.clone(),
            tunnel,
            trace: false,
        };
        (key(vip), wanted)
    });
    Desired {
        endpoints: BTreeMap::from(endpoints),
        vips: BTreeMap::from([2, 3].map(|last| (Ipv4Addr::new(198, 18, 0, last), false))),
        hosts: BTreeSet::from([HOST.into()]),
        ..Desired::default()
    }
}
