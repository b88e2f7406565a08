//! A second set of programs, inside of the first one.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use lb_agent::{
    desired::{Desired, Endpoint, Share},
    installed::Installed,
    maps::Maps,
    plan::plan,
    programs::{Config, Programs},
};
use lb_common::ServiceKey;
use lb_testkit::Cgroup;

use super::{World, load};

/// A second set of programs with a pool of its own, attached to a child of the world's cgroup.
pub(crate) struct Nested {
    pub(crate) maps: Maps,
    pub(crate) installed: Installed,
    _programs: Programs,
    _folder: tempfile::TempDir,
}

impl Nested {
    pub(crate) fn new(world: &World, cgroup: &Cgroup, pool: &str) -> Self {
        let route = format!("route add unreachable {pool}\n");
        world.netns.ip(&route).unwrap();
        let folder = tempfile::Builder::new()
            .prefix("lb-test-")
            .tempdir()
            .unwrap();
        world.netns.mount_bpffs(folder.path()).unwrap();
        let pool: ipnet::Ipv4Net = pool.parse().unwrap();
        let config = Config {
            bpffs: folder.path().to_owned(),
            cgroup: cgroup.path().to_owned(),
            pool,
            pool6: None,
            own: Ipv4Addr::from(u32::from(pool.network()) + 1),
            ..world.config.clone()
        };
        let (programs, maps, _, _, installed) = load(&world.netns, &config);
        Self {
            maps,
            installed,
            _programs: programs,
            _folder: folder,
        }
    }

    /// Makes its maps hold this endpoint alone.
    pub(crate) fn put(&mut self, key: ServiceKey, endpoint: Endpoint) {
        let share = |&address: &SocketAddr| {
            let share = Share {
                weight: 1,
                counted_at: address,
            };
            (address, share)
        };
        let desired = Desired {
            backends: endpoint.slots.iter().map(share).collect(),
            services: BTreeMap::from([(key, endpoint)]),
            complete: true,
            ..Desired::default()
        };
        let (steps, problems) = plan(&self.installed, &desired, |_| 0, Instant::now());
        assert_eq!(problems, vec![]);
        for step in &steps {
            self.maps.carry_out(step, &mut self.installed).unwrap();
        }
    }
}
