//! Flows of every family, and what becomes of both their ends.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use lb_testkit::Netns;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A server that accepts flows.
pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Listens on `ip`, at a port that the kernel chooses.
    pub(crate) fn start(netns: &Netns, ip: impl Into<IpAddr>) -> Self {
        let ip = ip.into();
        let listener = netns.enter(|| TcpListener::bind((ip, 0)));
        let listener = listener.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// A flow through the VIP, whose backend this is, and a direct one, from sockets of the same family.
    pub(crate) fn both(&self, netns: &Netns, vip: IpAddr) -> [Pair; 2] {
        let ip = match (vip, self.address.ip()) {
            (IpAddr::V6(_), IpAddr::V4(ip)) => ip.to_ipv6_mapped().into(),
            (_, ip) => ip,
        };
        let real = SocketAddr::from((ip, self.address.port()));
        [(vip, 80).into(), real].map(|to| {
            let client = netns.enter(|| TcpStream::connect(to)).unwrap();
            let pair = Pair::new(&self.listener, client);
            assert_eq!(pair.client.peer_addr().unwrap(), to);
            pair
        })
    }
}

/// Both ends of a flow, which works.
pub(crate) struct Pair {
    pub(crate) client: TcpStream,
    server: TcpStream,
}

impl Pair {
    pub(crate) fn new(listener: &TcpListener, client: io::Result<TcpStream>) -> Self {
        let client = client.unwrap();
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(LIMIT)).unwrap();
        }
        let pair = Self { client, server };
        pair.assert_works();
        pair
    }

    #[track_caller]
    pub(crate) fn assert_works(&self) {
        let mut byte = [0];
        (&self.client).write_all(b"?").unwrap();
        (&self.server).read_exact(&mut byte).unwrap();
        (&self.server).write_all(b"!").unwrap();
        (&self.client).read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"!");
    }

    /// The client is told at once, and so is the server.
    #[track_caller]
    pub(crate) fn assert_cut(&self) {
        let kind = |mut end: &TcpStream| end.read(&mut [0]).unwrap_err().kind();
        assert_eq!(kind(&self.client), io::ErrorKind::ConnectionAborted);
        assert_eq!(kind(&self.server), io::ErrorKind::ConnectionReset);
    }
}
