//! Real TCP: servers that say who they are and then repeat what they hear, and clients that count on it.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lb_testkit::Netns;

/// No exchange takes this long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server in a namespace. Dropping it lets it take no more connections; those that are open go on.
pub(crate) struct Server {
    listener: TcpListener,
    /// Who connected.
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one that calls itself `name`.
    pub(crate) fn start(host: &Netns, address: SocketAddr, name: u8) -> Self {
        let listener = host.enter(|| TcpListener::bind(address)).unwrap().unwrap();
        let peers = Arc::new(Mutex::new(Vec::new()));
        let (ears, seen) = (listener.try_clone().unwrap(), peers.clone());
        let acceptor = thread::spawn(move || {
            while let Ok((stream, peer)) = ears.accept() {
                seen.lock().unwrap().push(peer);
                thread::spawn(move || repeat(stream, name));
            }
        });
        Self {
            listener,
            peers,
            acceptor: Some(acceptor),
        }
    }

    /// The addresses of those who connected.
    pub(crate) fn peers(&self) -> Vec<IpAddr> {
        let peers = self.peers.lock().unwrap();
        peers.iter().map(SocketAddr::ip).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes who accepts, without another connection.
        let shut = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.listener),
            nix::sys::socket::Shutdown::Both,
        );
        if let (Ok(()), Some(acceptor)) = (shut, self.acceptor.take()) {
            drop(acceptor.join());
        }
    }
}

fn repeat(mut stream: TcpStream, name: u8) {
    if stream.write_all(&[name]).is_err() {
        return;
    }
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// A connection to some server.
pub(crate) struct Talk {
    stream: TcpStream,
    /// What it calls itself.
    pub(crate) server: u8,
}

impl Talk {
    /// Connects from a namespace.
    pub(crate) fn begin(host: &Netns, to: SocketAddr) -> io::Result<Self> {
        let mut stream = host
            .enter(|| TcpStream::connect_timeout(&to, PATIENCE))
            .unwrap()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        assert_eq!(stream.peer_addr()?, to);
        let mut name = [0];
        stream.read_exact(&mut name)?;
        Ok(Self {
            stream,
            server: name[0],
        })
    }

    /// Who connected.
    pub(crate) fn client(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Says `count` bytes and hears them again.
    pub(crate) fn say(&mut self, count: usize) -> io::Result<()> {
        let said: Vec<u8> = (0..=250).cycle().take(count).collect();
        let mut writer = self.stream.try_clone()?;
        let heard = thread::scope(|scope| {
            let sender = scope.spawn(|| writer.write_all(&said));
            let mut heard = vec![0; count];
            let read = self.stream.read_exact(&mut heard);
            match (read, sender.join().unwrap()) {
                (Ok(()), Ok(())) => Ok(heard),
                // Only the first to ask is told of a reset; who comes later hears that it is over.
                (Err(_), Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    Err(error)
                }
                (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            }
        })?;
        assert!(heard == said, "the server repeats what it heard");
        Ok(())
    }

    /// Ends it in good order.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        assert!(rest.is_empty());
        Ok(())
    }
}

/// So many connections by each of so many threads, one after the other, each with so many bytes. Answers how many each
/// server had; fails if one of them fails.
pub(crate) fn load(
    host: &Netns,
    to: SocketAddr,
    threads: usize,
    each: usize,
    bytes: usize,
) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..256).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for turn in 0..each {
                    let done = Talk::begin(host, to).and_then(|mut talk| {
                        counts[usize::from(talk.server)].fetch_add(1, Ordering::Relaxed);
                        talk.say(bytes)?;
                        talk.end()
                    });
                    done.unwrap_or_else(|error| panic!("connection {turn} to {to}: {error}"));
                }
            });
        }
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

/// Open connections that are talked on all the time, until [`Held::end`].
pub(crate) struct Held {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<usize>>>,
}

impl Held {
    /// Opens so many.
    pub(crate) fn begin(host: &Netns, to: SocketAddr, count: usize) -> Self {
        Self::of((0..count).map(|_| Talk::begin(host, to).unwrap()).collect())
    }

    /// Goes on with these.
    pub(crate) fn of(talks: Vec<Talk>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let threads = talks.into_iter().map(|mut talk| {
            let over = over.clone();
            thread::spawn(move || {
                let mut turns = 0;
                while !over.load(Ordering::Relaxed) {
                    talk.say(1000)?;
                    turns += 1;
                }
                talk.end()?;
                Ok(turns)
            })
        });
        Self {
            threads: threads.collect(),
            over,
        }
    }

    /// Ends all; answers how many exchanges there were. Fails if a connection broke.
    pub(crate) fn end(self) -> usize {
        let turns = self.outcomes().into_iter().map(Result::unwrap);
        turns.sum()
    }

    /// How many are over before their time.
    pub(crate) fn broken(&self) -> usize {
        let over = self.threads.iter().filter(|thread| thread.is_finished());
        over.count()
    }

    /// Ends all; answers of each how many exchanges there were, or how it broke.
    pub(crate) fn outcomes(self) -> Vec<io::Result<usize>> {
        self.over.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        threads.map(|thread| thread.join().unwrap()).collect()
    }
}

/// A server of datagrams: it answers each with its name and what it was sent, until it is dropped.
pub(crate) struct Datagrams {
    socket: UdpSocket,
    over: Arc<AtomicBool>,
    answerer: Option<JoinHandle<()>>,
}

impl Datagrams {
    /// Starts one that calls itself `name`.
    pub(crate) fn start(host: &Netns, address: SocketAddr, name: u8) -> Self {
        let socket = host.enter(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (ears, ends) = (socket.try_clone().unwrap(), over.clone());
        let answerer = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ends.load(Ordering::Relaxed) {
                let Ok((count, from)) = ears.recv_from(&mut buffer) else {
                    continue;
                };
                let answer = [&[name], &buffer[..count]].concat();
                // Who asked may be gone.
                drop(ears.send_to(&answer, from));
            }
        });
        Self {
            socket,
            over,
            answerer: Some(answerer),
        }
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(answerer) = self.answerer.take() {
            drop(answerer.join());
        }
    }
}

/// Asks by one datagram from a port of its own, and again where it was lost. Answers who answered.
pub(crate) fn ask(host: &Netns, to: SocketAddr, question: &[u8]) -> io::Result<u8> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = host.enter(|| UdpSocket::bind(any)).unwrap()?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut last = Err(io::ErrorKind::TimedOut.into());
    for _ in 0..5 {
        socket.send_to(question, to)?;
        let mut buffer = [0; 2048];
        match socket.recv_from(&mut buffer) {
            Ok((count, from)) => {
                assert_eq!(from, to, "the VIP answers");
                assert_eq!(&buffer[1..count], question);
                return Ok(buffer[0]);
            }
            Err(error) => last = Err(error),
        }
    }
    last
}
