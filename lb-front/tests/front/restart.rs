//! All backends are restarted, one after the other, and no client notices.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lb_front::Limits;

use crate::kit::{GET, TestFront, eventually, ok};

/// A server that can be stopped as good ones stop: it accepts no more, answers what it has begun to read, closes.
struct Server {
    address: SocketAddr,
    name: usize,
    stop: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Server {
    fn start(address: SocketAddr, name: usize) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let accepting = thread::spawn(move || {
            let mut connections = Vec::new();
            loop {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let stopped = stopped.clone();
                        connections.push(thread::spawn(move || serve(stream, name, &stopped)));
                    }
                    // Not before its queue is empty.
                    Err(_) if stopped.load(Ordering::SeqCst) => break,
                    Err(_) => thread::sleep(TICK),
                }
            }
            drop(listener);
            connections.into_iter().for_each(|it| it.join().unwrap());
        });
        Self {
            address,
            name,
            stop,
            accepting,
        }
    }

    fn restart(self, while_down: impl FnOnce()) -> Self {
        self.stop.store(true, Ordering::SeqCst);
        self.accepting.join().unwrap();
        while_down();
        Self::start(self.address, self.name)
    }
}

fn serve(mut stream: TcpStream, name: usize, stop: &AtomicBool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(TICK)).unwrap();
    let mut head = Vec::new();
    let (mut tunnel, mut used) = (false, false);
    loop {
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(read) if tunnel => drop(stream.write_all(&piece[..read])),
            Ok(read) => head.extend(&piece[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // A new connection brings its request along.
                if used && head.is_empty() && stop.load(Ordering::SeqCst) {
                    return;
                }
            }
            Err(_) => return,
        }
        if head.ends_with(b"\r\n\r\n") {
            tunnel = String::from_utf8_lossy(&head)
                .to_lowercase()
                .contains("upgrade: ");
            let answer = if tunnel {
                format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-Server: {name}\r\n\r\n").into()
            } else {
                ok("a")
            };
            if stream.write_all(&answer).is_err() {
                return;
            }
            head.clear();
            used = true;
        }
    }
}

/// What the clients of a restart share.
#[derive(Default)]
struct Load {
    end: AtomicBool,
    served: AtomicUsize,
    echoed: AtomicUsize,
    /// How often each server was stopped, and started again.
    stops: [AtomicUsize; SERVERS],
    starts: [AtomicUsize; SERVERS],
}

impl Load {
    fn is_over(&self) -> bool {
        self.end.load(Ordering::SeqCst)
    }

    /// One client with keep-alive.
    fn ask(&self, front: &TestFront) {
        let mut client = front.client();
        while !self.is_over() {
            let answer = client.send(GET).answer();
            assert_eq!(answer.status, 200, "{}", answer.body);
            self.served.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// One client with a WebSocket, which ends only with its server.
    fn talk(&self, front: &TestFront) {
        let open =
            "GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        while !self.is_over() {
            let before = self.starts.each_ref().map(|it| it.load(Ordering::SeqCst));
            let mut client = front.client();
            let head = client.send(open).head();
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            let server = head.to_lowercase().split("x-server: ").nth(1).unwrap()[..1].to_owned();
            let server: usize = server.parse().unwrap();
            let mut echo = [0; 4];
            while !self.is_over() {
                let sent = client.stream.write_all(b"ping");
                if sent
                    .and_then(|()| client.stream.read_exact(&mut echo))
                    .is_err()
                {
                    let stops = self.stops[server].load(Ordering::SeqCst);
                    assert!(stops > before[server], "cut, but server {server} lives");
                    break;
                }
                assert_eq!(&echo, b"ping");
                self.echoed.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Until some more requests were served, and bytes echoed.
    fn go_on(&self) {
        let now = || [&self.served, &self.echoed].map(|count| count.load(Ordering::SeqCst));
        let before = now();
        eventually("the load goes on", || {
            let now = now();
            (self.is_over() || now[0] > before[0] + 100 && now[1] > before[1] + 10).then_some(())
        });
    }
}

/// Tells the others when one of them fails.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_rolling_restart_of_all_backends_costs_no_request_whether_it_is_announced_or_not() {
    let any = "127.0.0.1:0".parse().unwrap();
    let mut servers: Vec<_> = (0..SERVERS).map(|name| Server::start(any, name)).collect();
    let all: Vec<_> = servers.iter().map(|server| server.address).collect();
    let front = TestFront::start(Limits::default(), 2);
    front.publish(&all);
    let load = Load::default();
    thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                let _over = Over(&load);
                load.ask(&front);
            });
        }
        for _ in 0..4 {
            threads.spawn(|| {
                let _over = Over(&load);
                load.talk(&front);
            });
        }
        let _over = Over(&load);
        for announced in [true, false, true] {
            for at in 0..SERVERS {
                load.go_on();
                if announced {
                    let others = all.iter().copied().filter(|it| *it != all[at]);
                    front.publish(&others.collect::<Vec<_>>());
                    load.go_on();
                }
                load.stops[at].fetch_add(1, Ordering::SeqCst);
                let server = servers.remove(at).restart(|| load.go_on());
                servers.insert(at, server);
                load.starts[at].fetch_add(1, Ordering::SeqCst);
                front.publish(&all);
            }
        }
        load.go_on();
    });
    let stats = front.stats();
    let failed: Vec<_> = stats
        .requests
        .iter()
        .filter(|it| it.class == "5xx")
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(load.served.into_inner() > 1000);
}

const SERVERS: usize = 3;

/// How soon a server notices that it is to stop.
const TICK: Duration = Duration::from_millis(2);
