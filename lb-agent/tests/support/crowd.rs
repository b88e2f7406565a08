//! Thousands of flows that are open at once, and servers that hold their other ends.

use std::{
    collections::HashMap,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::{AsRawFd as _, RawFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lb_testkit::Netns;
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        resource::{Resource, getrlimit, setrlimit},
    },
};
use socket2::{Domain, Socket, Type};

/// How many flows no end of an agent may break.
pub(crate) const MANY: usize = 10_000;

/// Servers on loopback addresses of a namespace that send back what they hear. Dropping this ends them.
pub(crate) struct Echoes {
    pub(crate) addresses: Vec<SocketAddrV4>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echoes {
    /// Starts one on 127.0.3.1, 127.0.3.2 and so on, each at a port that the kernel chooses.
    pub(crate) fn start(netns: &Netns, servers: u8) -> Self {
        let (tell, told) = mpsc::channel();
        let done = Arc::<AtomicBool>::default();
        let (path, seen) = (netns.path(), Arc::clone(&done));
        let thread = thread::spawn(move || {
            stand_apart();
            let listeners = listen(path, servers);
            let address = |it: &Socket| it.local_addr().unwrap().as_socket_ipv4().unwrap();
            tell.send(listeners.iter().map(address).collect()).unwrap();
            serve(&listeners, &seen);
        });
        Self {
            addresses: told.recv().unwrap(),
            done,
            thread: Some(thread),
        }
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Gives this thread a table of descriptors of its own: there is not always room for both ends in one. What its copy of
/// the old one holds is closed in it, for it would live on here when its owners have closed it.
fn stand_apart() {
    unshare(CloneFlags::CLONE_FILES).unwrap();
    let open = fs::read_dir("/proc/thread-self/fd").unwrap();
    let open: Vec<RawFd> = open
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    for descriptor in open.into_iter().filter(|&it| it > 2) {
        // The list itself was one of them.
        let _ = nix::unistd::close(descriptor);
    }
}

fn listen(netns: PathBuf, servers: u8) -> Vec<Socket> {
    setns(fs::File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    let listen = |last| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let address = SocketAddr::from(([127, 0, 3, last], 0));
        socket.bind(&address.into()).unwrap();
        // As many as a client opens before it waits for an answer.
        socket.listen(i32::try_from(AT_ONCE).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    (1..=servers).map(listen).collect()
}

/// Not by a runtime, which would have descriptors of the whole process in mind.
fn serve(listeners: &[Socket], done: &AtomicBool) {
    let ready = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let number = |socket: &Socket| u64::try_from(socket.as_raw_fd()).unwrap();
    let watch = |socket: &Socket| {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number(socket));
        ready.add(socket, event).unwrap();
    };
    listeners.iter().for_each(watch);
    let mut flows = HashMap::new();
    let mut events = [EpollEvent::empty(); 64];
    while !done.load(Ordering::Relaxed) {
        // So often it looks for its end.
        let seen = ready.wait(&mut events, EpollTimeout::from(20_u8)).unwrap();
        for at in events[..seen].iter().map(EpollEvent::data) {
            if let Some(listener) = listeners.iter().find(|it| number(it) == at) {
                // Whoever came may have left.
                if let Ok((flow, _)) = listener.accept() {
                    watch(&flow);
                    flows.insert(number(&flow), flow);
                }
                continue;
            }
            let mut flow = &flows[&at];
            let mut room = [0; 64];
            let heard = flow.read(&mut room).unwrap_or_default();
            if heard == 0 || flow.write_all(&room[..heard]).is_err() {
                flows.remove(&at);
            }
        }
    }
}

/// [`MANY`] flows through a VIP.
pub(crate) struct Crowd {
    vip: SocketAddr,
    clients: Vec<TcpStream>,
}

impl Crowd {
    /// Opens them. Each is answered by its server, which sends back what it hears.
    pub(crate) fn open(netns: &Netns, vip: Ipv4Addr) -> Self {
        make_room();
        let mut crowd = Self {
            vip: SocketAddr::from((vip, 80)),
            clients: Vec::with_capacity(MANY),
        };
        let opened = netns.enter(|| {
            while crowd.clients.len() < MANY {
                let connect = |_| TcpStream::connect(crowd.vip).unwrap();
                let some: Vec<_> = (0..AT_ONCE).map(connect).collect();
                crowd.assert_answered(&some);
                crowd.clients.extend(some);
            }
        });
        opened.unwrap();
        crowd
    }

    /// A byte goes both ways on each of them, and each client sees the VIP.
    #[track_caller]
    pub(crate) fn assert_alive(&self) {
        self.assert_answered(&self.clients);
    }

    #[track_caller]
    fn assert_answered(&self, clients: &[TcpStream]) {
        let bytes = || (0..=u8::MAX).cycle();
        for (mut client, byte) in clients.iter().zip(bytes()) {
            client.write_all(&[byte]).unwrap();
        }
        for (mut client, byte) in clients.iter().zip(bytes()) {
            client.set_read_timeout(Some(LIMIT)).unwrap();
            let mut heard = [0];
            client.read_exact(&mut heard).unwrap();
            assert_eq!(heard, [byte]);
            assert_eq!(client.peer_addr().unwrap(), self.vip);
        }
    }
}

/// Flows that wait for their server at the same time, of all of them.
const AT_ONCE: usize = MANY / 20;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Lets this process have a descriptor for each flow, and some for the rest of the test.
fn make_room() {
    let wanted = u64::try_from(MANY).unwrap() + 2000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < wanted {
        let raised = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted));
        raised.unwrap_or_else(|error| panic!("{wanted} open files: {error}; see `ulimit -Hn`"));
    }
}
