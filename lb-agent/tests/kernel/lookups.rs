//! Small random worlds of services, what a lookup in them must answer, in plain Rust, and what the kernel answers.
//! The model test and the test of the order of steps share it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use fastrand::Rng;
use lb_agent::desired::{Desired, Endpoint, Share};
use lb_common::{
    ANY_PORT, Balance, Be16, Be32, Client, FIRST_OWN_VIEW, HOST_VIEW, INTERNAL_VIEW, OUTSIDE_VIEW,
    PROTO_TCP, PROTO_UDP, Refusal, ServiceKey, flag,
};
use lb_testkit::eventually;
use socket2::SockRef;

use super::world::{LIMIT, World, endpoint};

/// The seed of this run, which `LB_TEST_SEED` repeats. The test tells it when it fails.
pub(super) fn seeded() -> Rng {
    let given = std::env::var("LB_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    println!("repeat this with LB_TEST_SEED={seed}");
    Rng::with_seed(seed)
}

/// The last numbers of the VIPs in these worlds.
pub(super) const VIPS: [u8; 3] = [7, 8, 9];

/// The ports that clients ask for; services name the first two.
const PORTS: [u16; 3] = [80, 81, 82];

/// Where clients stand; the first is not known.
pub(super) const PLACES: [Option<Client>; 4] = [
    None,
    Some(Client {
        view: FIRST_OWN_VIEW + 1,
        otherwise: OUTSIDE_VIEW,
    }),
    Some(Client {
        view: FIRST_OWN_VIEW + 2,
        otherwise: OUTSIDE_VIEW,
    }),
    Some(Client {
        view: FIRST_OWN_VIEW + 3,
        otherwise: INTERNAL_VIEW,
    }),
];

/// The views that may have elements of their own.
const VIEWS: [u32; 5] = [
    OUTSIDE_VIEW,
    INTERNAL_VIEW,
    FIRST_OWN_VIEW + 1,
    FIRST_OWN_VIEW + 2,
    FIRST_OWN_VIEW + 3,
];

fn vip4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 7, last)
}

fn vip6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 0x0700 | u16::from(last))
}

/// One question to the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) vip: u8,
    pub(super) port: u16,
    pub(super) way: Way,
}

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Tcp4,
    Tcp6,
    /// An IPv6 socket that is given the IPv4 VIP.
    TcpMapped,
    UdpConnected4,
    UdpConnected6,
    UdpSent4,
    UdpSent6,
    UdpSentMapped,
}

impl Way {
    pub(super) const ALL: [Self; 8] = [
        Self::Tcp4,
        Self::Tcp6,
        Self::TcpMapped,
        Self::UdpConnected4,
        Self::UdpConnected6,
        Self::UdpSent4,
        Self::UdpSent6,
        Self::UdpSentMapped,
    ];

    pub(super) fn proto(self) -> u8 {
        match self {
            Self::Tcp4 | Self::Tcp6 | Self::TcpMapped => PROTO_TCP,
            _ => PROTO_UDP,
        }
    }

    /// Whether it is given what IPv6 sockets reach. A datagram to a mapped address is an IPv4 one for the kernel.
    fn reaches_v6(self) -> bool {
        matches!(
            self,
            Self::Tcp6 | Self::TcpMapped | Self::UdpConnected6 | Self::UdpSent6
        )
    }

    pub(super) fn sends_only(self) -> bool {
        matches!(self, Self::UdpSent4 | Self::UdpSent6 | Self::UdpSentMapped)
    }

    /// Whether the kernel lets it reach this backend, if that is chosen: no datagram to an IPv6 address becomes an IPv4
    /// one.
    pub(super) fn reaches(self, backend: &SocketAddr) -> bool {
        self != Self::UdpSent6 || backend.is_ipv6()
    }

    /// The VIP as a client names it that asks so.
    pub(super) fn address(self, vip: u8) -> IpAddr {
        match self {
            Self::Tcp4 | Self::UdpConnected4 | Self::UdpSent4 => vip4(vip).into(),
            Self::Tcp6 | Self::UdpConnected6 | Self::UdpSent6 => vip6(vip).into(),
            Self::TcpMapped | Self::UdpSentMapped => vip4(vip).to_ipv6_mapped().into(),
        }
    }
}

impl Ask {
    pub(super) fn random(rng: &mut Rng) -> Self {
        Self {
            vip: *rng.choice(&VIPS).unwrap(),
            port: *rng.choice(&PORTS).unwrap(),
            way: *rng.choice(&Way::ALL).unwrap(),
        }
    }

    /// Every way to ask for every VIP, on a port that is named and on one that is not.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let ways = |vip| Way::ALL.map(|way| (vip, way));
        VIPS.into_iter()
            .flat_map(ways)
            .flat_map(|(vip, way)| [80, 82].map(|port| Self { vip, port, way }))
    }

    /// The element that decides for a client at `place`.
    pub(super) fn looked_up(
        self,
        services: &BTreeMap<ServiceKey, Endpoint>,
        place: Option<Client>,
    ) -> Option<ServiceKey> {
        let vip = Be32::from_host(vip4(self.vip).into());
        let on = |port| ServiceKey::new(vip, port, self.way.proto(), HOST_VIEW);
        let host = [on(ANY_PORT), on(Be16::from_host(self.port))];
        let host = host.into_iter().find(|key| services.contains_key(key))?;
        let views = place.map(|it| [it.view, it.otherwise]);
        let own = views.into_iter().flatten().map(|view| host.seen_from(view));
        let key = own
            .into_iter()
            .find(|key| services.contains_key(key))
            .unwrap_or(host);
        let six = key.for_v6();
        let reaches_six = self.way.reaches_v6() && services.contains_key(&six);
        Some(if reaches_six { six } else { key })
    }
}

/// Why an element without a slot refuses.
pub(super) fn refusal(endpoint: &Endpoint) -> Refusal {
    if endpoint.flags & flag::DENIED != 0 {
        Refusal::Denied
    } else if endpoint.flags & flag::NO_PATH != 0 {
        Refusal::NoPath
    } else {
        Refusal::NoBackend
    }
}

/// What the kernel answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// Who was reached; with it the flow, while somebody holds it.
    Backend(SocketAddr, Flow),
    Refused(Refusal),
}

/// An open flow, or what is left of a datagram.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(super) enum Flow {
    Tcp(TcpStream, TcpStream),
    Udp(UdpSocket),
}

/// Servers behind the VIPs, each for TCP and UDP at one address.
pub(super) struct Servers {
    listeners: Vec<(TcpListener, UdpSocket)>,
    pub(super) all: Vec<SocketAddr>,
}

impl Servers {
    /// A world that they are in, its hooks for datagrams attached, and the cookie of its namespace.
    pub(super) fn with_datagrams() -> (World, Self, u64) {
        let mut world = World::new();
        let servers = Self::start(&world);
        let programs = &mut world.programs;
        let attached = world.netns.enter(|| programs.serve_datagrams(true));
        attached.unwrap().unwrap();
        let cookie = world.cookie();
        (world, servers, cookie)
    }

    /// Four of IPv4 and two of IPv6.
    fn start(world: &World) -> Self {
        let four = (2..6).map(|last| IpAddr::from([127, 0, 0, last]));
        let six = [IpAddr::from(Ipv6Addr::LOCALHOST); 2];
        let listeners: Vec<_> = four.chain(six).map(|ip| serve(world, ip)).collect();
        let all: Vec<_> = listeners
            .iter()
            .map(|(listener, _)| listener.local_addr().unwrap())
            .collect();
        Self { listeners, all }
    }

    /// Asks the kernel; the client stands where the world's namespace does.
    pub(super) fn ask(&self, world: &World, ask: Ask) -> Answer {
        let before = refusals(world);
        let address = SocketAddr::from((ask.way.address(ask.vip), ask.port));
        match ask.way.proto() {
            PROTO_TCP => match world.netns.enter(|| TcpStream::connect(address)).unwrap() {
                Ok(stream) => {
                    assert_eq!(stream.peer_addr().unwrap(), address, "{ask:?}");
                    // No client port is to wait for stragglers.
                    SockRef::from(&stream)
                        .set_linger(Some(Duration::ZERO))
                        .unwrap();
                    let (backend, server) = self.accepted();
                    Answer::Backend(backend, Flow::Tcp(stream, server))
                }
                Err(error) => refused(world, before, &error, ask),
            },
            _ => match world.netns.enter(|| datagram(address, ask.way)).unwrap() {
                Ok(socket) => Answer::Backend(self.asked(), Flow::Udp(socket)),
                Err(error) => refused(world, before, &error, ask),
            },
        }
    }

    /// Who has a new connection.
    fn accepted(&self) -> (SocketAddr, TcpStream) {
        let servers = self.listeners.iter().zip(&self.all);
        let found = eventually(LIMIT, || {
            let mut all = servers.clone();
            let one = all.find_map(|((listener, _), at)| Some((*at, listener.accept().ok()?.0)));
            one.ok_or("nobody was connected to")
        });
        found.unwrap()
    }

    /// Who has a datagram.
    fn asked(&self) -> SocketAddr {
        let servers = self.listeners.iter().zip(&self.all);
        let found = eventually(LIMIT, || {
            let mut all = servers.clone();
            let one = all.find(|((_, socket), _)| socket.recv_from(&mut [0; 8]).is_ok());
            one.map(|(_, at)| *at).ok_or("nobody was asked")
        });
        found.unwrap()
    }

    /// A random world of services on all VIPs.
    pub(super) fn desired(&self, rng: &mut Rng) -> Desired {
        let mut desired = Desired {
            complete: true,
            ..Desired::default()
        };
        // Not all of them, so that in each world some are unused.
        let mut among = self.all.clone();
        for _ in 0..2 {
            among.swap_remove(rng.usize(..among.len()));
        }
        for vip in VIPS {
            for proto in [PROTO_TCP, PROTO_UDP] {
                if rng.u8(..5) > 0 {
                    add_service(rng, &among, &mut desired, vip, proto);
                }
            }
        }
        share(rng, &mut desired);
        desired
    }
}

/// Adds a random service of servers among these: some ports, some views, some families.
pub(super) fn add_service(
    rng: &mut Rng,
    among: &[SocketAddr],
    desired: &mut Desired,
    vip: u8,
    proto: u8,
) {
    let v4: Vec<_> = among.iter().copied().filter(SocketAddr::is_ipv4).collect();
    let vip = Be32::from_host(vip4(vip).into());
    let ports: &[u16] = rng.choice([&[0][..], &[0], &[80], &[80, 81]]).unwrap();
    let balance = *rng.choice(&BALANCES).unwrap();
    let affinity = *rng.choice(&[0, 0, 0, 3600]).unwrap();
    let viewed = rng.bool();
    for &port in ports {
        let host = ServiceKey::new(vip, Be16::from_host(port), proto, HOST_VIEW);
        let mut elements = BTreeMap::from([(HOST_VIEW, element(rng, &v4))]);
        if viewed {
            for view in VIEWS {
                if rng.u8(..5) < 2 {
                    elements.insert(view, element(rng, &v4));
                }
            }
        }
        if elements.len() > 1 {
            elements.get_mut(&HOST_VIEW).unwrap().flags |= flag::VIEWS;
        }
        for (view, mut any) in elements {
            let key = host.seen_from(view);
            (any.balance, any.affinity_seconds) = (balance, affinity);
            if rng.u8(..3) == 0 {
                any.flags |= flag::V6;
                let mut six = element(rng, among);
                (six.balance, six.affinity_seconds) = (balance, affinity);
                desired.services.insert(key.for_v6(), six);
            }
            desired.services.insert(key, any);
        }
    }
}

/// Some of these servers, more than once perhaps; or none, and why.
fn element(rng: &mut Rng, among: &[SocketAddr]) -> Endpoint {
    if rng.u8(..5) == 0 {
        let mut nobody = endpoint(Balance::LeastConn, &[]);
        nobody.flags = *rng.choice(&[0, flag::NO_PATH, flag::DENIED]).unwrap();
        return nobody;
    }
    let many = rng.usize(1..6);
    let slots: Vec<_> = (0..many).map(|_| *rng.choice(among).unwrap()).collect();
    endpoint(Balance::LeastConn, &slots)
}

/// Gives a random share to each server that a service names.
pub(super) fn share(rng: &mut Rng, desired: &mut Desired) {
    let named = desired.services.values().flat_map(|it| &it.slots);
    let named: Vec<_> = named.copied().collect();
    desired.backends.clear();
    // Flows are counted at the address in use, or at one whose flows are counted there.
    let Some(&root) = rng.choice(&named) else {
        return;
    };
    for address in named {
        let elsewhere = rng.u8(..4) == 0;
        let counted_at = if elsewhere { root } else { address };
        let weight = rng.u16(1..4);
        let share = Share { weight, counted_at };
        desired.backends.entry(address).or_insert(share);
    }
    desired
        .backends
        .entry(root)
        .and_modify(|it| it.counted_at = root);
}

/// Every way to balance.
pub(super) const BALANCES: [Balance; 4] = [
    Balance::LeastConn,
    Balance::RoundRobin,
    Balance::Random,
    Balance::Maglev,
];

fn serve(world: &World, ip: IpAddr) -> (TcpListener, UdpSocket) {
    let bound = world.netns.enter(|| {
        let listener = TcpListener::bind((ip, 0))?;
        listener.set_nonblocking(true)?;
        let socket = UdpSocket::bind(listener.local_addr()?)?;
        socket.set_nonblocking(true)?;
        Ok::<_, io::Error>((listener, socket))
    });
    bound.unwrap().unwrap()
}

/// Sends one datagram from a new socket.
fn datagram(to: SocketAddr, way: Way) -> io::Result<UdpSocket> {
    let any: IpAddr = match to.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    if way.sends_only() {
        socket.send_to(b"?", to)?;
    } else {
        socket.connect(to)?;
        assert_eq!(socket.peer_addr()?, to, "{way:?}");
        socket.send(b"?")?;
    }
    Ok(socket)
}

/// What was counted as refused, by reason.
fn refusals(world: &World) -> [u64; 4] {
    let tables = world.installed.services.values().map(|it| it.table);
    let mut sum = [0; 4];
    for table in tables.chain([0]) {
        let counted = world.maps.counters(table).unwrap().refused;
        for (sum, counted) in sum.iter_mut().zip(counted) {
            *sum += counted;
        }
    }
    sum
}

/// The one reason that was counted since; the error must be that of a refusal.
fn refused(world: &World, before: [u64; 4], error: &io::Error, ask: Ask) -> Answer {
    let after = refusals(world);
    let counted = Refusal::ALL
        .into_iter()
        .filter(|&reason| after[reason as usize] != before[reason as usize]);
    let counted: Vec<_> = counted.collect();
    let total: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    // The route of the pool refuses datagrams that no service has a claim to; they are not counted.
    let by_route = matches!(
        error.kind(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
    );
    let by_hook = error.kind() == io::ErrorKind::ConnectionRefused;
    let (reason, expected) = match (&counted[..], total) {
        ([], 0) if ask.way.proto() == PROTO_UDP => (Refusal::Unknown, by_route),
        ([reason], 1) => (*reason, by_hook),
        _ => panic!("{ask:?}: {error}, and counted are {before:?} and then {after:?}"),
    };
    assert!(expected, "{ask:?}: {error} for {reason:?}");
    Answer::Refused(reason)
}
