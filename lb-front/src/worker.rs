//! A worker: one thread with its own runtime, listeners, pool and counters. Workers share the routing table
//! and nothing else.

use std::{
    cell::{Cell, RefCell},
    io,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Front, Limits, announced,
    backend::pool::{self, Pool},
    client::{ClientState, Ends},
    connection,
    crowd::Crowd,
    forward::Ids,
    log::Sink,
    passwords::Passwords,
    stats::{Counters, FrontStats},
    table::Table,
    tls,
    warm::Warm,
    workers::Listeners,
};

/// What a worker's connections have in common.
pub(super) struct Worker {
    front: Arc<Front>,
    /// The routing table as it was last.
    table: RefCell<Held>,
    pub(super) limits: Rc<Cell<Limits>>,
    pub(super) pool: Rc<Pool>,
    pub(super) counters: Rc<Counters>,
    pub(super) log: Rc<Sink>,
    pub(super) ids: Ids,
    pub(super) passwords: Passwords,
    /// The clients behind the connections.
    crowd: Crowd,
    /// Places for client connections that are free.
    room: Arc<Semaphore>,
    /// How many there are in all.
    places: Cell<usize>,
    /// Which of them keep their buffers while nothing happens.
    pub(super) warm: Warm,
    /// How many connections gave up their buffers since the memory was last tidied.
    pub(super) silenced: Cell<usize>,
    /// Client connections and tunnels.
    pub(super) tasks: TaskTracker,
    /// No new connections; ends with those that there are.
    pub(super) drain: CancellationToken,
    /// They are not waited for any more, but for requests in flight.
    pub(super) hurry: CancellationToken,
    /// The time to drain is over.
    pub(super) cut: CancellationToken,
}

/// A table that what a worker does with it may keep, at no cost for other workers: the inner count is theirs as well.
pub(super) type Held = Rc<Arc<Table>>;

/// What a worker is started with.
pub(super) struct Start {
    pub(super) front: Arc<Front>,
    pub(super) listeners: Listeners,
    /// Requests for this worker's figures.
    pub(super) figures: mpsc::Receiver<oneshot::Sender<FrontStats>>,
    pub(super) drain: CancellationToken,
    pub(super) hurry: CancellationToken,
    /// How long requests in flight may take once `hurry` is set.
    pub(super) grace: Duration,
}

impl Worker {
    /// The table as it is now. One request reads it once, or what it was let in by and what its backend is told could be
    /// of two.
    pub(super) fn table(&self) -> Held {
        let now = self.front.table.load();
        let mut held = self.table.borrow_mut();
        if !Arc::ptr_eq(&now, &held) {
            *held = Rc::new(Arc::clone(&now));
        }
        held.clone()
    }

    /// How many connections and requests of the client at `address` are borne.
    pub(super) fn bearable(&self, address: IpAddr) -> usize {
        // A proxy that is believed stands for many clients.
        match self.table().forwarding.trusts(address) {
            true => usize::MAX,
            false => self.limits.get().connections_per_client,
        }
    }

    /// Serves a connection between these `ends` in this `place`, unless its client has too many.
    pub(super) fn take(
        self: &Rc<Self>,
        stream: TcpStream,
        ends: Ends,
        place: OwnedSemaphorePermit,
        secure: bool,
    ) {
        let address = ends.client;
        let limit = self.bearable(address.ip());
        let Some(token) = self.crowd.admit(address.ip(), limit) else {
            return self.counters.rejected(CROWD);
        };
        let state = Arc::new(ClientState::new(ends, place, token, secure));
        self.counters.accepted.add_one();
        if secure {
            let serving = tls::serve(self.clone(), stream, address, state);
            self.tasks.spawn_local(serving);
        } else {
            let serving = connection::serve(self.clone(), stream, address, state);
            self.tasks.spawn_local(serving);
        }
    }

    /// What clients of TLS listeners are shown.
    pub(super) fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.front.tls.load_full()
    }

    /// From now on what begins has the limits that hold now.
    fn follow_limits(&self) {
        self.limits.set(*self.front.limits.borrow());
        // Places that are taken go once they are free: see [`accept`].
        let (wanted, places) = (self.limits.get().client_connections, self.places.get());
        if wanted >= places {
            self.room.add_permits(wanted - places);
            self.places.set(wanted);
        } else {
            let gone = self.room.forget_permits(places - wanted);
            self.places.set(places - gone);
        }
        self.pool.widened();
    }

    fn read(&self) -> FrontStats {
        let mut stats = self.counters.read(self.tasks.len());
        self.pool.read(&mut stats);
        stats
    }
}

/// Serves until told to drain, and to its end; gives the last figures. Blocks its thread.
pub(super) fn run(start: Start) -> io::Result<FrontStats> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(serve(start))
}

async fn serve(start: Start) -> io::Result<FrontStats> {
    let counters = Rc::new(Counters::default());
    let limits = Rc::new(Cell::new(*start.front.limits.borrow()));
    let room = limits.get().client_connections;
    let warm = Warm::new(limits.get().warm);
    let worker = Rc::new(Worker {
        table: RefCell::new(Rc::new(start.front.table.load_full())),
        pool: Pool::new(limits.clone(), counters.clone()),
        limits,
        room: Arc::new(Semaphore::new(room)),
        places: Cell::new(room),
        counters,
        log: Rc::new(Sink::new(&start.front.log)),
        ids: Ids::default(),
        passwords: Passwords::new(start.front.passwords.clone()),
        crowd: Crowd::default(),
        warm,
        silenced: Cell::default(),
        tasks: TaskTracker::new(),
        drain: start.drain.clone(),
        hurry: start.hurry.clone(),
        cut: CancellationToken::new(),
        front: start.front,
    });
    let accepting = TaskTracker::new();
    let Listeners { plain, tls } = start.listeners;
    let plain = plain.into_iter().map(|it| (it, false));
    for (listener, secure) in plain.chain(tls.into_iter().map(|it| (it, true))) {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        accepting.spawn_local(accept(worker.clone(), listener, secure));
    }
    let housekeeping = keep_house(worker.clone(), start.figures);
    let draining = async {
        start.drain.cancelled().await;
        accepting.close();
        worker.tasks.close();
        let done = async {
            accepting.wait().await;
            worker.tasks.wait().await;
        };
        let late = async {
            start.hurry.cancelled().await;
            sleep(start.grace).await;
        };
        let cut = tokio::select! {
            () = done => false,
            () = late => true,
        };
        if cut {
            tracing::warn!(
                connections = worker.tasks.len(),
                "cut at the end of the drain"
            );
            worker.counters.begin_cutting();
            worker.cut.cancel();
            // Each ends as soon as it is asked to, and is counted then.
            let _ = timeout(CUT, worker.tasks.wait()).await;
        }
    };
    tokio::select! {
        () = housekeeping => {}
        () = draining => {}
    }
    Ok(worker.read())
}

/// Purges and sweeps the pool and answers for the counters. Never ends.
///
/// What the purge looks at grows with the catalog, while requests wait for it: it rests nine times as long as it took,
/// and under steady change it comes twice a second at most. Nothing depends on its moment, for no request goes where the
/// table does not send it.
async fn keep_house(worker: Rc<Worker>, mut figures: mpsc::Receiver<oneshot::Sender<FrontStats>>) {
    let mut changes = worker.front.changed.subscribe();
    let mut limits = worker.front.limits.subscribe();
    limits.mark_changed();
    let mut sweep = interval(pool::SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rested = Instant::now();
    let mut next_cut = None;
    // No later than that: the wall's clock may be set.
    let by = |wait: Option<Duration>| wait.map(|wait| Instant::now() + wait.min(LOOK));
    loop {
        let cut = next_cut.unwrap_or_else(Instant::now);
        let purge = async {
            sleep_until(rested).await;
            changes.changed().await
        };
        tokio::select! {
            Ok(()) = purge => {
                let began = Instant::now();
                let table = worker.table();
                worker.pool.keep(&table);
                let labels = table.labels();
                worker.counters.fold(|label| labels.contains(label));
                next_cut = by(worker.pool.cut(&table));
                rested = Instant::now() + (began.elapsed() * 9).max(PURGE_REST);
            }
            () = worker.pool.stale() => {
                next_cut = by(worker.pool.cut(&worker.table()));
            }
            () = sleep_until(cut), if next_cut.is_some() => {
                next_cut = by(worker.pool.cut(&worker.table()));
            }
            Ok(()) = limits.changed() => worker.follow_limits(),
            Some(asker) = figures.recv() => {
                // Whoever asked may have lost interest.
                let _ = asker.send(worker.read());
            }
            _ = sweep.tick() => {
                worker.pool.sweep();
                worker.crowd.sweep();
                // The allocator keeps what is free until it is asked for more, which a quiet worker does not do.
                if worker.silenced.get() >= TIDY {
                    worker.silenced.set(0);
                    lb_sys::memory::give_back();
                }
            }
        }
    }
}

/// Takes connections, `secure` ones by TLS, until drained; those that the kernel had already queued by then are served too, as far
/// as there is room.
async fn accept(worker: Rc<Worker>, listener: TcpListener, secure: bool) {
    let mut changes = worker.front.changed.subscribe();
    let routes = changes.wait_for(|()| worker.front.has_routes());
    tokio::select! {
        // Too late: they are told that the routes are not known yet.
        _ = timeout(worker.limits.get().first_routes, routes) => {}
        () = worker.drain.cancelled() => {
            if worker.limits.get().first_routes == Limits::WHILE_ANOTHER_SERVES {
                return; // The other one has an answer for those in the queue.
            }
        }
    }
    // Those that came with the routes.
    worker.follow_limits();
    loop {
        // At the limit nothing is accepted: the kernel's queue is the place to wait. The semaphore is never
        // closed.
        let permit = tokio::select! {
            biased;
            Ok(permit) = worker.room.clone().acquire_owned() => permit,
            () = worker.drain.cancelled() => return,
        };
        // One too many since the limit fell: whoever had it has left.
        let places = worker.places.get();
        if places > worker.limits.get().client_connections {
            permit.forget();
            worker.places.set(places - 1);
            continue;
        }
        let accepted = tokio::select! {
            biased; // Drain only what is there: the queue first, then the order to end.
            accepted = listener.accept() => accepted,
            () = worker.drain.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                if worker.table().forwarding.announces(address.ip()) {
                    let serving = announced::serve(worker.clone(), stream, address, permit, secure);
                    worker.tasks.spawn_local(serving);
                } else {
                    let ends = Ends::of(&stream, address);
                    worker.take(stream, ends, permit, secure);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                // Out of descriptors or memory: only time helps.
                tokio::select! {
                    () = sleep(ACCEPT_PAUSE) => {}
                    () = worker.drain.cancelled() => return,
                }
            }
        }
    }
}

/// The longest time between two looks for backends to cut, if there will be one.
const LOOK: Duration = Duration::from_secs(60);

/// The least time between two purges.
const PURGE_REST: Duration = Duration::from_millis(500);
/// For the end of what is cut.
const CUT: Duration = Duration::from_secs(1);
/// The word in metrics for a client with too many connections.
const CROWD: &str = "client_connections";
/// At about 20 KB each it is worth a look.
const TIDY: usize = 256;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
