//! DNS behind VIPs: real questions, from a client of our own, from the C library and from `dig`.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use lb_common::{ANY_PORT, Balance, Be16, Be32, HOST_VIEW, PROTO_TCP, PROTO_UDP, ServiceKey, flag};
use lb_testkit::Spawn;
use socket2::SockRef;

use super::world::{LIMIT, VIP, VIP6, World, endpoint};
use crate::dig::dig;

/// A DNS server over UDP and TCP that gives one address to every name. Dropping it ends it.
struct Resolver {
    address: SocketAddr,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Resolver {
    fn start(world: &World, ip: impl Into<IpAddr>, answer: Ipv4Addr) -> Self {
        let ip = ip.into();
        let bound = world.netns.enter(|| {
            let tcp = TcpListener::bind((ip, 0))?;
            let udp = UdpSocket::bind(tcp.local_addr()?)?;
            // So often they look for their end.
            let rest = Some(Duration::from_millis(20));
            SockRef::from(&tcp).set_read_timeout(rest)?;
            udp.set_read_timeout(rest)?;
            Ok::<_, io::Error>((tcp, udp))
        });
        let (tcp, udp) = bound.unwrap().unwrap();
        let address = tcp.local_addr().unwrap();
        let done = Arc::<AtomicBool>::default();
        let [seen, seen_too] = [(); 2].map(|()| Arc::clone(&done));
        let by_datagram = thread::spawn(move || {
            let mut room = [0; 512];
            while !seen.load(Ordering::Relaxed) {
                let Ok((length, from)) = udp.recv_from(&mut room) else {
                    continue;
                };
                let answer = answered(&room[..length], answer);
                udp.send_to(&answer, from).unwrap();
            }
        });
        let by_stream = thread::spawn(move || {
            while !seen_too.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else {
                    continue;
                };
                // Each message has its length before it.
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut question).unwrap();
                let answer = answered(&question, answer);
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat()).unwrap();
            }
        });
        Self {
            address,
            done,
            threads: vec![by_datagram, by_stream],
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// The answer to a question: the address for its name, and nothing of any other kind.
fn answered(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    for query in &question.queries {
        answer.add_query(query.clone());
        if query.query_type() == RecordType::A {
            let data = RData::A(A(address));
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        }
    }
    answer.to_vec().unwrap()
}

fn question(id: u16) -> Vec<u8> {
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    let name = Name::from_str("www.lb.test.").unwrap();
    question.add_query(Query::query(name, RecordType::A));
    question.to_vec().unwrap()
}

/// The address in an answer to the question `id`.
fn address_in(answer: &[u8], id: u16) -> Option<Ipv4Addr> {
    let answer = Message::from_vec(answer).unwrap();
    assert_eq!(answer.metadata.id, id);
    answer.answers.iter().find_map(|record| match record.data {
        RData::A(address) => Some(address.0),
        _ => None,
    })
}

fn key(vip: Ipv4Addr, port: Be16) -> ServiceKey {
    ServiceKey::new(Be32::from_host(vip.into()), port, PROTO_UDP, HOST_VIEW)
}

const OTHER: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 8);

/// Two resolvers behind a VIP each, the second on port 53 alone.
fn two(world: &mut World) -> [(Ipv4Addr, Ipv4Addr, Resolver); 2] {
    let all = [(VIP, 1, ANY_PORT), (OTHER, 2, Be16::from_host(53))];
    all.map(|(vip, n, port)| {
        let answer = Ipv4Addr::new(10, 1, 1, n);
        let resolver = Resolver::start(world, [127, 0, 0, 1 + n], answer);
        world.put(
            key(vip, port),
            endpoint(Balance::LeastConn, &[resolver.address]),
        );
        (vip, answer, resolver)
    })
}

fn socket(world: &World) -> UdpSocket {
    let socket = world
        .netns
        .enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let socket = socket.unwrap().unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

#[test]
fn one_socket_asks_several_resolvers_at_once_and_knows_whose_answer_is_whose() {
    let mut world = World::new();
    let all = two(&mut world);
    let client = socket(&world);
    for round in 0..20 {
        for (id, (vip, _, _)) in (0..).zip(&all) {
            client
                .send_to(&question(2 * round + id), (*vip, 53))
                .unwrap();
        }
        for _ in &all {
            let mut room = [0; 512];
            let (length, from) = client.recv_from(&mut room).unwrap();
            let found = all
                .iter()
                .position(|(vip, _, _)| from == SocketAddr::from((*vip, 53)));
            let found = found.unwrap_or_else(|| panic!("an answer from {from}"));
            let id = 2 * round + u16::try_from(found).unwrap();
            assert_eq!(address_in(&room[..length], id), Some(all[found].1));
        }
    }
}

#[test]
fn a_connected_socket_goes_from_one_resolver_to_the_next() {
    let mut world = World::new();
    let all = two(&mut world);
    let client = socket(&world);
    for id in 0..10 {
        let (vip, answer, resolver) = &all[usize::from(id % 2)];
        client.connect((*vip, 53)).unwrap();
        assert_eq!(client.peer_addr().unwrap(), SocketAddr::from((*vip, 53)));
        client.send(&question(id)).unwrap();
        let mut room = [0; 512];
        let length = client.recv(&mut room).unwrap();
        assert_eq!(address_in(&room[..length], id), Some(*answer));
        assert_eq!(world.active(resolver.address), 1);
        let (_, _, other) = &all[usize::from((id + 1) % 2)];
        assert_eq!(world.active(other.address), 0, "counted where it is now");
    }
    // Of two named ports only one is there.
    let error = client.connect((OTHER, 54)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    drop(client);
    for (_, _, resolver) in &all {
        world.await_active(resolver.address, 0);
    }
}

#[test]
fn the_c_library_resolves_through_a_vip_and_takes_the_next_one_when_the_first_is_refused() {
    let mut world = World::new();
    let [_, (vip, answer, _resolver)] = two(&mut world);
    // Nobody is left behind the first.
    world.put(key(VIP, ANY_PORT), endpoint(Balance::LeastConn, &[]));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("nameserver {VIP}\nnameserver {vip}\n")).unwrap();
    let conf = std::path::Path::new("/etc/resolv.conf");
    world.netns.bind(file.path(), conf).unwrap();
    let said = Spawn::new("getent", "getent")
        .args(["ahostsv4", "www.lb.test"])
        .netns(&world.netns)
        .output()
        .unwrap();
    let first = said
        .split_whitespace()
        .next()
        .and_then(|it| it.parse().ok());
    assert_eq!(first, Some(IpAddr::from(answer)), "{said}");
    let refused = world
        .maps
        .counters(world.table(&key(VIP, ANY_PORT)))
        .unwrap()
        .refused;
    assert!(refused.iter().sum::<u64>() > 0, "the first was asked");
}

#[test]
fn dig_asks_either_form_of_a_vip_over_either_protocol() {
    let mut world = World::new();
    let four = Resolver::start(&world, [127, 0, 0, 2], Ipv4Addr::new(10, 1, 1, 4));
    // Over UDP the sockets of dig are for IPv6 alone, and reach no IPv4 backend.
    let six = Resolver::start(&world, Ipv6Addr::LOCALHOST, Ipv4Addr::new(10, 1, 1, 6));
    for proto in [PROTO_UDP, PROTO_TCP] {
        let key = ServiceKey::new(Be32::from_host(VIP.into()), ANY_PORT, proto, HOST_VIEW);
        world.put(key.for_v6(), endpoint(Balance::LeastConn, &[six.address]));
        let mut any = endpoint(Balance::LeastConn, &[four.address]);
        any.flags = flag::V6;
        world.put(key, any);
    }
    for (server, address, resolver) in [
        (VIP.into(), "10.1.1.4", &four),
        (VIP6.into(), "10.1.1.6", &six),
    ] {
        for protocol in ["UDP", "TCP"] {
            let records = dig(&world.netns, server, protocol, "www.lb.test", "A");
            assert_eq!(records, [["www.lb.test.", "60", "IN", "A", address]]);
            world.await_active(resolver.address, 0);
        }
    }
}
