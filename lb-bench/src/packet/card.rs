//! The programs of the packet path where nothing but the bench sends packets: in a namespace with a device for each instance
//! of them, whose neighbours are known, so that every packet has somewhere to go. None leaves: what is run is a test run.

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
    Config, Desired, Fates, Figures, HAIRPIN4, HAIRPIN6, Limits, Member, Place, Programs,
    Publisher, Role, Wanted, XdpMode,
};
use lb_testkit::Netns;

use crate::world::{self, POOL, POOL6};

/// In the namespace's own mounts.
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// Two instances of the programs, each with a device, an address there from which full NAT and tunnels go out, a host where
/// tunnels lead, and backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instance {
    /// Its flows stay.
    Steady = 1,
    /// Its map of flows is full.
    Fresh = 2,
}

impl Instance {
    const BOTH: [Self; 2] = [Self::Steady, Self::Fresh];

    pub(super) fn device(self) -> &'static str {
        match self {
            Self::Steady => "lb-steady",
            Self::Fresh => "lb-fresh",
        }
    }

    fn address(self, third: u8, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 90 + self as u8, third, last)
    }

    fn address6(self, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x6c62, 0x90 + self as u16, 0, 0, 0, 0, last)
    }

    fn source(self) -> Ipv4Addr {
        self.address(0, 1)
    }

    fn source6(self) -> Ipv6Addr {
        self.address6(1)
    }

    fn host(self) -> Ipv4Addr {
        self.address(0, 2)
    }

    fn backends(self) -> impl Iterator<Item = IpAddr> {
        let v4 = (1..=BACKENDS).map(move |last| self.address(1, last).into());
        let v6 = (1..=BACKENDS).map(move |last| self.address6(0x100 + u16::from(last)).into());
        v4.chain(v6)
    }
}

/// The VIPs. The IPv6 one is the twin of the first.
pub(super) const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2)), 80);
pub(super) const TUNNEL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 3)), 80);
pub(super) const VIP6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 2)),
    80,
);
/// Neither a VIP nor this host.
pub(super) const STRANGER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 99, 7, 7)), 80);

/// So many flows have room, as in the bench's own map.
pub(super) const ROOM: u32 = 262_144;

/// The host's own VIP.
const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Of full NAT.
pub(super) const PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Behind each VIP: so many that the ports of full NAT suffice for all flows at once.
const BACKENDS: u8 = 100;

/// Devices that are down.
const IDLE: usize = 8;

/// The name of one of [`IDLE`] devices.
pub(super) fn idle(number: usize) -> String {
    format!("lb-idle{number}")
}

/// A namespace with the devices.
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
        for instance in Instance::BOTH {
            let (device, source, source6) =
                (instance.device(), instance.source(), instance.source6());
            let mut lines = format!(
                "link add {device} type veth peer name {device} netns {there}\n\
                 addr add {source}/16 dev {device}\naddr add {source6}/64 dev {device} nodad\nlink set {device} up\n"
            );
            for neighbour in instance.backends().chain([instance.host().into()]) {
                lines += &format!(
                    "neigh add {neighbour} lladdr 02:6c:62:00:00:02 dev {device} nud permanent\n"
                );
            }
            netns.ip(&lines)?;
            wire.ip(&format!("link set {device} up\n"))?;
        }
        for number in 0..IDLE {
            let (device, peer) = (idle(number), format!("lb-other{number}"));
            netns.ip(&format!("link add {device} type veth peer name {peer}\n"))?;
        }
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
    /// Loads the programs, publishes the VIPs, and attaches them to the device: without anything there, the kernel has no queue that
    /// test runs could come by.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn new(instance: Instance) -> Result<Self> {
        let device = instance.device();
        let mut programs = programs(instance, 64)?;
        Publisher::open(&mut programs)?.apply(&desired(instance))?;
        let mode = XdpMode::Native;
        programs.attach(device, Role::Card { mode })?;
        Ok(Self {
            figures: Figures::open(&mut programs)?,
            programs,
            device: nix::net::if_::if_nametoindex(device)?,
        })
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

/// The programs, with maps of their own and room for so many services. Within the namespace of a [`Card`].
///
/// # Errors
/// When the kernel refuses.
pub(super) fn programs(instance: Instance, services: u32) -> Result<Programs> {
    let programs = Programs::load(&Config {
        bpffs: Path::new(BPFFS).join(instance.device()),
        pool: POOL.parse::<Ipv4Net>()?,
        pool6: Some(Ipv6Net::new(POOL6, 64)?),
        own: OWN,
        source4: Some(instance.source()),
        source6: Some(instance.source6()),
        ports: PORTS,
        limits: Limits {
            services,
            backends: 4096,
            flows: ROOM,
        },
    })?;
    Ok(programs)
}

/// What the programs of an instance are told when another loader than their own loads them.
pub(super) fn constants(instance: Instance) -> Vec<(&'static str, u32)> {
    let raw = |address: Ipv4Addr| u32::from_ne_bytes(address.octets());
    let words = |address: Ipv6Addr| -> [u32; 4] {
        let octets = address.octets();
        std::array::from_fn(|word| {
            u32::from_ne_bytes(std::array::from_fn(|byte| octets[4 * word + byte]))
        })
    };
    let pool6 = words(POOL6);
    let [source6, hairpin6] = [instance.source6(), HAIRPIN6].map(words);
    let names6 = ["SOURCE6_0", "SOURCE6_1", "SOURCE6_2", "SOURCE6_3"];
    let names_hairpin6 = ["HAIRPIN6_0", "HAIRPIN6_1", "HAIRPIN6_2", "HAIRPIN6_3"];
    let mut all = vec![
        ("POOL_PREFIX", raw(Ipv4Addr::new(198, 18, 0, 0))),
        ("POOL_MASK", raw(Ipv4Addr::new(255, 255, 0, 0))),
        ("POOL6_HIGH0", pool6[0]),
        ("POOL6_HIGH1", pool6[1]),
        ("POOL6_HIGH2", pool6[2]),
        ("OWN_ADDRESS", raw(OWN)),
        ("SOURCE4", raw(instance.source())),
        ("HAIRPIN4", raw(HAIRPIN4)),
        ("PORT_FIRST", u32::from(*PORTS.start())),
        ("PORT_COUNT", u32::from(PORTS.end() - PORTS.start()) + 1),
    ];
    all.extend(names6.into_iter().zip(source6));
    all.extend(names_hairpin6.into_iter().zip(hairpin6));
    all
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

fn desired(instance: Instance) -> Desired {
    let host = instance.host().into();
    let members: Arc<[Member]> = instance
        .backends()
        .map(|address| Member {
            address: (address, 8080).into(),
            weight: 1,
        })
        .collect();
    let places = members.iter().map(|it| {
        let place = Place {
            host: it.address.is_ipv4().then_some(host),
            local: false,
        };
        (it.address, place)
    });
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
        places: places.collect(),
        vips: [2, 3].map(|last| Ipv4Addr::new(198, 18, 0, last)).into(),
        hosts: BTreeSet::from([host]),
        ..Desired::default()
    }
}
