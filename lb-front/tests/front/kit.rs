//! A client and a backend that show every byte, and a front between them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use lb_front::{
    Front, FrontStats, Limits, Listeners, Settings, Workers,
    routes::{RouteBackend, RouteService, RoutesChange},
};
use tokio::runtime::Runtime;

/// Nothing here takes longer unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` gives something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "still not so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// One request as a backend saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which of its connections it came on, counted from 0.
    pub(crate) connection: usize,
    pub(crate) head: String,
    /// As it came, chunks and all.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// What a backend does after a request.
pub(crate) enum Reply {
    Keep(Vec<u8>),
    Close(Vec<u8>),
    /// Sends, then echoes whatever comes.
    Echo(Vec<u8>),
    /// Sends, rests for so long, and sends the rest.
    Rest(Vec<u8>, Duration, Vec<u8>),
    /// Sends, then neither sends nor closes.
    Stall(Vec<u8>),
    /// The connection is someone else's, with whatever has come on it already.
    Take(Box<dyn FnOnce(Client) + Send>),
}

/// A backend that remembers what it saw.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Open connections.
    open: Arc<Mutex<usize>>,
}

impl Backend {
    pub(crate) fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_after(|_, _| {}, reply)
    }

    /// What stands before the first request of a connection is for `first`.
    pub(crate) fn start_after(
        first: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            open: Arc::default(),
        };
        let (shared, reply) = (backend.clone(), Arc::new((first, reply)));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (shared, reply) = (shared.clone(), reply.clone());
                *shared.open.lock().unwrap() += 1;
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    reply.0(connection, &mut stream);
                    shared.serve(&mut stream, connection, &reply.1);
                    *shared.open.lock().unwrap() -= 1;
                });
            }
        });
        backend
    }

    /// Answers everything with its name.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::start(move |_| Reply::Keep(ok(name)))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn open(&self) -> usize {
        *self.open.lock().unwrap()
    }

    fn serve(&self, stream: &mut TcpStream, connection: usize, reply: &dyn Fn(&Seen) -> Reply) {
        let mut buffer = Vec::new();
        while let Some(head) = read_until(stream, &mut buffer, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&head).into_owned();
            let body = read_body(stream, &mut buffer, &head).unwrap_or_default();
            let seen = Seen {
                connection,
                head,
                body,
            };
            self.seen.lock().unwrap().push(seen.clone());
            match reply(&seen) {
                Reply::Keep(bytes) => drop(stream.write_all(&bytes)),
                Reply::Close(bytes) => return drop(stream.write_all(&bytes)),
                Reply::Echo(bytes) => {
                    drop(stream.write_all(&bytes));
                    drop(stream.write_all(&buffer));
                    let mut copy = stream.try_clone().unwrap();
                    drop(std::io::copy(stream, &mut copy));
                    return;
                }
                Reply::Rest(bytes, rest, more) => {
                    drop(stream.write_all(&bytes));
                    thread::sleep(rest);
                    drop(stream.write_all(&more));
                }
                Reply::Stall(bytes) => {
                    drop(stream.write_all(&bytes));
                    drop(stream.read(&mut [0]));
                    return;
                }
                Reply::Take(taker) => {
                    let mut client = Client::over(stream.try_clone().unwrap());
                    client.buffer = buffer;
                    return taker(client);
                }
            }
        }
    }
}

/// A whole 200 answer.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A client's connection.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

/// What a client got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::within(stream)
    }
}

impl<S: Read + Write> Client<S> {
    /// Over whatever it is.
    pub(crate) fn within(stream: S) -> Self {
        let buffer = Vec::new();
        Self { stream, buffer }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        // The front may close before everything is out; what it answered says more.
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        let body = read_body(&mut self.stream, &mut self.buffer, &head);
        let body = body.unwrap_or_else(|| self.rest());
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
            body: String::from_utf8_lossy(&body).into_owned(),
            head,
        }
    }

    /// The head alone, where no body follows.
    #[track_caller]
    pub(crate) fn head(&mut self) -> String {
        let head = read_until(&mut self.stream, &mut self.buffer, b"\r\n\r\n");
        let head = head.unwrap_or_else(|| {
            panic!("no answer, but {:?}", String::from_utf8_lossy(&self.buffer))
        });
        String::from_utf8(head).unwrap()
    }

    /// Everything up to the end of the stream.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        self.stream
            .read_to_end(&mut rest)
            .expect("the end of the stream, not a reset");
        rest
    }

    /// Exactly these many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(
                read_more(&mut self.stream, &mut self.buffer),
                "the stream ended"
            );
        }
        self.buffer.drain(..length).collect()
    }
}

fn read_more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    let read = stream.read(&mut piece).unwrap_or(0);
    buffer.extend_from_slice(&piece[..read]);
    read > 0
}

fn read_until(stream: &mut impl Read, buffer: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return Some(buffer.drain(..at + end.len()).collect());
        }
        read_more(stream, buffer).then_some(())?;
    }
}

/// `None`: it ends with the connection, or there is none.
fn read_body(stream: &mut impl Read, buffer: &mut Vec<u8>, head: &str) -> Option<Vec<u8>> {
    if field(head, "transfer-encoding").is_some() {
        let trailers = field(head, "trailer").is_some();
        let end: &[u8] = if trailers { b"\r\n\r\n" } else { b"0\r\n\r\n" };
        return read_until(stream, buffer, end);
    }
    let length: usize = field(head, "content-length")?.parse().unwrap();
    while buffer.len() < length {
        read_more(stream, buffer).then_some(())?;
    }
    Some(buffer.drain(..length).collect())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// A front with its threads in this process.
pub(crate) struct TestFront {
    pub(crate) address: SocketAddr,
    tls: Option<SocketAddr>,
    pub(crate) front: Arc<Front>,
    workers: Option<Workers>,
    runtime: Runtime,
}

impl TestFront {
    pub(crate) fn start(limits: Limits, workers: usize) -> Self {
        Self::start_for(limits, workers, PATIENCE)
    }

    /// Requests in flight have `grace` when it drains.
    pub(crate) fn start_for(limits: Limits, workers: usize, grace: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, limits, workers, grace)
    }

    pub(crate) fn on(
        listener: TcpListener,
        limits: Limits,
        workers: usize,
        grace: Duration,
    ) -> Self {
        Self::on_all(vec![listener].into(), limits, workers, grace)
    }

    /// One worker that also speaks TLS, with the service `web` on `backends`.
    pub(crate) fn with_tls(limits: Limits, backends: &[&Backend]) -> Self {
        let bind = || vec![TcpListener::bind("127.0.0.1:0").unwrap()];
        let listeners = Listeners {
            plain: bind(),
            tls: bind(),
        };
        let front = Self::on_all(listeners, limits, 1, PATIENCE);
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        front.publish(&addresses);
        front
    }

    fn on_all(listeners: Listeners, limits: Limits, workers: usize, grace: Duration) -> Self {
        let address = |listeners: &[TcpListener]| Some(listeners.first()?.local_addr().unwrap());
        let (plain, tls) = (address(&listeners.plain), address(&listeners.tls));
        for listener in listeners.all() {
            // As the agent makes them.
            let socket = socket2::SockRef::from(listener);
            socket.set_tcp_nodelay(true).unwrap();
        }
        let front = Front::new(limits);
        let workers = Workers::start(&front, &listeners, workers, grace).unwrap();
        Self {
            address: plain.unwrap(),
            tls,
            front,
            workers: Some(workers),
            runtime: Runtime::new().unwrap(),
        }
    }

    /// Where it speaks TLS.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.tls.expect("a front that speaks TLS")
    }

    /// One worker with the usual limits and the service `web` on `backends`.
    pub(crate) fn with(backends: &[&Backend]) -> Self {
        Self::limited(Limits::default(), backends)
    }

    pub(crate) fn limited(limits: Limits, backends: &[&Backend]) -> Self {
        let front = Self::start(limits, 1);
        front.publish(
            &backends
                .iter()
                .map(|backend| backend.address)
                .collect::<Vec<_>>(),
        );
        front
    }

    pub(crate) fn publish(&self, backends: &[SocketAddr]) {
        self.front.publish(&routes(backends), &Settings::default());
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// The answer to `request` on a connection of its own.
    #[track_caller]
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        self.client().send(request).answer()
    }

    pub(crate) fn stats(&self) -> FrontStats {
        self.runtime
            .block_on(self.workers.as_ref().unwrap().stats())
    }

    /// Begins to drain; the handle ends when the front has, with its last figures.
    pub(crate) fn drain(&mut self) -> thread::JoinHandle<FrontStats> {
        let workers = self.workers.take().unwrap();
        thread::spawn(move || Runtime::new().unwrap().block_on(workers.drain()))
    }
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// The service `web` with usable backends at `addresses`, and `down` without any.
pub(crate) fn routes(addresses: &[SocketAddr]) -> RoutesChange {
    let service = |label: &str, addresses: &[SocketAddr]| {
        let backend = |&address| RouteBackend {
            address,
            usable: true,
            weight: 1,
            canary: false,
            cut: None,
        };
        Some(Arc::new(RouteService {
            label: label.into(),
            backends: addresses.iter().map(backend).collect(),
            access: None,
            h2c: false,
            rules: None,
        }))
    };
    let hosts = [
        ("web", 1),
        ("web.localhost", 1),
        ("alias.example", 1),
        ("down", 2),
        ("down.localhost", 2),
    ];
    RoutesChange {
        hosts: hosts
            .map(|(host, place)| (host.to_owned(), Some(place)))
            .into(),
        services: vec![(1, service("web", addresses)), (2, service("down", &[]))],
        paths: Vec::new(),
        host_addresses: Some([].into()),
        users: Vec::new(),
    }
}

/// An address of its own where nobody listens: the socket that has it is there until the process ends, so that no other test
/// gets it.
pub(crate) fn refusing() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// A `line` of the access log with `T` for moments and times, which are the only numbers with a point or in brackets.
pub(crate) fn golden(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let time = word.split_once('.').is_some_and(|(whole, part)| {
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            part.len() == 3 && digits(whole) && digits(part)
        });
        let moment = word.starts_with('[') || word == "+0000]";
        if time || moment { "T" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}
