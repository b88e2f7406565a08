//! What large bodies cost, and what answers do that nobody takes, in a process of its own.
#![expect(
    clippy::unwrap_used,
    reason = "a test's tools may fail as loudly as the test itself"
)]

#[expect(dead_code, unused_imports, reason = "the other tests use the rest")]
#[path = "front/kit/mod.rs"]
mod kit;
#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "front/kit_h2.rs"]
mod kit_h2;
#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "front/sides.rs"]
mod sides;

use std::{
    io::Write as _,
    net::{Shutdown, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kit::{PATIENCE, TestFront, routes};
use lb_front::{Limits, Settings};
use sides::{Asking, Origin, Protocol, Side};
use tokio::runtime::{Handle, Runtime};

/// The agent's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MB: usize = 1024 * 1024;
/// Of a body.
const SIZE: usize = 256 * MB;
const PIECE: usize = 64 * 1024;
/// After so much the reader rests.
const BEFORE_REST: usize = 8 * MB;
/// What the kernel may hold between the two ends, in four sockets.
const IN_KERNEL: usize = 48 * MB;
/// What the front, and the two ends, may have more of in memory.
const BOUND: usize = 24 * MB;

#[test]
fn memory_stays_flat() {
    let runtime = Runtime::new().unwrap();
    let (one, two) = (Protocol::One, Protocol::Two);
    for (client, backend) in [(one, one), (two, one), (one, two)] {
        let origin = Origin::start(backend);
        let front = TestFront::start(Limits::default(), 1);
        origin.publish(&front);
        for upload in [false, true] {
            let what = format!("{client:?} to {backend:?}, upload: {upload}");
            let open = async {
                let asking = Asking::begin(&front, client, true).await;
                let peer = origin.asked().answer();
                let (client, alive) = asking.answered().await;
                (client, peer, alive)
            };
            let (client, peer, _alive) = runtime.block_on(open);
            let (from, to) = if upload {
                (client, peer)
            } else {
                (peer, client)
            };
            carry(&what, &runtime, from, to);
        }
    }
    closed_windows(&runtime);
}

/// All of a body, of which the reader takes a part, rests, and takes the rest.
fn carry(what: &str, runtime: &Runtime, mut from: Side, mut to: Side) {
    let before = resident();
    let begun = Instant::now();
    let sent = Arc::new(AtomicUsize::new(0));
    let writer = {
        let (sent, handle) = (sent.clone(), runtime.handle().clone());
        thread::spawn(move || {
            let piece = Bytes::from(vec![b'x'; PIECE]);
            let all = async {
                for _ in 0..SIZE / PIECE {
                    from.say(piece.clone()).await;
                    sent.fetch_add(PIECE, Ordering::Relaxed);
                }
                from.end().await;
                from
            };
            handle.block_on(all)
        })
    };
    let taken = take(runtime.handle(), &mut to, BEFORE_REST);
    let waiting = settled(&sent);
    assert!(
        waiting < taken + IN_KERNEL,
        "{what}: {} MB went out while {} MB were taken",
        waiting / MB,
        taken / MB
    );
    let at_rest = resident().saturating_sub(before);
    let taken = taken + take(runtime.handle(), &mut to, usize::MAX);
    assert_eq!(taken, SIZE, "{what}");
    let at_end = resident().saturating_sub(before);
    let more = at_rest.max(at_end);
    println!(
        "{what}: {} KB more, {} MB waited, {:?}",
        more / 1024,
        waiting / MB,
        begun.elapsed()
    );
    assert!(more < BOUND, "{what}: {} MB more", more / MB);
    drop(writer.join().unwrap());
}

/// At least so much, or up to the end.
fn take(handle: &Handle, side: &mut Side, most: usize) -> usize {
    let some = async {
        let mut taken = 0;
        while taken < most {
            match side.hear().await {
                Some(piece) => taken += piece.len(),
                None => break,
            }
        }
        taken
    };
    handle.block_on(some)
}

/// What is counted once it grows no more.
fn settled(count: &AtomicUsize) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut last = (count.load(Ordering::Relaxed), Instant::now());
    while last.1.elapsed() < Duration::from_millis(300) {
        assert!(Instant::now() < deadline, "it goes on and on");
        thread::sleep(Duration::from_millis(10));
        let now = count.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

/// Many answers, each far larger than what is kept of it, for clients that open no window.
fn closed_windows(runtime: &Runtime) {
    const STREAMS: usize = 200;
    const ANSWER: usize = 16 * MB;
    /// What hyper keeps of an answer on its way, and reads ahead.
    const EACH: usize = 384 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = TestFront::start(Limits::default(), 1);
    let routes = routes(&[listener.local_addr().unwrap()]);
    front.front.publish(&routes, &Settings::default());
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let counted = counted.clone();
            thread::spawn(move || {
                let mut wire = kit::Client::over(stream.unwrap());
                wire.head();
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n"
                ));
                let piece = [b'x'; PIECE];
                for _ in 0..ANSWER / PIECE {
                    if wire.stream.write_all(&piece).is_err() {
                        return;
                    }
                    counted.fetch_add(PIECE, Ordering::Relaxed);
                }
                drop(wire.stream.shutdown(Shutdown::Both));
            });
        }
    });
    let before = resident();
    let asked = async {
        let mut asked = Vec::new();
        for _ in 0..STREAMS / 100 {
            let stream = tokio::net::TcpStream::connect(front.address).await.unwrap();
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(0);
            let (requests, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
            tokio::spawn(connection);
            for _ in 0..100 {
                let mut ready = requests.clone().ready().await.unwrap();
                asked.push((ready.send_request(kit_h2::get(), true).unwrap(), ready));
            }
        }
        let mut answers = Vec::new();
        for ((answer, _), ready) in asked {
            answers.push((answer.await.unwrap(), ready));
        }
        answers
    };
    let answers = runtime.block_on(asked);
    assert_eq!(answers.len(), STREAMS);
    let waiting = settled(&sent);
    let more = resident().saturating_sub(before);
    println!(
        "{STREAMS} closed windows: {} KB more for each, {} MB went out",
        more / 1024 / STREAMS,
        waiting / MB
    );
    assert!(waiting < STREAMS * ANSWER, "all of it went out");
    assert!(
        more < STREAMS * EACH,
        "{} KB for each",
        more / 1024 / STREAMS
    );
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
