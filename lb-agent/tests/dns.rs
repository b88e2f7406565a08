//! The resolver on the wire: real sockets on loopback, with a scripted upstream in the same process.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails the test by panicking"
)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR, SOA, TXT},
    },
};
use lb_agent::{
    catalog::Problem,
    dns::{self, Config, Metrics},
    options::Options,
    snapshot::{Service, ServiceName, Snapshot},
    vip::{Pool6, Pools},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 7);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_service_is_answered_by_udp_and_tcp() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    for name in ["www_hello.", "WWW.hello.", "www.hello.virtual.consul."] {
        let asked = question(name, RecordType::A);
        for answer in [agent.udp(&asked).await, agent.tcp(&asked).await] {
            assert_eq!(answer.metadata.id, asked.metadata.id);
            assert_eq!(answer.queries, asked.queries);
            assert!(answer.metadata.authoritative);
            assert_eq!(addresses(&answer), [VIP], "{name}");
        }
    }
    let route = question("www.hello.127.0.0.1.xip.io.", RecordType::A);
    assert_eq!(addresses(&agent.udp(&route).await), [OWN]);
    assert_eq!(agent.metrics.queries("A", "NOERROR"), 7);
    agent.end().await;
}

#[tokio::test]
async fn a_service_has_a_twin_a_port_and_a_name_for_its_address() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    let answer = agent.udp(&question("www_hello.", RecordType::AAAA)).await;
    let twin: Ipv6Addr = "fd62:6c62:76:1::707".parse().unwrap();
    assert_eq!(answer.answers[0].data, RData::AAAA(AAAA(twin)));
    let answer = agent
        .udp(&question("_http._tcp.www.hello.", RecordType::SRV))
        .await;
    let RData::SRV(srv) = &answer.answers[0].data else {
        panic!("{answer}")
    };
    assert_eq!(
        (srv.port, srv.target.to_ascii()),
        (8080, "www.hello.".to_owned())
    );
    assert_eq!(answer.additionals.len(), 2, "{answer}");
    for name in [reverse_name(VIP), reverse_name(twin)] {
        let answer = agent.udp(&question(&name, RecordType::PTR)).await;
        let RData::PTR(PTR(service)) = &answer.answers[0].data else {
            panic!("{answer}")
        };
        assert_eq!(service.to_ascii(), "www_hello.");
    }
    let nobody = Ipv4Addr::new(198, 18, 9, 9);
    let answer = agent
        .udp(&question(&reverse_name(nobody), RecordType::PTR))
        .await;
    assert_eq!(code(&answer), ResponseCode::NXDomain);
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(agent.metrics.queries("PTR", "NOERROR"), 2);
    agent.end().await;
}

#[tokio::test]
async fn without_a_data_plane_for_ipv6_the_other_family_is_no_data() {
    let mut config = config(vec![], None);
    config.pools.v6 = None;
    let agent = Agent::start_with(same_port().await, config, Some(snapshot(true)));
    let answer = agent.udp(&question("www_hello.", RecordType::AAAA)).await;
    assert_eq!(code(&answer), ResponseCode::NoError);
    assert!(answer.answers.is_empty());
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    agent.end().await;
}

#[tokio::test]
async fn names_follow_the_snapshot() {
    let agent = Agent::start(vec![], None, None).await;
    let asked = question("www_hello.", RecordType::A);
    assert_eq!(code(&agent.udp(&asked).await), ResponseCode::ServFail);
    agent.snapshots.send_replace(Some(snapshot(true)));
    agent
        .until(&asked, |answer| addresses(answer) == [VIP])
        .await;
    agent.snapshots.send_replace(Some(Arc::new(Snapshot {
        answered: true,
        complete: true,
        ..Snapshot::default()
    })));
    // It is nobody's now, and without an upstream there is nobody to ask.
    agent
        .until(&asked, |answer| code(answer) == ResponseCode::ServFail)
        .await;
    agent.end().await;
}

#[tokio::test]
async fn a_contested_name_is_told_and_no_longer_told_when_it_is_settled() {
    let mut agent = Agent::start(vec![], None, None).await;
    let mut contested = (*snapshot(true)).clone();
    let (_, service) = contested.services.iter().next().unwrap();
    let service = service.clone();
    let rival = ServiceName::part("www", "hello");
    contested.services.insert(rival, service);
    agent.snapshots.send_replace(Some(Arc::new(contested)));
    let told = agent.problems.wait_for(|told| !told.is_empty());
    let told = within(told).await.unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].subject, "name www.hello");
    agent.snapshots.send_replace(Some(snapshot(true)));
    within(agent.problems.wait_for(Vec::is_empty))
        .await
        .unwrap();
    agent.end().await;
}

#[tokio::test]
async fn other_names_are_forwarded_once_and_remembered() {
    let upstream = Upstream::start(|asked, _| with_address(asked, 60)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    for name in ["www.example.com.", "WWW.example.COM."] {
        let asked = question(name, RecordType::A);
        for answer in [agent.udp(&asked).await, agent.tcp(&asked).await] {
            assert_eq!(answer.metadata.id, asked.metadata.id);
            assert!(answer.queries[0].name().eq_case(asked.queries[0].name()));
            assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
            assert_eq!(addresses(&answer), [ELSEWHERE]);
        }
    }
    assert_eq!(upstream.asked(), 1);
    agent.end().await;
}

#[tokio::test]
async fn a_denied_name_is_remembered_as_its_zone_says() {
    let upstream = Upstream::start(|asked, _| denied(asked)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    for _ in 0..3 {
        let answer = agent
            .udp(&question("nobody.example.com.", RecordType::A))
            .await;
        assert_eq!(code(&answer), ResponseCode::NXDomain);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
    assert_eq!(upstream.asked(), 1);
    agent.end().await;
}

#[tokio::test]
async fn no_name_is_denied_before_every_source_has_answered() {
    let upstream = Upstream::start(|asked, _| {
        if asked.queries[0].name().to_ascii() == "www.example.com." {
            with_address(asked, 60)
        } else {
            denied(asked)
        }
    })
    .await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(false))).await;
    let unknown = question("shop.test.", RecordType::A);
    assert_eq!(code(&agent.udp(&unknown).await), ResponseCode::ServFail);
    let known = question("www.example.com.", RecordType::A);
    assert_eq!(addresses(&agent.udp(&known).await), [ELSEWHERE]);
    // A source may be away for long: what does not look like ours is not held back for that.
    let stopgap = Snapshot {
        stopgap: true,
        ..Snapshot::clone(&snapshot(false))
    };
    agent.snapshots.send_replace(Some(Arc::new(stopgap)));
    agent
        .until(&unknown, |answer| code(answer) == ResponseCode::NXDomain)
        .await;
    let ours = question("shop.", RecordType::A);
    assert_eq!(code(&agent.udp(&ours).await), ResponseCode::ServFail);
    agent.snapshots.send_replace(Some(snapshot(true)));
    agent
        .until(&ours, |answer| code(answer) == ResponseCode::NXDomain)
        .await;
    agent.end().await;
}

#[tokio::test]
async fn equal_questions_at_once_are_one_question() {
    let release = Arc::new(Notify::new());
    let upstream = Upstream::held(&release, |asked, _| with_address(asked, 60)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    let mut askers = Vec::new();
    for _ in 0..20 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let asked = question("many.example.com.", RecordType::A)
            .to_vec()
            .unwrap();
        socket.send_to(&asked, agent.address).await.unwrap();
        askers.push(socket);
    }
    // It stands behind the twenty, so once it is answered they all have been taken.
    agent.udp(&question("www_hello.", RecordType::A)).await;
    release.notify_one();
    for socket in askers {
        assert_eq!(addresses(&receive(&socket).await), [ELSEWHERE]);
    }
    assert_eq!(upstream.asked(), 1);
    agent.end().await;
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_fetched_by_tcp() {
    let upstream = Upstream::start(|asked, transport| match transport {
        Transport::Udp => with_address(asked, 60).truncate(),
        Transport::Tcp => with_text(asked, 3000),
    })
    .await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    let mut asked = question("long.example.com.", RecordType::TXT);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    for edns in [None, Some(edns)] {
        asked.edns = edns;
        let short = agent.udp(&asked).await;
        assert!(short.metadata.truncation && short.answers.is_empty());
        assert_eq!(short.edns.is_some(), asked.edns.is_some());
        let whole = agent.tcp(&asked).await;
        assert!(!whole.metadata.truncation);
        assert!(whole.to_vec().unwrap().len() > 3000);
    }
    agent.end().await;
}

#[tokio::test]
async fn a_forged_answer_is_passed_over() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let agent = Agent::start(vec![address], None, Some(snapshot(true))).await;
    let upstream = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        let (bytes, agent) = socket.recv_from(&mut buffer).await.unwrap();
        let asked = Message::from_vec(&buffer[..bytes]).unwrap();
        let forged = |change: fn(&mut Message)| {
            let mut answer = with_address(&asked, 60);
            answer.answers[0].data = RData::A(A::new(203, 0, 113, 66));
            change(&mut answer);
            answer.to_vec().unwrap()
        };
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        stranger.send_to(&forged(|_| {}), agent).await.unwrap();
        let packets = [
            b"garbage".to_vec(),
            forged(|answer| answer.metadata.id ^= 1),
            forged(|answer| {
                answer.queries[0].set_name(Name::from_ascii("other.example.com.").unwrap());
            }),
            with_address(&asked, 60).to_vec().unwrap(),
        ];
        for packet in packets {
            socket.send_to(&packet, agent).await.unwrap();
        }
    });
    let answer = agent
        .udp(&question("www.example.com.", RecordType::A))
        .await;
    assert_eq!(addresses(&answer), [ELSEWHERE]);
    within(upstream).await.unwrap();
    agent.end().await;
}

#[tokio::test]
async fn the_next_upstream_is_asked_if_one_is_gone_or_refuses() {
    let gone = same_port().await.1.local_addr().unwrap();
    let refusing = Upstream::start(|asked, _| empty(asked, ResponseCode::Refused)).await;
    let good = Upstream::start(|asked, _| with_address(asked, 60)).await;
    let servers = vec![gone, refusing.address, good.address];
    let agent = Agent::start(servers, None, Some(snapshot(true))).await;
    for name in ["a.example.com.", "b.example.com."] {
        let answer = agent.udp(&question(name, RecordType::A)).await;
        assert_eq!(addresses(&answer), [ELSEWHERE]);
    }
    // From then on the one that answered is asked first.
    assert_eq!((refusing.asked(), good.asked()), (1, 2));
    agent.end().await;
}

#[tokio::test]
async fn if_every_upstream_refuses_the_asker_learns_it() {
    let upstream = Upstream::start(|asked, _| empty(asked, ResponseCode::Refused)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    let answer = agent.udp(&question("a.example.com.", RecordType::A)).await;
    assert_eq!(code(&answer), ResponseCode::Refused);
    agent.end().await;
}

// Time is virtual in these two: it jumps to the next limit when there is nothing else to do.

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_a_server_failure_before_the_asker_gives_up() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let servers = vec![silent.local_addr().unwrap()];
    let agent = Agent::start(servers, None, Some(snapshot(true))).await;
    let started = Instant::now();
    let answer = agent.udp(&question("a.example.com.", RecordType::A)).await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert!(started.elapsed() < Duration::from_secs(5));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    // Half of a length: whoever never says the rest holds nothing for long.
    stream.write_all(&[0]).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0);
    agent.end().await;
}

#[tokio::test]
async fn without_an_upstream_other_names_fail_at_once() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    let answer = agent
        .udp(&question("www.example.com.", RecordType::A))
        .await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    agent.end().await;
}

#[tokio::test]
async fn an_upstream_that_is_the_resolver_itself_is_left_out() {
    let sockets = same_port().await;
    let itself = sockets.1.local_addr().unwrap();
    let agent = Agent::start_at(sockets, vec![itself], None, Some(snapshot(true)));
    let started = Instant::now();
    let answer = agent
        .udp(&question("www.example.com.", RecordType::A))
        .await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    // To ask itself takes all the time that an upstream has.
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(agent.metrics.queries("A", "SERVFAIL"), 1);
    agent.end().await;
}

#[tokio::test]
async fn names_of_consul_go_to_consul_and_nowhere_else() {
    let consul = Upstream::start(|asked, _| with_address(asked, 0)).await;
    let upstream = Upstream::start(|asked, _| denied(asked)).await;
    let servers = vec![upstream.address];
    let agent = Agent::start(servers, Some(consul.address), Some(snapshot(true))).await;
    for times in 1..=2 {
        let answer = agent
            .udp(&question("db.service.consul.", RecordType::A))
            .await;
        assert_eq!(addresses(&answer), [ELSEWHERE]);
        // Consul's answers live for no time at all, so each question reaches it.
        assert_eq!(consul.asked(), times);
    }
    assert_eq!(upstream.asked(), 0);
    agent.end().await;
}

#[tokio::test]
async fn a_malformed_datagram_is_answered_with_its_id() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    // A header that announces a question, and no question.
    let packet = [0xab, 0xcd, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    socket.send_to(&packet, agent.address).await.unwrap();
    let mut buffer = [0; 512];
    let bytes = within(socket.recv(&mut buffer)).await.unwrap();
    // QR and RD are set, RCODE is 1, and there are no sections.
    assert_eq!(
        buffer[..bytes],
        [0xab, 0xcd, 0x81, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    agent.end().await;
}

#[tokio::test]
async fn questions_on_a_connection_do_not_wait_for_each_other() {
    let release = Arc::new(Notify::new());
    let upstream = Upstream::held(&release, |asked, _| with_address(asked, 60)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    let slow = question("slow.example.com.", RecordType::A);
    let fast = question("www_hello.", RecordType::A);
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let both = [frame(&slow), frame(&fast)].concat();
    // In two pieces that respect no frame.
    stream.write_all(&both[..3]).await.unwrap();
    stream.write_all(&both[3..]).await.unwrap();
    assert_eq!(read_frame(&mut stream).await.metadata.id, fast.metadata.id);
    // The client says no more, and still gets what it asked for.
    stream.shutdown().await.unwrap();
    release.notify_one();
    let answer = read_frame(&mut stream).await;
    assert_eq!(answer.metadata.id, slow.metadata.id);
    assert_eq!(addresses(&answer), [ELSEWHERE]);
    assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0);
    agent.end().await;
}

#[tokio::test]
async fn a_resolver_without_a_socket_says_so() {
    let (_sender, snapshots) = watch::channel(None);
    let metrics = Arc::new(Metrics::default());
    let stop = CancellationToken::new();
    let ended = dns::run(
        config(vec![], None),
        vec![],
        vec![],
        snapshots,
        metrics,
        watch::channel(Vec::new()).0,
        stop,
    )
    .await;
    assert!(matches!(ended, Err(dns::Error::NoSocket)));
}

/// A running resolver.
struct Agent {
    problems: watch::Receiver<Vec<Problem>>,
    address: SocketAddr,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    stage: JoinHandle<Result<(), dns::Error>>,
}

impl Agent {
    async fn start(
        upstreams: Vec<SocketAddr>,
        consul: Option<SocketAddr>,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Self {
        Self::start_at(same_port().await, upstreams, consul, snapshot)
    }

    fn start_at(
        (tcp, udp): (TcpListener, UdpSocket),
        upstreams: Vec<SocketAddr>,
        consul: Option<SocketAddr>,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Self {
        Self::start_with((tcp, udp), config(upstreams, consul), snapshot)
    }

    fn start_with(
        (tcp, udp): (TcpListener, UdpSocket),
        config: Config,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Self {
        let address = udp.local_addr().unwrap();
        let (sender, snapshots) = watch::channel(snapshot);
        let (problems_in, problems) = watch::channel(Vec::new());
        let metrics = Arc::new(Metrics::default());
        let stop = CancellationToken::new();
        let stage = tokio::spawn(dns::run(
            config,
            vec![udp.into_std().unwrap()],
            vec![tcp.into_std().unwrap()],
            snapshots,
            Arc::clone(&metrics),
            problems_in,
            stop.clone(),
        ));
        Self {
            problems,
            address,
            snapshots: sender,
            metrics,
            stop,
            stage,
        }
    }

    async fn udp(&self, asked: &Message) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(&asked.to_vec().unwrap()).await.unwrap();
        receive(&socket).await
    }

    async fn tcp(&self, asked: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&frame(asked)).await.unwrap();
        read_frame(&mut stream).await
    }

    /// Asks until the answer is as it should be.
    async fn until(&self, asked: &Message, good: impl Fn(&Message) -> bool) {
        within(async { while !good(&self.udp(asked).await) {} }).await;
    }

    async fn end(self) {
        self.stop.cancel();
        within(self.stage).await.unwrap().unwrap();
    }
}

#[derive(Clone, Copy)]
enum Transport {
    Udp,
    Tcp,
}

type Script = fn(&Message, Transport) -> Message;

/// A resolver that answers by a script, and counts what it is asked by UDP.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    async fn start(script: Script) -> Self {
        let release = Arc::new(Notify::new());
        release.notify_one();
        Self::held(&release, script).await
    }

    /// Holds its first answer back until `release` is notified.
    async fn held(release: &Arc<Notify>, script: Script) -> Self {
        let (tcp, udp) = same_port().await;
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let (count, mut held) = (Arc::clone(&asked), Some(Arc::clone(release)));
        tasks.spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (bytes, client) = udp.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                if let Some(release) = held.take() {
                    release.notified().await;
                }
                let asked = Message::from_vec(&buffer[..bytes]).unwrap();
                let answer = script(&asked, Transport::Udp).to_vec().unwrap();
                udp.send_to(&answer, client).await.unwrap();
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let answer = script(&read_frame(&mut stream).await, Transport::Tcp);
                stream.write_all(&frame(&answer)).await.unwrap();
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A listener and a socket on the same free port.
async fn same_port() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        match UdpSocket::bind(tcp.local_addr().unwrap()).await {
            Ok(udp) => return (tcp, udp),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
        }
    }
    panic!("no port is free for both UDP and TCP");
}

async fn receive(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 4096];
    let bytes = within(socket.recv(&mut buffer)).await.unwrap();
    assert!(bytes <= 1232);
    Message::from_vec(&buffer[..bytes]).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("not done in time")
}

fn frame(message: &Message) -> Vec<u8> {
    let packet = message.to_vec().unwrap();
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    [&length[..], &packet].concat()
}

async fn read_frame(stream: &mut TcpStream) -> Message {
    let length = within(stream.read_u16()).await.unwrap();
    let mut packet = vec![0; length.into()];
    within(stream.read_exact(&mut packet)).await.unwrap();
    Message::from_vec(&packet).unwrap()
}

fn config(upstreams: Vec<SocketAddr>, consul: Option<SocketAddr>) -> Config {
    Config {
        pools: Pools {
            v6: Some(Pool6::default()),
            ..Pools::default()
        },
        domains: vec!["localhost".to_owned(), "127.0.0.1.xip.io".to_owned()],
        upstreams,
        consul,
        neighbours: dns::private_networks(),
        allow: Vec::new(),
    }
}

fn snapshot(complete: bool) -> Arc<Snapshot> {
    let service = Service {
        vip: Some(VIP),
        options: Options {
            ports: [8080].into(),
            ..Options::default()
        },
        aliases: Default::default(),
        backends: Default::default(),
    };
    Arc::new(Snapshot {
        answered: complete,
        complete,
        services: [(ServiceName::whole("www_hello"), service.into())].into(),
        ..Snapshot::default()
    })
}

fn reverse_name(address: impl Into<IpAddr>) -> String {
    Name::from(address.into()).to_ascii()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn empty(asked: &Message, code: ResponseCode) -> Message {
    let mut answer = asked.clone().into_response();
    answer.metadata.response_code = code;
    answer
}

fn with_address(asked: &Message, ttl: u32) -> Message {
    let mut answer = empty(asked, ResponseCode::NoError);
    let name = asked.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(name, ttl, RData::A(A(ELSEWHERE))));
    answer
}

fn with_text(asked: &Message, bytes: usize) -> Message {
    let mut answer = empty(asked, ResponseCode::NoError);
    let name = asked.queries[0].name().clone();
    let text = TXT::new(vec!["x".repeat(250); bytes.div_ceil(250)]);
    answer.add_answer(Record::from_rdata(name, 60, RData::TXT(text)));
    answer
}

fn denied(asked: &Message) -> Message {
    let mut answer = empty(asked, ResponseCode::NXDomain);
    let zone = Name::from_ascii("com.").unwrap();
    let soa = SOA::new(zone.clone(), Name::root(), 1, 2, 3, 4, 60);
    answer.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
    answer
}

fn addresses(answer: &Message) -> Vec<Ipv4Addr> {
    let a = |record: &Record| match record.data {
        RData::A(A(address)) => Some(address),
        _ => None,
    };
    answer.answers.iter().filter_map(a).collect()
}

fn code(answer: &Message) -> ResponseCode {
    answer.metadata.response_code
}
