//! Two namespaces on a bridge and two cgroups, one hooked and one bare, with servers in all of them, and VIPs for
//! them.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnet::{Ipv4Net, Ipv6Net};
use lb_agent::{
    desired::{Desired, Endpoint, Share},
    maps::Maps,
    plan::plan,
    programs::{Config, Programs},
    snapshot::ServiceName,
};
use lb_common::{ANY_PORT, Balance, Be32, HOST_VIEW, PROTO_TCP, PROTO_UDP, ServiceKey, flag};
use lb_testkit::{Cgroup, Netns, Spawn, eventually};

use crate::{
    client::Asker,
    rivals::{Rival, Rivals},
    server::{Kind, Network, Place, backends},
};

/// In the namespace's own mounts: a bpf file system of ours covers the machine's.
const BPFFS: &str = "/sys/fs/bpf";

pub(crate) const POOL: &str = "198.18.0.0/16";
const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Of the IPv6 VIPs; each has the host part of an IPv4 one.
pub(crate) const POOL6: Ipv6Addr = Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 0);

/// How many services there are beside the others, where there are many.
pub(crate) const FILLERS: u16 = 10_000;

/// How long the servers may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the bench's sockets live.
pub(crate) struct World {
    membership: Membership,
    hooked: PathBuf,
    bare: PathBuf,
    /// Where this process opens its sockets, once it was told.
    place: Option<Place>,
    rivals: Option<Rivals>,
}

impl World {
    /// Makes a world, runs `job` in it and takes it away. With `rivals`, the folder with their packages, they are there.
    ///
    /// # Errors
    /// When a part cannot be made, or `job` fails.
    pub(crate) fn inside<T: Send>(
        rivals: Option<&Path>,
        job: impl FnOnce(Self) -> Result<T> + Send,
    ) -> Result<T> {
        let [client, host, container] = [(); 3].map(|()| Netns::new("bench"));
        let (client, host, container) = (client?, host?, container?);
        // First of all: nothing for the pool can leave.
        client.ip(&format!(
            "route add unreachable {POOL}\nroute add unreachable {POOL6}/64\naddr add {OWN}/32 dev lo\n"
        ))?;
        client.mount_bpffs(Path::new(BPFFS))?;
        connect_by_bridge(&host, &client, &container)?;
        for netns in [&client, &host, &container] {
            limit_closed(netns)?;
        }
        let (hooked, bare) = (Cgroup::new("bench")?, Cgroup::new("bench")?);
        let own = std::env::current_exe().context("cannot find this program")?;
        let serve = |network: Network, netns| {
            Spawn::new("server", &own)
                .args(["serve", network.name()])
                .arg(bare.path())
                .netns(netns)
                .cgroup(&hooked)
                .start()
        };
        let _servers = [
            serve(Network::Bridge, &container)?,
            serve(Network::Bridge6, &container)?,
            serve(Network::Loopback, &client)?,
        ];
        let rivals = rivals
            .map(|packages| Rivals::start(packages, &host, &bare))
            .transpose()?;
        let world = Self {
            membership: Membership::of_this_process(hooked.path())?,
            hooked: hooked.path().to_owned(),
            bare: bare.path().to_owned(),
            place: None,
            rivals,
        };
        client.enter(|| {
            for (network, kind, place) in all_services() {
                for address in backends(network, kind, place) {
                    eventually(PATIENCE, || answers(kind, address))
                        .with_context(|| format!("the server on {address} does not come up"))?;
                }
            }
            if let Some(rivals) = &world.rivals {
                rivals.await_ready()?;
            }
            job(world)
        })?
    }

    /// Loads the agent's programs, fills their maps with a VIP for every kind of server and, where it is asked for, with
    /// [`FILLERS`] more in front of the servers for short connections there, and attaches them. What an earlier call
    /// left is taken over.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn programs(&self, fillers: Option<(Network, Place)>) -> Result<Programs> {
        let mut programs = Programs::load(&Config {
            bpffs: BPFFS.into(),
            cgroup: self.hooked.clone(),
            pool: POOL.parse()?,
            pool6: Some(Ipv6Net::new(POOL6, 64)?),
            own: OWN,
            services: 64 + u32::from(fillers.map_or(0, |_| FILLERS)),
            backends: 64,
        })?;
        let (mut maps, ..) = Maps::open(&mut programs)?;
        let mut installed = maps.read_back()?;
        let (steps, _) = plan(&installed, &desired(fillers), |_| 0, Instant::now());
        for step in &steps {
            maps.carry_out(step, &mut installed)?;
        }
        programs.attach()?;
        programs.serve_datagrams(true)?;
        Ok(programs)
    }

    /// Lets this process open its sockets in `place` from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn move_to(&mut self, place: Place) -> Result<()> {
        // The kernel takes milliseconds for a move, even for one that leads nowhere.
        if self.place == Some(place) {
            return Ok(());
        }
        let group = match place {
            Place::Hooked => &self.hooked,
            Place::Bare => &self.bare,
        };
        self.membership.move_to(group)?;
        self.place = Some(place);
        Ok(())
    }

    /// Runs `job` where the clients of `rival` are.
    ///
    /// # Errors
    /// When this world has no rivals, or their clients' namespace cannot be entered.
    pub(crate) fn as_client_of<T: Send>(
        &self,
        rival: Rival,
        job: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        let rivals = self.rivals.as_ref().context("there are no rivals")?;
        rivals.as_client_of(rival, job)
    }
}

/// Closed connections would fill the table within seconds, and the search in it would be measured too.
///
/// # Errors
/// When the namespace does not take the limit.
pub(crate) fn limit_closed(netns: &Netns) -> Result<()> {
    set(netns, "ipv4/tcp_max_tw_buckets", "64")
}

/// Sets what is there to be set below `/proc/sys/net` of `netns`: a kernel without a feature has nothing to turn off.
///
/// # Errors
/// When the kernel refuses the value.
pub(crate) fn set(netns: &Netns, name: &str, value: &str) -> Result<()> {
    let file = Path::new("/proc/sys/net").join(name);
    netns
        .enter(|| match file.exists() {
            true => fs::write(&file, value),
            false => Ok(()),
        })?
        .with_context(|| format!("cannot set {}", file.display()))
}

/// Puts `client` and `container` on a bridge in `host`, as Docker does with two containers.
fn connect_by_bridge(host: &Netns, client: &Netns, container: &Netns) -> Result<()> {
    host.add_bridge("lb-bridge", Ipv4Net::new(BRIDGE, PREFIX)?)?;
    host.ip(&format!("addr add {BRIDGE6}/64 dev lb-bridge nodad\n"))?;
    for family in ["iptables", "ip6tables"] {
        // What crosses the bridge has nothing to do with the host's filters.
        set(host, &format!("bridge/bridge-nf-call-{family}"), "0")?;
    }
    let plug = |leaf, port, address| {
        let address = Ipv4Net::new(address, PREFIX)?;
        host.plug("lb-bridge", port, leaf, address, BRIDGE)?;
        anyhow::Ok(())
    };
    plug(client, "lb-client", Ipv4Addr::new(10, 76, 255, 2))?;
    plug(container, "lb-servers", Ipv4Addr::new(10, 76, 255, 3))?;
    for place in Place::BOTH {
        for backend in backends(Network::Bridge, Kind::Short, place) {
            container.ip(&format!("addr add {}/{PREFIX} dev eth0\n", backend.ip()))?;
        }
        for backend in backends(Network::Bridge6, Kind::Short, place) {
            // Nobody else can have it: there is nothing to wait for.
            container.ip(&format!("addr add {}/64 dev eth0 nodad\n", backend.ip()))?;
        }
    }
    client.ip("addr add fd00:6c62:76::ff02/64 dev eth0 nodad\n")?;
    Ok(())
}

/// The bridge's own addresses.
pub(crate) const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 76, 255, 1);
pub(crate) const BRIDGE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x6c62, 0x76, 0, 0, 0, 0, 0xff01);

/// The length of its IPv4 prefix.
pub(crate) const PREFIX: u8 = 16;

/// The VIP in front of the servers of this kind and place.
pub(crate) fn vip(network: Network, kind: Kind, place: Place) -> SocketAddr {
    let vip = vip4(network, kind, place);
    if network != Network::Bridge6 {
        return (vip, 80).into();
    }
    let [.., third, last] = vip.octets();
    let mut twin = POOL6.segments();
    twin[7] = u16::from_be_bytes([third, last]);
    (Ipv6Addr::from(twin), 80).into()
}

/// The same, or the one whose twin it is.
fn vip4(network: Network, kind: Kind, place: Place) -> Ipv4Addr {
    let subnet = 1 + 2 * network as u8 + place as u8;
    Ipv4Addr::new(198, 18, subnet, 1 + kind as u8)
}

/// One of the many more VIPs.
pub(crate) fn filler(number: u16) -> SocketAddr {
    let [third, last] = (0x4000 + number).to_be_bytes();
    (Ipv4Addr::new(198, 18, third, last), 80).into()
}

/// Whether a server of this kind is there.
///
/// # Errors
/// When it is not.
pub(crate) fn answers(kind: Kind, address: SocketAddr) -> io::Result<()> {
    if kind != Kind::Datagram {
        return TcpStream::connect(address).map(drop);
    }
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.connect(address)?;
    Asker::Connected.ask(&socket)
}

fn all_services() -> impl Iterator<Item = (Network, Kind, Place)> {
    Network::ALL.into_iter().flat_map(|network| {
        Kind::ALL.into_iter().flat_map(move |kind| {
            Place::BOTH
                .into_iter()
                .map(move |place| (network, kind, place))
        })
    })
}

fn desired(fillers: Option<(Network, Place)>) -> Desired {
    let mut desired = Desired {
        complete: true,
        ..Desired::default()
    };
    for (network, kind, place) in all_services() {
        let slots = backends(network, kind, place).to_vec();
        desired.backends.extend(slots.iter().map(|&address| {
            let share = Share {
                weight: 1,
                counted_at: address,
            };
            (address, share)
        }));
        let proto = match kind {
            Kind::Datagram => PROTO_UDP,
            _ => PROTO_TCP,
        };
        let key = key(vip4(network, kind, place), proto);
        if network == Network::Bridge6 {
            // Who asks by IPv4 finds nothing there.
            let mut none = endpoint(vec![]);
            none.flags = flag::V6 | flag::NO_PATH;
            desired.services.insert(key, none);
            desired.services.insert(key.for_v6(), endpoint(slots));
        } else {
            desired.services.insert(key, endpoint(slots));
        }
    }
    let Some((network, place)) = fillers else {
        return desired;
    };
    for number in 0..FILLERS {
        if let SocketAddr::V4(vip) = filler(number) {
            let slots = backends(network, Kind::Short, place).to_vec();
            desired
                .services
                .insert(key(*vip.ip(), PROTO_TCP), endpoint(slots));
        }
    }
    desired
}

fn key(vip: Ipv4Addr, proto: u8) -> ServiceKey {
    ServiceKey::new(Be32::from_host(vip.into()), ANY_PORT, proto, HOST_VIEW)
}

fn endpoint(slots: Vec<SocketAddr>) -> Endpoint {
    Endpoint {
        proven: true,
        name: ServiceName::whole("bench".to_owned()),
        balance: Balance::LeastConn,
        affinity_seconds: 0,
        flags: 0,
        named: Default::default(),
        slots,
    }
}

/// Takes this process back to the cgroup it came from: the others are about to be emptied by force.
pub(crate) struct Membership {
    home: PathBuf,
    top: PathBuf,
    left: bool,
}

impl Membership {
    /// `group` is one at the top of the tree.
    ///
    /// # Errors
    /// When this process is in no such tree.
    pub(crate) fn of_this_process(group: &Path) -> Result<Self> {
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

    /// Lets this process open its sockets in `group` from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn move_to(&mut self, group: &Path) -> Result<()> {
        join(group).with_context(|| format!("cannot join the cgroup {}", group.display()))?;
        self.left = true;
        Ok(())
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
