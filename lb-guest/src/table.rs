//! The agent's loader and its maps, filled with what a check needs.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use lb_agent::{
    desired::{Desired, Endpoint, Share},
    installed::Installed,
    maps::Maps,
    plan::plan,
    programs::{Config, Error, Programs},
    snapshot::ServiceName,
};
use lb_common::{ANY_PORT, Balance, Be32, HOST_VIEW, ServiceKey};

/// Where its pins are.
pub(crate) const BPFFS: &str = "/run/lb-guest";

/// The pool of VIPs, as the agent has it where nobody says otherwise.
pub(crate) const POOL: ipnet::Ipv4Net = net4(Ipv4Addr::new(198, 18, 0, 0), 16);

/// Its twin.
pub(crate) const POOL6: ipnet::Ipv6Net =
    net6(Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 0), 64);

/// The agent's own addresses in them.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub(crate) const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 1);

const fn net4(address: Ipv4Addr, bits: u8) -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::new_assert(address, bits)
}

const fn net6(address: Ipv6Addr, bits: u8) -> ipnet::Ipv6Net {
    ipnet::Ipv6Net::new_assert(address, bits)
}

/// An address of the pool and its twin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vip {
    pub(crate) four: Ipv4Addr,
    pub(crate) six: Ipv6Addr,
}

impl Vip {
    /// With these last two bytes.
    pub(crate) const fn new(high: u8, low: u8) -> Self {
        let last = u16::from_be_bytes([high, low]);
        Self {
            four: Ipv4Addr::new(198, 18, high, low),
            six: Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, last),
        }
    }

    /// The key of its endpoint for every port.
    pub(crate) fn key(self, proto: u8) -> ServiceKey {
        ServiceKey::new(
            Be32::from_host(self.four.into()),
            ANY_PORT,
            proto,
            HOST_VIEW,
        )
    }
}

/// The loaded programs and their maps.
pub(crate) struct Table {
    pub(crate) programs: Programs,
    maps: Maps,
    installed: Installed,
    desired: Desired,
}

impl Table {
    /// The programs, loaded for the clients in `cgroup`.
    pub(crate) fn load(cgroup: &Path) -> Result<Programs, Error> {
        Programs::load(&Config {
            bpffs: BPFFS.into(),
            cgroup: cgroup.to_owned(),
            pool: POOL,
            pool6: Some(POOL6),
            own: OWN,
            services: 64,
            backends: 64,
        })
    }

    /// Attaches them all.
    pub(crate) fn attach(mut programs: Programs) -> Result<Self> {
        let (maps, _, _) = Maps::open(&mut programs)?;
        programs.attach()?;
        programs.serve_datagrams(true)?;
        for (hook, attached) in programs.attached() {
            ensure!(attached, "{hook} is not attached");
        }
        let installed = maps.read_back()?;
        Ok(Self {
            programs,
            maps,
            installed,
            desired: Desired {
                complete: true,
                ..Desired::default()
            },
        })
    }

    /// Makes the maps hold these backends for `key`.
    pub(crate) fn put(
        &mut self,
        key: ServiceKey,
        flags: u32,
        backends: &[SocketAddr],
    ) -> Result<()> {
        let endpoint = Endpoint {
            name: ServiceName::whole("tested"),
            balance: Balance::LeastConn,
            affinity_seconds: 0,
            flags,
            proven: true,
            named: backends.into(),
            slots: backends.to_vec(),
        };
        self.desired.services.insert(key, endpoint);
        let share = |&address: &SocketAddr| {
            let share = Share {
                weight: 1,
                counted_at: address,
            };
            (address, share)
        };
        let endpoints = self.desired.services.values();
        self.desired.backends = endpoints
            .flat_map(|it| &it.slots)
            .map(share)
            .collect::<BTreeMap<_, _>>();
        let active = |index| self.maps.active(index).unwrap_or_default();
        let (steps, problems) = plan(&self.installed, &self.desired, active, Instant::now());
        ensure!(
            problems.is_empty(),
            "the maps do not hold that: {problems:?}"
        );
        for step in &steps {
            self.maps.carry_out(step, &mut self.installed)?;
        }
        Ok(())
    }

    /// How many flows are open to this backend.
    pub(crate) fn active(&self, backend: SocketAddr) -> Result<u64> {
        let backends = &self.installed.backends;
        let known = backends.get(&backend).context("the backend is not known")?;
        Ok(self.maps.active(known.counted_at.index)?)
    }
}
