//! A running resolver, the services that it knows, and questions to it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use lb_agent::{
    catalog::Problem,
    dns::{self, Config, Metrics},
    options::Options,
    snapshot::{Service, ServiceName, Snapshot},
    vip::{Pool6, Pools},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 7);
const DEADLINE: Duration = Duration::from_secs(20);

/// A running resolver.
pub(crate) struct Agent {
    pub(crate) problems: watch::Receiver<Vec<Problem>>,
    pub(crate) address: SocketAddr,
    pub(crate) snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub(crate) metrics: Arc<Metrics>,
    stop: CancellationToken,
    stage: JoinHandle<Result<(), dns::Error>>,
}

impl Agent {
    pub(crate) async fn start(
        upstreams: Vec<SocketAddr>,
        consul: Option<SocketAddr>,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Self {
        Self::start_at(same_port().await, upstreams, consul, snapshot)
    }

    pub(crate) fn start_at(
        (tcp, udp): (TcpListener, UdpSocket),
        upstreams: Vec<SocketAddr>,
        consul: Option<SocketAddr>,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Self {
        Self::start_with((tcp, udp), config(upstreams, consul), snapshot)
    }

    pub(crate) fn start_with(
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

    pub(crate) async fn udp(&self, asked: &Message) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(&asked.to_vec().unwrap()).await.unwrap();
        receive(&socket).await
    }

    pub(crate) async fn tcp(&self, asked: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&frame(asked)).await.unwrap();
        read_frame(&mut stream).await
    }

    /// Asks until the answer is as it should be.
    pub(crate) async fn until(&self, asked: &Message, good: impl Fn(&Message) -> bool) {
        within(async { while !good(&self.udp(asked).await) {} }).await;
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        within(self.stage).await.unwrap().unwrap();
    }
}

/// A listener and a socket on the same free port.
pub(crate) async fn same_port() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        match UdpSocket::bind(tcp.local_addr().unwrap()).await {
            Ok(udp) => return (tcp, udp),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
        }
    }
    panic!("no port is free for both UDP and TCP");
}

pub(crate) async fn receive(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 4096];
    let bytes = within(socket.recv(&mut buffer)).await.unwrap();
    assert!(bytes <= 1232);
    Message::from_vec(&buffer[..bytes]).unwrap()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("not done in time")
}

pub(crate) fn frame(message: &Message) -> Vec<u8> {
    let packet = message.to_vec().unwrap();
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    [&length[..], &packet].concat()
}

pub(crate) async fn read_frame(stream: &mut TcpStream) -> Message {
    let length = within(stream.read_u16()).await.unwrap();
    let mut packet = vec![0; length.into()];
    within(stream.read_exact(&mut packet)).await.unwrap();
    Message::from_vec(&packet).unwrap()
}

pub(crate) fn config(upstreams: Vec<SocketAddr>, consul: Option<SocketAddr>) -> Config {
    Config {
        pools: Pools {
            v6: Some(Pool6::default()),
            ..Pools::default()
        },
        domains: vec!["localhost".to_owned(), "127.0.0.1.xip.io".to_owned()],
        upstreams: watch::channel(upstreams).1,
        consul,
        neighbours: dns::private_networks(),
        allow: Vec::new(),
    }
}

pub(crate) fn snapshot(complete: bool) -> Arc<Snapshot> {
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

pub(crate) fn reverse_name(address: impl Into<IpAddr>) -> String {
    Name::from(address.into()).to_ascii()
}

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(crate) fn addresses(answer: &Message) -> Vec<Ipv4Addr> {
    let a = |record: &Record| match record.data {
        RData::A(A(address)) => Some(address),
        _ => None,
    };
    answer.answers.iter().filter_map(a).collect()
}

pub(crate) fn code(answer: &Message) -> ResponseCode {
    answer.metadata.response_code
}
