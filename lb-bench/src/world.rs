//! Two namespaces on a bridge and two cgroups, one hooked and one bare, with servers in all of them, and VIPs for
//! them.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use lb_agent::{
    desired::{Desired, Endpoint, Share},
    maps::Maps,
    plan::plan,
    programs::{Config, Programs},
    snapshot::ServiceName,
};
use lb_common::{ANY_PORT, Balance, Be32, HOST_VIEW, PROTO_TCP, ServiceKey};
use lb_testkit::{Cgroup, Netns, Spawn, eventually};

use crate::server::{Kind, Network, Place, backends};

/// In the namespace's own mounts: a bpf file system of ours covers the machine's.
const BPFFS: &str = "/sys/fs/bpf";

const POOL: &str = "198.18.0.0/16";
const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// How long the servers may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the bench's sockets live.
pub(crate) struct World {
    membership: Membership,
    hooked: PathBuf,
    bare: PathBuf,
}

impl World {
    /// Makes a world, runs `job` in it and takes it away.
    ///
    /// # Errors
    /// When a part cannot be made, or `job` fails.
    pub(crate) fn inside<T: Send>(job: impl FnOnce(Self) -> Result<T> + Send) -> Result<T> {
        let [client, host, container] = [(); 3].map(|()| Netns::new("bench"));
        let (client, host, container) = (client?, host?, container?);
        // First of all: nothing for the pool can leave.
        client.ip(&format!(
            "route add unreachable {POOL}\naddr add {OWN}/32 dev lo\n"
        ))?;
        client.mount_bpffs(Path::new(BPFFS))?;
        connect_by_bridge(&host, &client, &container)?;
        for netns in [&client, &container] {
            // Closed connections would fill the table within seconds, and the search in it would be measured too.
            netns
                .enter(|| fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "64"))?
                .context("cannot limit the closed connections that wait")?;
        }
        let (hooked, bare) = (Cgroup::new("bench")?, Cgroup::new("bench")?);
        let own = std::env::current_exe().context("cannot find this program")?;
        let serve = |network, netns| {
            Spawn::new("server", &own)
                .args(["serve", network])
                .arg(bare.path())
                .netns(netns)
                .cgroup(&hooked)
                .start()
        };
        let _servers = [serve("bridge", &container)?, serve("loopback", &client)?];
        let world = Self {
            membership: Membership::of_this_process(hooked.path())?,
            hooked: hooked.path().to_owned(),
            bare: bare.path().to_owned(),
        };
        client.enter(|| {
            for address in
                all_services().flat_map(|(network, kind, place)| backends(network, kind, place))
            {
                eventually(PATIENCE, || TcpStream::connect(address))
                    .with_context(|| format!("the server on {address} does not come up"))?;
            }
            job(world)
        })?
    }

    /// Loads the agent's programs, fills their maps with a VIP for every kind of server, and attaches them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn programs(&self) -> Result<Programs> {
        let mut programs = Programs::load(&Config {
            bpffs: BPFFS.into(),
            cgroup: self.hooked.clone(),
            pool: POOL.parse()?,
            pool6: None,
            own: OWN,
            services: 64,
            backends: 64,
        })?;
        let (mut maps, ..) = Maps::open(&mut programs)?;
        let mut installed = maps.read_back()?;
        let (steps, _) = plan(&installed, &desired(), |_| 0, Instant::now());
        for step in &steps {
            maps.carry_out(step, &mut installed)?;
        }
        programs.attach()?;
        Ok(programs)
    }

    /// Lets this process open its sockets in `place` from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn move_to(&mut self, place: Place) -> Result<()> {
        let group = match place {
            Place::Hooked => &self.hooked,
            Place::Bare => &self.bare,
        };
        join(group).with_context(|| format!("cannot join the cgroup {}", group.display()))?;
        self.membership.left = true;
        Ok(())
    }
}

/// Puts `client` and `container` on a bridge in `host`, as Docker does with two containers.
fn connect_by_bridge(host: &Netns, client: &Netns, container: &Netns) -> Result<()> {
    let bridge = Ipv4Net::new(Ipv4Addr::new(10, 76, 255, 1), PREFIX)?;
    host.add_bridge("lb-bridge", bridge)?;
    let plug = |leaf, port, address| {
        let address = Ipv4Net::new(address, PREFIX)?;
        host.plug("lb-bridge", port, leaf, address, bridge.addr())?;
        anyhow::Ok(())
    };
    plug(client, "lb-client", Ipv4Addr::new(10, 76, 255, 2))?;
    plug(container, "lb-servers", Ipv4Addr::new(10, 76, 255, 3))?;
    for place in Place::BOTH {
        for backend in backends(Network::Bridge, Kind::Short, place) {
            container.ip(&format!("addr add {}/{PREFIX} dev eth0\n", backend.ip()))?;
        }
    }
    Ok(())
}

const PREFIX: u8 = 16;

/// The VIP in front of the servers of this kind and place.
pub(crate) fn vip(network: Network, kind: Kind, place: Place) -> SocketAddrV4 {
    let subnet = 1 + 2 * network as u8 + place as u8;
    SocketAddrV4::new(Ipv4Addr::new(198, 18, subnet, 1 + kind as u8), 80)
}

fn all_services() -> impl Iterator<Item = (Network, Kind, Place)> {
    Network::BOTH.into_iter().flat_map(|network| {
        Kind::ALL.into_iter().flat_map(move |kind| {
            Place::BOTH
                .into_iter()
                .map(move |place| (network, kind, place))
        })
    })
}

fn desired() -> Desired {
    let mut desired = Desired {
        complete: true,
        ..Desired::default()
    };
    for (network, kind, place) in all_services() {
        let vip = vip(network, kind, place);
        let slots = backends(network, kind, place).map(SocketAddr::V4).to_vec();
        desired.backends.extend(slots.iter().map(|&address| {
            let share = Share {
                weight: 1,
                counted_at: address,
            };
            (address, share)
        }));
        let key = ServiceKey::new(
            Be32::from_host((*vip.ip()).into()),
            ANY_PORT,
            PROTO_TCP,
            HOST_VIEW,
        );
        let endpoint = Endpoint {
            proven: true,
            name: ServiceName::whole(vip.to_string()),
            balance: Balance::LeastConn,
            affinity_seconds: 0,
            flags: 0,
            slots,
        };
        desired.services.insert(key, endpoint);
    }
    desired
}

/// Takes this process back to the cgroup it came from: the others are about to be emptied by force.
struct Membership {
    home: PathBuf,
    top: PathBuf,
    left: bool,
}

impl Membership {
    /// `group` is one at the top of the tree.
    fn of_this_process(group: &Path) -> Result<Self> {
        let groups =
            fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
        let home = groups
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .context("this process is in no cgroup of version 2")?;
        let top = group.parent().context("the cgroup has a parent")?;
        Ok(Self {
            home: top.join(home),
            top: top.to_owned(),
            left: false,
        })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // Home may be gone by now; the top takes everybody.
        if self.left && join(&self.home).or_else(|_| join(&self.top)).is_err() {
            eprintln!("cannot go back to the cgroup {}", self.home.display());
        }
    }
}

fn join(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}
