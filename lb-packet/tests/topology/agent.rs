//! What an agent does for the packet path of one host: loads, attaches, publishes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use lb_common::{
    Be16, Be32,
    packet::{EndpointKey, Fate, Settings, scope},
};
use lb_packet::{
    Config, Desired, Explainer, Figures, Flows, How, Limits, Member, Programs, Publisher, Role,
    Wanted,
};
use lb_testkit::{Netns, chain};
use tempfile::TempDir;

use crate::net::{POOL, POOL6};

/// A host that balances.
pub(crate) struct Agent {
    pub(crate) programs: Programs,
    pub(crate) publisher: Publisher,
    pub(crate) flows: Flows,
    pub(crate) figures: Figures,
    pub(crate) explainer: Explainer,
    pub(crate) desired: Desired,
}

/// Where its pins are; outlives the agent.
pub(crate) struct Pins(TempDir);

impl Pins {
    pub(crate) fn new(host: &Netns) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("lb-test-")
            .tempdir()
            .unwrap();
        host.mount_bpffs(folder.path()).unwrap();
        Self(folder)
    }
}

impl Agent {
    /// Starts one on `host`. With `sources` it serves backends of other hosts.
    pub(crate) fn start(
        host: &Netns,
        pins: &Pins,
        sources: Option<(IpAddr, IpAddr)>,
        devices: &[(&str, Role)],
    ) -> Self {
        let start = || {
            let mut programs = Programs::load(&config(pins.0.path(), sources))
                .unwrap_or_else(|error| panic!("{}", chain(&error)));
            let publisher = Publisher::open(&mut programs).unwrap();
            let flows = Flows::open(&mut programs).unwrap();
            let figures = Figures::open(&mut programs).unwrap();
            let explainer = Explainer::open(&mut programs).unwrap();
            for (device, role) in devices {
                programs
                    .attach(device, *role)
                    .unwrap_or_else(|error| panic!("{}", chain(&error)));
            }
            Self {
                programs,
                publisher,
                flows,
                figures,
                explainer,
                desired: desired(),
            }
        };
        host.enter(start).unwrap()
    }

    /// Lets a VIP be served on TCP port 80, and on UDP port 53.
    pub(crate) fn serve(&mut self, number: u8, members: &[Member], tunnel: bool) {
        let members: Arc<[Member]> = members.into();
        for (proto, port) in [(6, 80), (17, 53)] {
            for scope in [0, scope::V6, scope::LOCAL, scope::V6 | scope::LOCAL] {
                let local = |it: &Member| self.desired.place(it.address).local;
                if scope & scope::LOCAL != 0 && !members.iter().any(local) {
                    continue;
                }
                let key = EndpointKey {
                    vip: Be32::from_host(Ipv4Addr::new(198, 18, 0, number).into()),
                    port: Be16::from_host(port),
                    proto,
                    scope,
                };
                let wanted = Wanted {
                    members: members.clone(),
                    tunnel,
                    trace: false,
                };
                self.desired.endpoints.insert(key, wanted);
            }
        }
        self.desired.vips.insert(Ipv4Addr::new(198, 18, 0, number));
        self.apply();
    }

    pub(crate) fn apply(&mut self) {
        let report = self.publisher.apply(&self.desired).unwrap();
        assert_eq!(report.refused, []);
    }

    /// How each program is attached.
    pub(crate) fn ways(&self) -> BTreeMap<(String, &'static str), How> {
        let attached = self.programs.attached().iter();
        let hooks = attached.flat_map(|it| {
            it.hooks
                .iter()
                .map(|hook| ((it.device.clone(), hook.program), hook.how))
        });
        hooks.collect()
    }

    /// How many packets had this fate.
    pub(crate) fn fate(&self, fate: Fate) -> u64 {
        self.figures.fates().unwrap().packets[&fate]
    }

    /// No packet was dropped.
    pub(crate) fn dropped_nothing(&self) {
        let fates = self.figures.fates().unwrap().packets;
        let dropped: Vec<_> = fates
            .iter()
            .filter(|(fate, count)| fate.drops() && **count > 0)
            .collect();
        assert_eq!(dropped, [], "nothing is dropped");
    }
}

/// Says of a test that failed what became of the packets.
impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(fates) = self.figures.fates()
        {
            let met = fates.packets.iter().filter(|(_, count)| **count > 0);
            eprintln!("fates of packets: {:?}", met.collect::<Vec<_>>());
        }
    }
}

/// A backend at port 8080.
pub(crate) fn member(ip: IpAddr) -> Member {
    Member {
        address: SocketAddr::new(ip, 8080),
        weight: 1,
    }
}

fn config(bpffs: &Path, sources: Option<(IpAddr, IpAddr)>) -> Config {
    let (source4, source6) = match sources {
        Some((IpAddr::V4(four), IpAddr::V6(six))) => (Some(four), Some(six)),
        Some(_) => panic!("one of each family"),
        None => (None, None),
    };
    Config {
        bpffs: bpffs.to_owned(),
        pool: POOL.parse().unwrap(),
        pool6: Some(POOL6.parse().unwrap()),
        own: Ipv4Addr::new(198, 18, 0, 1),
        source4,
        source6,
        ports: 20_000..=29_999,
        limits: Limits {
            services: 32,
            backends: 64,
            flows: 16_384,
        },
    }
}

fn desired() -> Desired {
    Desired {
        settings: Settings {
            udp_seconds: 30,
            ..Settings::default()
        },
        ..Desired::default()
    }
}
