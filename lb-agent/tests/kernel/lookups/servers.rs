//! Who is reached: servers behind the VIPs, and what the kernel answers who asks for them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use lb_common::{PROTO_TCP, PROTO_UDP, Refusal};
use lb_testkit::eventually;
use socket2::SockRef;

use super::{Ask, Way};
use crate::kernel::world::{LIMIT, World};

/// What the kernel answers.
#[derive(Debug)]
pub(in super::super) enum Answer {
    /// Who was reached; with it the flow, while somebody holds it.
    Backend(SocketAddr, Flow),
    Refused(Refusal),
}

/// An open flow, or what is left of a datagram.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(in super::super) enum Flow {
    Tcp(TcpStream, TcpStream),
    Udp(UdpSocket),
}

/// Servers behind the VIPs, each for TCP and UDP at one address.
pub(in super::super) struct Servers {
    listeners: Vec<(TcpListener, UdpSocket)>,
    pub(in super::super) all: Vec<SocketAddr>,
}

impl Servers {
    /// A world that they are in, its hooks for datagrams attached, and the cookie of its namespace.
    pub(in super::super) fn with_datagrams() -> (World, Self, u64) {
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
    pub(in super::super) fn ask(&self, world: &World, ask: Ask) -> Answer {
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
}

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
