//! Which backend a request goes to: the one whose turn it is, else the next one that has a place. Without any
//! place the request waits.

use std::{cell::OnceCell, net::SocketAddr, rc::Rc, sync::Arc};

use tokio::time::{Instant, timeout_at};

use super::{
    account::Account,
    caller::Caller,
    eject::Share,
    h2c::Seat,
    lease::Lease,
    pool::{Host, Place},
    send::ATTEMPTS,
};
use crate::{
    answer::Reason, client::ClientState, exchange::Exchange, policy::Wish, table::ServiceTable,
    worker::Worker,
};

/// The choice of one request's backends.
pub(super) struct Choosing<'a> {
    worker: &'a Worker,
    account: &'a Account,
    pub(super) service: Arc<ServiceTable>,
    wish: Wish,
    /// Whose request it is.
    client: Arc<ClientState>,
    /// Its turn, if it needs one.
    start: OnceCell<usize>,
    tried: [Option<SocketAddr>; ATTEMPTS],
}

/// A way to a backend.
pub(super) enum Way {
    Idle(Lease),
    New(Place, Option<Caller>),
    /// On a connection that others have as well.
    Shared(Seat),
}

impl Way {
    /// `None`: it was to be on a connection that another request has made, and that has no room for it.
    async fn settled(self) -> Option<Self> {
        match self {
            Self::Shared(seat) => seat.settled().await.map(Self::Shared),
            way => Some(way),
        }
    }
}

enum Pick {
    Found(Rc<Host>, Way),
    /// Some have no place.
    Full,
    Nothing,
}

/// Which backends are good enough.
#[derive(Clone, Copy)]
enum Level {
    /// Those that take this turn.
    Turn,
    /// Those that are not ejected.
    In,
    Any,
}

impl<'a> Choosing<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        account: &'a Account,
        service: &Arc<ServiceTable>,
        wish: Wish,
        client: &Arc<ClientState>,
    ) -> Self {
        Self {
            worker,
            account,
            wish,
            client: client.clone(),
            start: OnceCell::new(),
            service: service.clone(),
            tried: [None; ATTEMPTS],
        }
    }

    /// The next backend, which `attempt` is for; `None` when all have been tried.
    ///
    /// # Errors
    /// No place became free in time, or too many wait for one.
    pub(super) async fn choose(
        &mut self,
        attempt: usize,
        exchange: &mut Exchange,
    ) -> Result<Option<(Rc<Host>, Way)>, Reason> {
        let mut deadline = None;
        loop {
            // Whoever came earlier is first.
            let mut pick = match self.account.places.is_empty() {
                true => self.pick(),
                false => Pick::Full,
            };
            if matches!(pick, Pick::Full) {
                let patience = self.worker.limits.get().queue;
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
                exchange.joins_queue();
                let waited = self.wait(deadline).await;
                exchange.leaves_queue();
                pick = waited?;
            }
            let Pick::Found(host, way) = pick else {
                return Ok(None);
            };
            if let Some(way) = way.settled().await {
                self.tried[attempt] = Some(host.address);
                return Ok(Some((host, way)));
            }
        }
    }

    /// The backend of `attempt` may be chosen again.
    pub(super) fn forget(&mut self, attempt: usize) {
        self.tried[attempt] = None;
    }

    async fn wait(&mut self, deadline: Instant) -> Result<Pick, Reason> {
        let limits = self.worker.limits.get();
        let places = &self.account.places;
        let reason = match places.join(limits.queued * self.service.usable.max(1)) {
            None => Reason::Limit,
            Some(waiting) => {
                loop {
                    if timeout_at(deadline, waiting.woken()).await.is_err() {
                        break Reason::QueueTimeout;
                    }
                    // There may be others by now.
                    if let Some(service) = self.worker.table().current(&self.service)
                        && !Arc::ptr_eq(service, &self.service)
                    {
                        self.service = service.clone();
                        // It may be another one's index there.
                        self.wish.backend = None;
                    }
                    match self.pick() {
                        Pick::Full => {}
                        pick => return Ok(pick),
                    }
                }
            }
        };
        // Rather one under suspicion than none.
        match self.pass(Level::Any) {
            Pick::Found(host, way) => Ok(Pick::Found(host, way)),
            _ => Err(reason),
        }
    }

    fn pick(&self) -> Pick {
        if let Some(wished) = self.wished() {
            return wished;
        }
        let first = self.pass(Level::Turn);
        if matches!(first, Pick::Found(..)) || self.account.trusts_all() {
            return first;
        }
        match self.pass(Level::In) {
            Pick::Nothing => self.pass(Level::Any),
            pick => pick,
        }
    }

    fn pass(&self, level: Level) -> Pick {
        let mut full = false;
        // Saves looking twice at the first ones of a service; more is not needed.
        let mut seen = 0_u128;
        let turn = || self.account.turn(self.service.cursor());
        let start = *self.start.get_or_init(turn);
        for (index, backend) in self.service.in_turn(start, self.wish.group) {
            let bit = u32::try_from(index)
                .ok()
                .and_then(|index| 1_u128.checked_shl(index));
            let bit = bit.unwrap_or_default();
            let again = seen & bit != 0;
            seen |= bit;
            let address = backend.address;
            if again || self.tried.contains(&Some(address)) || !self.is_good(address, level) {
                continue;
            }
            let host = self.worker.pool.host(address);
            if let Some(way) = self.way(&host) {
                return Pick::Found(host, way);
            }
            host.want(&self.account.places);
            full = true;
        }
        if full { Pick::Full } else { Pick::Nothing }
    }

    /// The backend that the request is for, if that can take it.
    fn wished(&self) -> Option<Pick> {
        let backend = self.service.backend(self.wish.backend?)?;
        let address = backend.address;
        let tried = self.tried.contains(&Some(address));
        if tried || !backend.usable || !self.is_good(address, Level::In) {
            return None;
        }
        let host = self.worker.pool.host(address);
        let way = self.way(&host)?;
        Some(Pick::Found(host, way))
    }

    fn way(&self, host: &Rc<Host>) -> Option<Way> {
        let is_h2c = self.service.is_h2c();
        let idle = (!is_h2c).then(|| host.take(self.caller().as_ref()));
        let idle = idle.flatten().map(Way::Idle);
        idle.or_else(|| self.beside(host))
    }

    /// The client that a connection is for, if its backend is told.
    fn caller(&self) -> Option<Caller> {
        let how = self.service.policy()?.proxy_protocol()?;
        let client = self.client.clone();
        Some(Caller { how, client })
    }

    /// A way to a backend beside connections that wait for a request.
    fn beside(&self, host: &Rc<Host>) -> Option<Way> {
        match self.service.is_h2c() {
            true => host.seat().map(Way::Shared),
            false => host.claim().map(|place| Way::New(place, self.caller())),
        }
    }

    /// The same for a request that a stale connection has lost.
    pub(super) async fn new_way(&self, host: &Rc<Host>) -> Option<Way> {
        self.beside(host)?.settled().await
    }

    fn is_good(&self, backend: SocketAddr, level: Level) -> bool {
        match level {
            Level::Turn => self.account.share(backend) == Share::Full,
            Level::In => !self.account.is_out(backend),
            Level::Any => true,
        }
    }
}
