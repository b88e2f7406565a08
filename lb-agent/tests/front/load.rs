//! Clients that notice whatever a front does to them: a connection that is refused or reset, a request without its answer,
//! an end that was not announced.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::kit::{Backend, Client, GET, Reply, Seen, eventually, ok};

/// A backend that answers `name`, and echoes after an upgrade.
pub(crate) fn backend(name: &'static str) -> Backend {
    Backend::start(move |seen: &Seen| match seen.field("upgrade") {
        Some(_) => Reply::Echo(SWITCHED.into()),
        None => Reply::Keep(ok(name)),
    })
}

/// All of them, each on a thread of its own, which panics where something is lost.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<(&'static str, Arc<AtomicUsize>, JoinHandle<()>)>,
}

impl Load {
    pub(crate) fn on(front: SocketAddr) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            clients: Vec::new(),
        };
        for _ in 0..2 {
            load.client("new connections", move || new_connection(front));
        }
        for pause in [0, 1, 20, 300] {
            let mut open = None;
            load.client("kept connections", move || {
                kept_connection(front, &mut open);
                thread::sleep(Duration::from_millis(pause));
            });
        }
        load.client("short upgrades", move || {
            let mut socket = upgraded(front);
            echo(&mut socket);
        });
        let mut socket = upgraded(front);
        load.client("a long upgrade", move || echo(&mut socket));
        load
    }

    fn client(&mut self, what: &'static str, mut ask: impl FnMut() + Send + 'static) {
        let (stop, count) = (self.stop.clone(), Arc::<AtomicUsize>::default());
        let counted = count.clone();
        let client = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                ask();
                counted.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PACE);
            }
        });
        self.clients.push((what, count, client));
    }

    /// Waits until each has done what it does a few times more.
    #[track_caller]
    pub(crate) fn await_more(&self) {
        for (what, count, client) in &self.clients {
            let enough = count.load(Ordering::Relaxed) + 4;
            eventually(what, || {
                assert!(!client.is_finished(), "{what}: something was lost");
                (count.load(Ordering::Relaxed) >= enough).then_some(())
            });
        }
    }

    /// Ends it; how often something was asked, and nothing was lost.
    #[track_caller]
    pub(crate) fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let asked = self.clients.into_iter().map(|(what, count, client)| {
            assert!(client.join().is_ok(), "{what}: something was lost");
            count.load(Ordering::Relaxed)
        });
        asked.sum()
    }
}

fn new_connection(front: SocketAddr) {
    let mut client = Client::connect(front);
    let request = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!(client.send(request).answer().status, 200);
    assert_eq!(client.rest(), b"");
}

/// Asks on the connection that is open, which may end only if an answer has announced it.
fn kept_connection(front: SocketAddr, open: &mut Option<Client>) {
    let client = open.get_or_insert_with(|| Client::connect(front));
    let answer = client.send(GET).answer();
    assert_eq!(answer.status, 200);
    if answer.field("connection") == Some("close") {
        assert_eq!(client.rest(), b"");
        *open = None;
    }
}

fn upgraded(front: SocketAddr) -> Client {
    let mut client = Client::connect(front);
    let asks = "\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let head = client.send(GET.replace("\r\n\r\n", asks)).head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

fn echo(client: &mut Client) {
    for _ in 0..8 {
        assert_eq!(client.send("ping").bytes(4), b"ping");
    }
}

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Between two tries of each client.
const PACE: Duration = Duration::from_millis(2);
