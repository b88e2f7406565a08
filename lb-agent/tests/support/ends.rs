//! Flows of every family and protocol, and what becomes of both their ends.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use lb_testkit::Netns;
use socket2::{Domain, Socket, Type};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A server for TCP and UDP at one address.
pub(crate) struct Server {
    tcp: TcpListener,
    udp: UdpSocket,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Listens on `ip`, at a port that the kernel chooses.
    pub(crate) fn start(netns: &Netns, ip: impl Into<IpAddr>) -> Self {
        let ip = ip.into();
        let bound = netns.enter(|| {
            let tcp = TcpListener::bind((ip, 0))?;
            let address = tcp.local_addr()?;
            let udp = UdpSocket::bind(address)?;
            udp.set_read_timeout(Some(LIMIT))?;
            Ok::<_, io::Error>(Self { tcp, udp, address })
        });
        bound.unwrap().unwrap()
    }

    /// A flow through the VIP, whose backend this is, and a direct one, from sockets of the same family.
    pub(crate) fn both(&self, netns: &Netns, kind: Type, vip: IpAddr) -> [Pair; 2] {
        let ip = match (vip, self.address.ip()) {
            (IpAddr::V6(_), IpAddr::V4(ip)) => ip.to_ipv6_mapped().into(),
            (_, ip) => ip,
        };
        let real = SocketAddr::from((ip, self.address.port()));
        [(vip, 80).into(), real].map(|to| {
            let connected = netns.enter(|| {
                let client = Socket::new(Domain::for_address(to), kind, None)?;
                client.connect(&to.into()).map(|()| client)
            });
            let client = connected.unwrap().unwrap();
            assert_eq!(client.peer_addr().unwrap().as_socket(), Some(to));
            let server = match kind {
                Type::STREAM => End::Stream(self.tcp.accept().unwrap().0),
                _ => End::Datagrams(self.udp.try_clone().unwrap()),
            };
            Pair::of(client, server)
        })
    }
}

/// Both ends of a flow, which works.
pub(crate) struct Pair {
    pub(crate) client: Socket,
    server: End,
}

/// The server's end.
enum End {
    Stream(TcpStream),
    /// That of all its clients.
    Datagrams(UdpSocket),
}

impl Pair {
    pub(crate) fn new(listener: &TcpListener, client: io::Result<TcpStream>) -> Self {
        let client = client.unwrap().into();
        Self::of(client, End::Stream(listener.accept().unwrap().0))
    }

    fn of(client: Socket, server: End) -> Self {
        client.set_read_timeout(Some(LIMIT)).unwrap();
        if let End::Stream(stream) = &server {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
        }
        let pair = Self { client, server };
        pair.assert_works();
        pair
    }

    #[track_caller]
    pub(crate) fn assert_works(&self) {
        let mut byte = [0];
        (&self.client).write_all(b"?").unwrap();
        match &self.server {
            End::Stream(stream) => {
                let mut stream = stream;
                stream.read_exact(&mut byte).unwrap();
                stream.write_all(b"!").unwrap();
            }
            End::Datagrams(socket) => {
                let (_, client) = socket.recv_from(&mut byte).unwrap();
                socket.send_to(b"!", client).unwrap();
            }
        }
        assert_eq!(byte, *b"?");
        (&self.client).read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"!");
    }

    /// The client is told at once, and so is the server where there is a connection.
    #[track_caller]
    pub(crate) fn assert_cut(&self) {
        let told = (&self.client).read(&mut [0]).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::ConnectionAborted);
        if let End::Stream(stream) = &self.server {
            let mut stream = stream;
            let told = stream.read(&mut [0]).unwrap_err();
            assert_eq!(told.kind(), io::ErrorKind::ConnectionReset);
        }
    }
}
