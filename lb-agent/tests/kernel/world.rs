//! A namespace with the programs attached to a cgroup that the test process has joined.

mod nested;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData};
use lb_agent::{
    catalog::Problem,
    desired::{Desired, Endpoint, Share},
    installed::Installed,
    maps::{Events, Maps, Traces},
    plan::{Step, plan},
    programs::{Config, Error, Programs, pin_root},
    snapshot::ServiceName,
};
use lb_common::{
    ANY_PORT, Balance, Be16, Be32, HOST_VIEW, MAP_VERSION, PROTO_TCP, PROTO_UDP, ServiceKey,
    Suspect, map,
};
use lb_testkit::{Cgroup, Netns, eventually};
use nix::time::{ClockId, clock_gettime};

pub(super) use self::nested::Nested;

/// A cgroup is joined by the whole process, so only one test at a time may have a world.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The agent's own address in the test's pool.
pub(super) const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The VIP that most tests use.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 7);

/// Its IPv6 twin.
pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 0x0707);

/// The pool of that.
pub(super) const POOL6: &str = "fd62:6c62:76:1::/64";

/// How long a test waits for what must come.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

pub(super) struct World {
    pub(super) netns: Netns,
    pub(super) programs: Programs,
    pub(super) maps: Maps,
    pub(super) events: Events,
    pub(super) traces: Traces,
    pub(super) installed: Installed,
    desired: Desired,
    /// Addresses whose flows are counted at another one.
    pub(super) counted_at: BTreeMap<SocketAddr, SocketAddr>,
    config: Config,
    membership: Membership,
    _folder: tempfile::TempDir,
    _guard: MutexGuard<'static, ()>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::after(|_, _| ()).0
    }

    /// A world in which something was done before the programs were loaded.
    pub(super) fn after<T>(before: impl FnOnce(&Netns, &Config) -> T) -> (Self, T) {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let netns = Netns::new("kernel-test").unwrap();
        // First of all: nothing for the pool can leave.
        netns
            .ip(&format!(
                "route add unreachable 198.18.0.0/16\naddr add {OWN}/32 dev lo\n"
            ))
            .unwrap();
        let folder = tempfile::Builder::new()
            .prefix("lb-test-")
            .tempdir()
            .unwrap();
        netns.mount_bpffs(folder.path()).unwrap();
        let cgroup = Cgroup::new("kernel-test").unwrap();
        let config = Config {
            bpffs: folder.path().to_owned(),
            cgroup: cgroup.path().to_owned(),
            pool: "198.18.0.0/16".parse().unwrap(),
            pool6: Some(POOL6.parse().unwrap()),
            own: OWN,
            services: 64,
            backends: 64,
        };
        let membership = Membership::join(cgroup);
        let done = before(&netns, &config);
        let (programs, maps, events, traces, installed) = load(&netns, &config);
        let world = Self {
            netns,
            programs,
            maps,
            events,
            traces,
            installed,
            desired: Desired {
                complete: true,
                ..Desired::default()
            },
            counted_at: BTreeMap::new(),
            config,
            membership,
            _folder: folder,
            _guard: guard,
        };
        (world, done)
    }

    /// What a restarted agent does: load anew, adopt the pins. The old agent's descriptors close.
    pub(super) fn restart(&mut self) {
        (
            self.programs,
            self.maps,
            self.events,
            self.traces,
            self.installed,
        ) = load(&self.netns, &self.config);
    }

    /// As [`World::restart`], for one that may be refused.
    pub(super) fn try_restart(&self) -> Result<Programs, Error> {
        self.netns.enter(|| Programs::load(&self.config)).unwrap()
    }

    /// As [`World::restart`], of an agent that is told another cgroup, which may refuse its programs.
    pub(super) fn try_restart_at(&self, cgroup: &Path) -> Result<(), Error> {
        let config = Config {
            cgroup: cgroup.to_owned(),
            ..self.config.clone()
        };
        let moved = self.netns.enter(|| {
            let mut programs = Programs::load(&config)?;
            Maps::open(&mut programs).unwrap();
            programs.attach()
        });
        moved.unwrap()
    }

    /// The folder of the pins, to be used within the namespace.
    pub(super) fn pins(&self) -> PathBuf {
        pin_root(&self.config.bpffs)
    }

    /// Makes `vip` answer on every port with these backends.
    pub(super) fn serve(&mut self, vip: Ipv4Addr, balance: Balance, backends: &[SocketAddr]) {
        self.serve_on(vip, ANY_PORT, balance, backends);
    }

    pub(super) fn serve_on(
        &mut self,
        vip: Ipv4Addr,
        port: Be16,
        balance: Balance,
        backends: &[SocketAddr],
    ) {
        let key = ServiceKey::new(Be32::from_host(vip.into()), port, PROTO_TCP, HOST_VIEW);
        self.put(key, endpoint(balance, backends));
    }

    /// Makes the maps hold `endpoint` for `key`.
    pub(super) fn put(&mut self, key: ServiceKey, endpoint: Endpoint) {
        let datagrams = key.proto == PROTO_UDP;
        self.desired.services.insert(key, endpoint);
        self.settle();
        if datagrams {
            let programs = &mut self.programs;
            let attached = self.netns.enter(|| programs.serve_datagrams(true));
            attached.unwrap().unwrap();
        }
    }

    /// Makes the maps hold nothing for `key`.
    pub(super) fn forget(&mut self, key: ServiceKey) {
        self.desired.services.remove(&key);
        self.settle();
    }

    /// The cookie of the namespace.
    pub(super) fn cookie(&self) -> u64 {
        let cookie = self.netns.enter(|| {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            lb_sys::netns::cookie(socket.as_fd()).unwrap()
        });
        cookie.unwrap()
    }

    /// Takes every service away.
    pub(super) fn serve_nothing(&mut self) {
        self.desired.services.clear();
        self.settle();
    }

    fn settle(&mut self) {
        self.settle_at(Instant::now());
    }

    /// Brings the maps to what was last asked for, as if it were `now`.
    pub(super) fn settle_at(&mut self, now: Instant) {
        let members = self
            .desired
            .services
            .values()
            .flat_map(|endpoint| &endpoint.slots);
        let share = |counted_at| Share {
            weight: 1,
            counted_at,
        };
        self.desired.backends = members
            .map(|&address| (address, share(address)))
            .collect::<BTreeMap<_, _>>();
        for (address, counted_at) in &self.counted_at {
            self.desired.backends.insert(*address, share(*counted_at));
        }
        assert_eq!(self.bring_to(&self.desired.clone(), now), vec![]);
    }

    /// Brings the maps to `desired`, as if it were `now`; answers what did not fit.
    pub(super) fn bring_to(&mut self, desired: &Desired, now: Instant) -> Vec<Problem> {
        let (steps, problems) = self.steps_to(desired, now);
        for step in &steps {
            self.carry_out(step);
        }
        problems
    }

    /// The steps from what the maps hold to `desired`, and what will not fit.
    pub(super) fn steps_to(&self, desired: &Desired, now: Instant) -> (Vec<Step>, Vec<Problem>) {
        let active = |index| self.maps.active(index).unwrap();
        plan(&self.installed, desired, active, now)
    }

    pub(super) fn carry_out(&mut self, step: &Step) {
        self.maps.carry_out(step, &mut self.installed).unwrap();
    }

    /// Lets the kernel skip the backend for so long, counted from now; a negative time is over.
    pub(super) fn suspect(&self, backend: SocketAddr, seconds: i64) {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap());
        let offset = Duration::from_secs(seconds.unsigned_abs());
        let until = if seconds < 0 {
            now.saturating_sub(offset)
        } else {
            now + offset
        };
        let until_ns = u64::try_from(until.as_nanos()).unwrap().max(1);
        let index = self.installed.backends[&backend].id.index;
        let mut suspects: Array<_, Suspect> = self.pinned(map::SUSPECTS).try_into().unwrap();
        suspects.set(index, Suspect { until_ns }, 0).unwrap();
    }

    /// A map that the programs use, by its pin.
    pub(super) fn pinned(&self, name: &str) -> Map {
        let pin = self.pins().join(format!("v{MAP_VERSION}")).join(name);
        let map = self.netns.enter(|| MapData::from_pin(pin)).unwrap();
        Map::from_map_data(map.unwrap()).unwrap()
    }

    /// The cgroup that the hooks are attached to, and that this process is in.
    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.membership.cgroup
    }

    /// The table of an endpoint.
    pub(super) fn table(&self, key: &ServiceKey) -> u32 {
        self.installed.services[key].table
    }

    /// A listener on this loopback address of the namespace, port chosen by the kernel.
    pub(super) fn listen(&self, address: [u8; 4]) -> (TcpListener, SocketAddr) {
        let listener = self
            .netns
            .enter(|| TcpListener::bind((Ipv4Addr::from(address), 0)).unwrap())
            .unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    pub(super) fn connect(
        &self,
        address: impl Into<IpAddr>,
        port: u16,
    ) -> std::io::Result<TcpStream> {
        let address = address.into();
        self.netns
            .enter(|| TcpStream::connect((address, port)))
            .unwrap()
    }

    pub(super) fn active(&self, backend: SocketAddr) -> u64 {
        self.maps
            .active(self.installed.backends[&backend].counted_at.index)
            .unwrap()
    }

    /// The same; none for a backend that is gone.
    pub(super) fn active_or_none(&self, backend: SocketAddr) -> u64 {
        let known = self.installed.backends.contains_key(&backend);
        if known { self.active(backend) } else { 0 }
    }

    pub(super) fn suspected(&self, backend: SocketAddr) -> bool {
        self.maps
            .suspected_until(self.installed.backends[&backend].id.index)
            .unwrap()
            != 0
    }

    /// Waits until the backend has so many open flows: a close may be finished by the kernel later.
    #[track_caller]
    pub(super) fn await_active(&self, backend: SocketAddr, flows: u64) {
        let settled = eventually(LIMIT, || match self.active(backend) {
            active if active == flows => Ok(()),
            active => Err(format!("{active} open flows instead of {flows}")),
        });
        settled.unwrap();
    }
}

/// What the maps are to hold for a service with these backends.
pub(super) fn endpoint(balance: Balance, backends: &[SocketAddr]) -> Endpoint {
    let mut named = backends.to_vec();
    named.sort();
    Endpoint {
        name: ServiceName::whole("tested"),
        balance,
        affinity_seconds: 0,
        flags: 0,
        proven: true,
        named: named.into(),
        slots: backends.to_vec(),
    }
}

/// An address of the namespace's loopback where nothing listens.
pub(super) const NOBODY: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 9, 9), 9));

fn load(netns: &Netns, config: &Config) -> (Programs, Maps, Events, Traces, Installed) {
    let loaded = netns.enter(|| {
        let mut programs = Programs::load(config).unwrap();
        let (maps, events, traces) = Maps::open(&mut programs).unwrap();
        programs.attach().unwrap();
        let installed = maps.read_back().unwrap();
        (programs, maps, events, traces, installed)
    });
    loaded.unwrap()
}

/// The test process in a cgroup; it goes back before the group is removed.
struct Membership {
    home: PathBuf,
    cgroup: Cgroup,
}

impl Membership {
    fn join(cgroup: Cgroup) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap();
        let top = cgroup.path().parent().unwrap();
        let home = top.join(own.trim_start_matches('/')).join("cgroup.procs");
        fs::write(cgroup.path().join("cgroup.procs"), "0").unwrap();
        Self { home, cgroup }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        fs::write(&self.home, "0").unwrap();
    }
}
