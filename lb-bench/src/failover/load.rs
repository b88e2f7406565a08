//! A steady load: so many new flows a second, whatever became of those before.

use std::{
    io::{ErrorKind, Read as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// Time between two flows.
const EVERY: Duration = Duration::from_millis(1);

/// How long a client waits. Longer than two retransmissions of a SYN, by which the kernel suspects a backend.
const GIVES_UP: Duration = Duration::from_secs(5);

/// Each has one flow at a time. A third of the flows waits for a silent backend until it is suspected, and then until the
/// client gives up; these must not keep the others from being begun.
const THREADS: usize = 1500;

/// What became of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The backend of this number answered.
    Reached(u8),
    /// `ECONNREFUSED`.
    Refused,
    /// Nobody answered in time.
    Unanswered,
    /// It was connected, and broke off before the answer.
    Broken,
    /// The connect failed otherwise.
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    pub(super) outcome: Outcome,
}

impl Flow {
    pub(super) fn failed(&self) -> bool {
        !matches!(self.outcome, Outcome::Reached(_))
    }
}

/// Ends when it is dropped.
pub(super) struct Load {
    shared: Arc<Shared>,
    flows: Receiver<(usize, Flow)>,
    /// Ended, and not handed out yet.
    ended: Vec<Flow>,
    /// Whether the flow of a number has ended.
    done: Vec<bool>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    start: Instant,
    /// The number of the next flow.
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    /// Starts it, in the namespace of the caller.
    pub(super) fn start(vip: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            start: Instant::now(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let (sender, flows) = channel();
        let threads = (0..THREADS).map(|_| {
            let (shared, sender) = (Arc::clone(&shared), sender.clone());
            thread::spawn(move || shared.client(vip, &sender))
        });
        Self {
            threads: threads.collect(),
            shared,
            flows,
            ended: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Waits until a flow that is begun from now on reaches the backend of this number.
    ///
    /// # Errors
    /// When none does within `limit`.
    pub(super) fn await_flow_to(&mut self, number: u8, limit: Duration) -> Result<()> {
        let now = Instant::now();
        loop {
            let (_, flow) = self.receive()?;
            if flow.begun >= now && flow.outcome == Outcome::Reached(number) {
                self.ended.clear();
                return Ok(());
            }
            ensure!(
                now.elapsed() < limit,
                "no flow reaches the backend {number} within {limit:?}"
            );
        }
    }

    /// The flows that ended after `from` and were begun before `to`, when all of them have ended.
    ///
    /// # Errors
    /// When the clients have ended.
    pub(super) fn until(&mut self, from: Instant, to: Instant) -> Result<Vec<Flow>> {
        while Instant::now() < to {
            self.receive()?;
        }
        // Whoever has its number by now may have begun before.
        let last = self.shared.next.load(Ordering::SeqCst);
        let mut missing = last - self.done.iter().take(last).filter(|&&done| done).count();
        while missing > 0 {
            let (number, _) = self.receive()?;
            missing -= usize::from(number < last);
        }
        let flows = self.ended.drain(..);
        Ok(flows
            .filter(|flow| flow.ended >= from && flow.begun < to)
            .collect())
    }

    fn receive(&mut self) -> Result<(usize, Flow)> {
        let received = self.flows.recv_timeout(GIVES_UP * 6);
        let (number, flow) = received.context("no flow ends any more")?;
        if self.done.len() <= number {
            self.done.resize(number + 1, false);
        }
        self.done[number] = true;
        self.ended.push(flow);
        Ok((number, flow))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // It cannot have panicked without a message.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn client(&self, vip: SocketAddr, sender: &Sender<(usize, Flow)>) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            // This is the pace of the load; nothing is waited for.
            let due = self.start + EVERY * u32::try_from(number).unwrap_or(u32::MAX);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let begun = Instant::now();
            let outcome = visit(vip);
            let flow = Flow {
                begun,
                ended: Instant::now(),
                outcome,
            };
            if sender.send((number, flow)).is_err() {
                return;
            }
        }
    }
}

fn visit(vip: SocketAddr) -> Outcome {
    let mut stream = match TcpStream::connect_timeout(&vip, GIVES_UP) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                ErrorKind::ConnectionRefused => Outcome::Refused,
                ErrorKind::TimedOut => Outcome::Unanswered,
                _ => Outcome::Failed,
            };
        }
    };
    if stream.set_read_timeout(Some(GIVES_UP)).is_err() {
        return Outcome::Failed;
    }
    let mut number = [0];
    match stream.read_exact(&mut number) {
        Ok(()) => Outcome::Reached(number[0]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Outcome::Unanswered,
        Err(_) => Outcome::Broken,
    }
}
