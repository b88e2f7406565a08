//! Services that change all the time under clients that ask all the time: whoever asks is answered by what the service
//! was or became meanwhile, and by nothing in between.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, ScopedJoinHandle},
    time::{Duration, Instant},
};

use fastrand::Rng;
use lb_agent::desired::Desired;
use lb_common::{ANY_PORT, Be32, HOST_VIEW, PROTO_TCP, PROTO_UDP, ServiceKey, flag};
use lb_testkit::eventually;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
};

use super::{
    lookups::{BALANCES, VIPS, Way, seeded, share},
    world::{LIMIT, World, endpoint},
};

/// Servers of each service, which are no other's.
const SERVERS: usize = 5;

/// Changes under way.
const CHANGES: usize = 2000;

/// Clients, each on a thread of its own.
const CLIENTS: usize = 3;

/// What the clients of a service may be told at one moment.
#[derive(Clone, Debug, Default)]
struct Truth {
    servers: BTreeSet<u8>,
    /// It is there, and has nobody.
    empty: bool,
    /// It is not there.
    gone: bool,
}

impl Truth {
    /// What one of both says.
    fn or(&self, other: &Self) -> Self {
        Self {
            servers: &self.servers | &other.servers,
            empty: self.empty || other.empty,
            gone: self.gone || other.gone,
        }
    }
}

/// A service, its servers, and all that was ever true of it; between any two, what is while it changes.
struct Changing {
    vip: u8,
    servers: Vec<(u8, SocketAddr)>,
    truths: RwLock<Vec<Truth>>,
}

impl Changing {
    fn new(vip: u8, servers: &[(u8, SocketAddr)]) -> Self {
        let gone = Truth {
            gone: true,
            ..Truth::default()
        };
        Self {
            vip,
            servers: servers.to_vec(),
            truths: RwLock::new(vec![gone]),
        }
    }

    fn keys(&self) -> [ServiceKey; 2] {
        let vip = Be32::from_host(Ipv4Addr::new(198, 18, 7, self.vip).into());
        [PROTO_TCP, PROTO_UDP].map(|proto| ServiceKey::new(vip, ANY_PORT, proto, HOST_VIEW))
    }

    /// Asks for one random change, and answers what will be true then.
    fn change(&self, rng: &mut Rng, desired: &mut Desired) -> Truth {
        let mut truth = Truth::default();
        match rng.u8(..20) {
            0 => truth.gone = true,
            1..4 => truth.empty = true,
            _ => {
                let some = self.servers.iter().filter(|_| rng.bool());
                truth.servers = some.map(|(number, _)| *number).collect();
                truth.servers.insert(rng.choice(&self.servers).unwrap().0);
            }
        }
        let named = self.servers.iter();
        let mut slots: Vec<_> = named
            .filter(|(number, _)| truth.servers.contains(number))
            .map(|(_, address)| *address)
            .collect();
        // Many slots and few: the halves differ in what is behind their ends.
        slots = slots.repeat(rng.usize(1..100));
        rng.shuffle(&mut slots);
        let mut wanted = endpoint(*rng.choice(&BALANCES).unwrap(), &slots);
        wanted.affinity_seconds = *rng.choice(&[0, 3600]).unwrap();
        if truth.empty {
            wanted.flags = *rng.choice(&[0, flag::NO_PATH, flag::DENIED]).unwrap();
        }
        for key in self.keys() {
            desired.services.remove(&key);
            if !truth.gone {
                desired.services.insert(key, wanted.clone());
            }
        }
        truth
    }

    fn newest(&self) -> Truth {
        self.truths.read().unwrap().last().unwrap().clone()
    }

    fn note(&self, truth: Truth) {
        self.truths.write().unwrap().push(truth);
    }

    /// Asks once, and checks the answer; answers whether it was served.
    fn ask(&self, way: Way) -> bool {
        let before = self.truths.read().unwrap().len() - 1;
        let asked = answer(way, self.vip);
        let truths = self.truths.read().unwrap();
        let nothing = Truth::default();
        let meanwhile = &truths[before..];
        let truth = meanwhile.iter().fold(nothing, |all, one| all.or(one));
        let right = match &asked {
            Ok(server) => truth.servers.contains(server),
            Err(error) => match error.kind() {
                // Over TCP the hook refuses for both.
                io::ErrorKind::ConnectionRefused => {
                    truth.empty || truth.gone && way.proto() == PROTO_TCP
                }
                // The route of the pool.
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    truth.gone && way.proto() == PROTO_UDP
                }
                _ => false,
            },
        };
        assert!(
            right,
            "{asked:?} from the service {}, by {way:?}, while {meanwhile:?}",
            self.vip
        );
        asked.is_ok()
    }
}

/// The number of the server that answers.
fn answer(way: Way, vip: u8) -> io::Result<u8> {
    let to = SocketAddr::from((way.address(vip), 80));
    let mut number = [0];
    if way.proto() == PROTO_TCP {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.read_exact(&mut number)?;
        // No client port is to wait for stragglers.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        return Ok(number[0]);
    }
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(LIMIT))?;
    if way.sends_only() {
        socket.send_to(b"?", to)?;
    } else {
        socket.connect(to)?;
        socket.send(b"?")?;
    }
    let (_, from) = socket.recv_from(&mut number)?;
    assert_eq!(from, to, "{way:?}");
    Ok(number[0])
}

/// Servers on one thread, each of which says its number over TCP and UDP. Dropping this ends them.
struct Numbered {
    all: Vec<(u8, SocketAddr)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Numbered {
    fn start(world: &World, many: u8) -> Self {
        let bind = |number| {
            let tcp = std::net::TcpListener::bind((Ipv4Addr::new(127, 0, 4, number), 0))?;
            let udp = UdpSocket::bind(tcp.local_addr()?)?;
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok::<_, io::Error>((number, tcp, udp))
        };
        let bound = world.netns.enter(|| (1..=many).map(bind).collect());
        let bound: io::Result<Vec<_>> = bound.unwrap();
        let bound = bound.unwrap();
        let address = |(number, tcp, _): &(u8, std::net::TcpListener, _)| {
            (*number, tcp.local_addr().unwrap())
        };
        let all = bound.iter().map(address).collect();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_io().build().unwrap().block_on(async {
                for (number, tcp, udp) in bound {
                    tokio::spawn(say_over_tcp(number, tcp));
                    tokio::spawn(say_over_udp(number, udp));
                }
                // An error is the end of its owner, and as good.
                let _ = stopped.await;
            });
        });
        Self {
            all,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

async fn say_over_tcp(number: u8, listener: std::net::TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            // The client ends it, with a reset.
            let _ = stream.write_all(&[number]).await;
            let _ = stream.read(&mut [0]).await;
        });
    }
}

async fn say_over_udp(number: u8, socket: UdpSocket) {
    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
    loop {
        let (_, from) = socket.recv_from(&mut [0; 8]).await.unwrap();
        socket.send_to(&[number], from).await.unwrap();
    }
}

/// What the clients did so far.
#[derive(Default)]
struct Asked {
    done: AtomicBool,
    served: AtomicU64,
    refused: AtomicU64,
}

impl Asked {
    fn all(&self) -> u64 {
        self.served.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed)
    }

    /// Waits until each of them may have asked again; false if one of them has failed.
    fn goes_on(&self, clients: &[ScopedJoinHandle<'_, ()>]) -> bool {
        let (enough, late) = (self.all() + 2 * CLIENTS as u64, Instant::now() + LIMIT);
        while self.all() < enough && Instant::now() < late {
            if clients.iter().any(ScopedJoinHandle::is_finished) {
                return false;
            }
            thread::yield_now();
        }
        self.all() >= enough
    }

    /// A client that asks any service in any way until it is to end.
    fn ask(&self, mut rng: Rng, services: &[Changing]) {
        while !self.done.load(Ordering::Relaxed) {
            let service = rng.choice(services).unwrap();
            let way = *rng.choice(&Way::ALL).unwrap();
            // All servers are of IPv4.
            if !way.reaches(&service.servers[0].1) {
                continue;
            }
            let asked = match service.ask(way) {
                true => &self.served,
                false => &self.refused,
            };
            asked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn no_client_ever_meets_a_half_updated_service() {
    let mut rng = seeded();
    let mut world = World::new();
    let programs = &mut world.programs;
    let attached = world.netns.enter(|| programs.serve_datagrams(true));
    attached.unwrap().unwrap();
    let servers = Numbered::start(&world, u8::try_from(VIPS.len() * SERVERS).unwrap());
    let own = servers.all.chunks(SERVERS).zip(VIPS);
    let services: Vec<_> = own.map(|(own, vip)| Changing::new(vip, own)).collect();
    let asked = Asked::default();
    let path = world.netns.path();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (asked, services, path, rng) = (&asked, &services, &path, rng.fork());
                scope.spawn(move || {
                    let namespace = std::fs::File::open(path).unwrap();
                    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    asked.ask(rng, services);
                })
            })
            .collect();
        let end = End(&asked.done);
        let mut desired = Desired {
            complete: true,
            ..Desired::default()
        };
        for change in 0..CHANGES {
            let changing = services.iter().filter(|_| rng.u8(..3) == 0);
            let changing: Vec<_> = changing.collect();
            let nexts = changing.iter().map(|it| it.change(&mut rng, &mut desired));
            let nexts: Vec<_> = nexts.collect();
            share(&mut rng, &mut desired);
            for (service, next) in changing.iter().zip(&nexts) {
                service.note(service.newest().or(next));
            }
            // In real time: what has left must rest, or it would be given out under a lookup.
            let settle = || match world.bring_to(&desired, Instant::now()) {
                problems if problems.is_empty() => Ok(()),
                problems => Err(format!("{problems:?}")),
            };
            eventually(LIMIT, settle).unwrap();
            for (service, next) in changing.into_iter().zip(nexts) {
                service.note(next);
            }
            if change % 10 == 0 && !asked.goes_on(&clients) {
                break;
            }
        }
        drop(end);
        for client in clients {
            client.join().unwrap();
        }
    });
    let (served, refused) = (asked.served.into_inner(), asked.refused.into_inner());
    assert!(served > 0 && refused > 0, "{served} and {refused}");
}

/// Lets the clients end when this is dropped, by a panic too.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
