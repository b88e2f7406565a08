//! Configurations, wishes, and maps with entries that a test writes as the programs would.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use aya::maps::{HashMap, MapData};
use lb_common::{
    Be16, Be32,
    packet::{
        EndpointKey, Flow, FlowKey4, FlowKey6, Hop, Reply, ReplyKey4, ReplyKey6, Settings, Way,
        packet_map as map, seen,
    },
};
use lb_packet::{
    Collected, Config, Desired, Explainer, Flows, Limits, Member, Programs, Publisher, Wanted,
};
use lb_testkit::Netns;

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
pub(crate) const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const CLIENT6: &str = "2001:db8::7";
pub(crate) const BACKEND6: &str = "2001:db8:1::a";

pub(crate) fn config(bpffs: &Path, flows: u32) -> Config {
    Config {
        bpffs: bpffs.to_owned(),
        pool: "198.18.0.0/16".parse().unwrap(),
        pool6: Some("fd00:c612::/112".parse().unwrap()),
        own: Ipv4Addr::new(198, 18, 0, 1),
        source4: Some(OWN),
        source6: Some("2001:db8::1".parse().unwrap()),
        ports: 20_000..=29_999,
        limits: Limits {
            services: 8,
            backends: 32,
            flows,
        },
    }
}

/// Runs `job` with a bpffs that nobody else has.
pub(crate) fn with_pins<T: Send>(job: impl FnOnce(&Path) -> T + Send) -> T {
    let netns = Netns::new("maps").unwrap();
    let folder = tempfile::Builder::new()
        .prefix("lb-test-")
        .tempdir()
        .unwrap();
    netns.mount_bpffs(folder.path()).unwrap();
    netns.enter(|| job(folder.path())).unwrap()
}

pub(crate) fn key(scope: u8) -> EndpointKey {
    EndpointKey {
        vip: Be32::from_host(VIP.into()),
        port: Be16::from_host(80),
        proto: 6,
        scope,
    }
}

pub(crate) fn desired(backends: &[IpAddr]) -> Desired {
    let members: Arc<[Member]> = backends
        .iter()
        .map(|&ip| Member {
            address: SocketAddr::new(ip, 8080),
            weight: 1,
        })
        .collect();
    let wanted = Wanted {
        members,
        tunnel: false,
        trace: false,
    };
    Desired {
        endpoints: [0, 1].map(|scope| (key(scope), wanted.clone())).into(),
        vips: BTreeSet::from([VIP]),
        settings: Settings {
            udp_seconds: 30,
            ..Settings::default()
        },
        ..Desired::default()
    }
}

pub(crate) fn both() -> Desired {
    desired(&[BACKEND.into(), BACKEND6.parse().unwrap()])
}

pub(crate) fn now() -> u32 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC_COARSE;
    u32::try_from(clock.now().unwrap().tv_sec()).unwrap()
}

/// Maps with entries that a test writes as the programs would.
pub(crate) struct World {
    pub(crate) publisher: Publisher,
    pub(crate) flows: Flows,
    pub(crate) flows4: HashMap<MapData, FlowKey4, Flow>,
    pub(crate) flows6: HashMap<MapData, FlowKey6, Flow>,
    pub(crate) replies4: HashMap<MapData, ReplyKey4, Reply>,
    pub(crate) replies6: HashMap<MapData, ReplyKey6, Reply>,
    pub(crate) explainer: Explainer,
}

pub(crate) fn world<T: Send>(room: u32, job: impl FnOnce(&mut World) -> T + Send) -> T {
    with_pins(|pins| {
        let mut programs = Programs::load(&config(pins, room)).unwrap();
        let mut publisher = Publisher::open(&mut programs).unwrap();
        publisher.apply(&both()).unwrap();
        let (flows, explainer) = (
            Flows::open(&mut programs).unwrap(),
            Explainer::open(&mut programs).unwrap(),
        );
        let ebpf = programs.ebpf();
        let mut world = World {
            publisher,
            flows,
            explainer,
            flows4: ebpf.take_map(map::FLOWS4).unwrap().try_into().unwrap(),
            flows6: ebpf.take_map(map::FLOWS6).unwrap().try_into().unwrap(),
            replies4: ebpf.take_map(map::REPLIES4).unwrap().try_into().unwrap(),
            replies6: ebpf.take_map(map::REPLIES6).unwrap().try_into().unwrap(),
        };
        job(&mut world)
    })
}

/// What both sides of a flow have shown, and how long ago.
#[derive(Clone, Copy)]
pub(crate) struct State {
    pub(crate) client: Option<(u8, u32)>,
    pub(crate) backend: Option<(u8, u32)>,
}

pub(crate) const UP: u8 = seen::SYN | seen::ACK;

impl World {
    /// An IPv4 flow of the client `client`.
    pub(crate) fn add(&mut self, client: u32, state: State) {
        let address = Ipv4Addr::from(0x0a4d_0000 + (client >> 12));
        let client_port = Be16::from_host(u16::try_from(1 + (client & 0xfff)).unwrap());
        let local_port = Be16::from_host(20_000 + u16::try_from(client & 0xfff).unwrap());
        // Full NAT by many sources: one has not so many ports.
        let local = Ipv4Addr::from(u32::from(OWN) + (client >> 12));
        self.add_as(address, client_port, local, local_port, Way::Full, state);
    }

    pub(crate) fn add_as(
        &mut self,
        client: Ipv4Addr,
        client_port: Be16,
        local: Ipv4Addr,
        local_port: Be16,
        way: Way,
        state: State,
    ) {
        let (_, index, target) = self
            .publisher
            .targets()
            .find(|it| it.0.ip() == IpAddr::V4(BACKEND))
            .unwrap();
        let raw = |ip: Ipv4Addr| Be32::from_host(ip.into());
        let (vip, vip_port) = (raw(VIP), Be16::from_host(80));
        if let Some((seen, ago)) = state.client {
            let flow = Flow {
                backend: index,
                generation: target.generation,
                service: 1,
                last_seconds: now() - ago,
                local_port,
                way: way as u8,
                seen,
                start_seconds: now() - ago - 5,
            };
            let key = FlowKey4::new(raw(client), client_port, vip, vip_port, 6);
            self.flows4.insert(key, flow, 0).unwrap();
        }
        if let Some((seen, ago)) = state.backend {
            let reply = Reply {
                client: [0, 0, 0xffff_u32.to_be(), u32::from(client).to_be()],
                vip,
                vip_port,
                client_port,
                backend: index,
                generation: target.generation,
                service: 1,
                last_seconds: now() - ago,
                way: way as u8,
                seen,
                // As the programs write it when they answer a client.
                hop: Hop {
                    until_seconds: now() + 1,
                    device: 3,
                    ..Hop::default()
                },
                ..Reply::default()
            };
            let key = ReplyKey4::new(
                raw(BACKEND),
                Be16::from_host(8080),
                raw(local),
                local_port,
                6,
            );
            self.replies4.insert(key, reply, 0).unwrap();
        }
    }

    pub(crate) fn collect(&mut self) -> Collected {
        self.flows
            .collect(&self.publisher, &Collected::default())
            .unwrap()
    }
}

pub(crate) fn state(client: Option<(u8, u32)>, backend: Option<(u8, u32)>) -> State {
    State { client, backend }
}
