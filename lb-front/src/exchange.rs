//! The record of one request: what became of it, and why it ended.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{HeaderMap, Method, Request, StatusCode, header::HeaderValue};

use super::{
    answer::{Phase, Reason},
    backend::pool::Host,
    body::Progress,
    client::ClientState,
    forward::X_REQUEST_ID,
    log::{Asked, Line, Times},
    services::{Ended, Key},
    spoken::Spoken,
    stats::Counters,
    table::ServiceTable,
};

/// One request from its head to the last byte of its answer, or to the end of the tunnel that it became. Counted on
/// drop, because hyper drops the work on a request whose client went away at any point.
pub(super) struct Exchange {
    counters: Rc<Counters>,
    client: Arc<ClientState>,
    /// Whether it is HEAD.
    head: bool,
    /// Its method and version, for the figures.
    spoken: Spoken,
    /// Whether it is a call of gRPC.
    grpc: bool,
    service: Option<Key>,
    status: Option<StatusCode>,
    reason: Reason,
    /// The backend of the last attempt.
    backend: Option<Rc<Host>>,
    attempts: u16,
    /// Whether the last attempt had a connection that was already open.
    reused: bool,
    /// How far the client's body is.
    upload: Option<Rc<Progress>>,
    /// Bytes that a tunnel carried to the backend.
    up: u64,
    /// Bytes of the answer's body, or that a tunnel carried to the client.
    down: u64,
    begun: Instant,
    /// How long it has waited for a place at a backend or for its turn to be tried again; only if there is a log.
    queued: Duration,
    /// Since when it does.
    queueing: Option<Instant>,
    /// When the connection of the last attempt stood; only if there is a log.
    connected: Option<Instant>,
    /// When the head of the answer had come; only if there is a log.
    heard: Option<Instant>,
    /// What the log says about it.
    asked: Option<Box<Asked>>,
}

impl Exchange {
    pub(super) fn begin<T>(
        counters: Rc<Counters>,
        client: Arc<ClientState>,
        request: &Request<T>,
    ) -> Self {
        Self {
            counters,
            client,
            head: request.method() == Method::HEAD,
            spoken: Spoken::of(request.method(), request.version()),
            grpc: false,
            service: None,
            status: None,
            reason: Reason::ClientAbort,
            backend: None,
            attempts: 0,
            reused: false,
            upload: None,
            up: 0,
            down: 0,
            begun: Instant::now(),
            queued: Duration::ZERO,
            queueing: None,
            connected: None,
            heard: None,
            asked: None,
        }
    }

    /// Whether the answer has no body, whatever its head says.
    pub(super) fn is_head(&self) -> bool {
        self.head
    }

    /// It is a call of gRPC.
    pub(super) fn calls(&mut self) {
        self.grpc = true;
    }

    /// Whether only gRPC is understood.
    pub(super) fn is_call(&self) -> bool {
        self.grpc
    }

    /// What was asked for, if there is a log.
    pub(super) fn asked(&mut self, asked: Option<Box<Asked>>) {
        self.asked = asked;
    }

    /// The backend gets the request with the id in the client's `headers`, or another one.
    pub(super) fn has_id(&mut self, headers: &HeaderMap, other: Option<&HeaderValue>) {
        if let Some(asked) = &mut self.asked {
            asked.id = other.or_else(|| headers.get(X_REQUEST_ID)).cloned();
        }
    }

    /// The user who asks, of a service that asks for a password.
    pub(super) fn has_user(&mut self, user: Option<&HeaderValue>) {
        if let Some(asked) = &mut self.asked {
            asked.user = user.cloned();
        }
    }

    pub(super) fn belongs_to(&mut self, service: &ServiceTable) {
        self.service = Some(self.counters.enter(&service.number));
        if let Some(asked) = &mut self.asked {
            asked.service = Some(service.label.clone());
        }
    }

    /// The client's body is looked at by way of `progress`.
    pub(super) fn uploads(&mut self, progress: Rc<Progress>) {
        self.upload = Some(progress);
    }

    /// It waits from here on.
    pub(super) fn joins_queue(&mut self) {
        self.queueing = self.now();
    }

    /// It has waited.
    pub(super) fn leaves_queue(&mut self) {
        self.queued = self.waited();
        self.queueing = None;
    }

    fn waited(&self) -> Duration {
        let now = self.queueing.map(|since| since.elapsed());
        self.queued + now.unwrap_or_default()
    }

    /// An attempt on `backend` begins; each after the first one is a retry.
    pub(super) fn tries(&mut self, backend: Rc<Host>) {
        self.backend = Some(backend);
        self.attempts += 1;
        self.reused = false;
        self.connected = None;
    }

    /// The attempt has a connection.
    pub(super) fn connected(&mut self, reused: bool) {
        self.reused = reused;
        self.connected = self.now();
    }

    /// The backend of the last attempt.
    pub(super) fn backend(&self) -> Option<SocketAddr> {
        self.backend.as_ref().map(|host| host.address())
    }

    /// By when it must have ended, if it may take no longer than `limit`.
    pub(super) fn deadline(&self, limit: Option<Duration>) -> Option<tokio::time::Instant> {
        limit.map(|limit| tokio::time::Instant::from_std(self.begun + limit))
    }

    /// The backend's head is there.
    pub(super) fn heard(&mut self) {
        self.heard = self.now();
    }

    fn now(&self) -> Option<Instant> {
        self.asked.is_some().then(Instant::now)
    }

    /// The client gets an answer with `status`; `reason` stands until something worse happens.
    pub(super) fn answer(&mut self, status: StatusCode, reason: Reason) {
        self.status = Some(status);
        self.reason = reason;
    }

    /// `bytes` more went to the client.
    pub(super) fn passed_down(&mut self, bytes: usize) {
        self.down += bytes as u64;
    }

    /// What a tunnel carried.
    pub(super) fn carried(&mut self, up: u64, down: u64) {
        self.up = up;
        self.down = down;
    }

    /// It ended for `reason`.
    pub(super) fn end(&mut self, reason: Reason) {
        self.reason = reason;
    }

    /// `reason`, unless it is we who ended the backend's connection.
    pub(super) fn or_cut(&self, reason: Reason) -> Reason {
        let ended = matches!(reason, Reason::BackendReset | Reason::ResponseTruncated);
        match ended && self.backend.as_ref().is_some_and(|host| host.is_cut()) {
            true => Reason::Cut,
            false => reason,
        }
    }

    /// Why it is the client's doing that the request did not come to its end, if it is.
    pub(super) fn client_failure(&self) -> Option<Reason> {
        let upload = self.upload.as_ref().filter(|upload| upload.has_failed())?;
        Some(match (upload.was_too_large(), upload.was_late()) {
            (true, _) => Reason::BodyTooLarge,
            (_, true) => Reason::BodyTimeout,
            _ => Reason::ClientAbort,
        })
    }

    pub(super) fn client(&self) -> &Arc<ClientState> {
        &self.client
    }

    fn line<'a>(&self, asked: &'a Asked, reason: Reason, total: Duration) -> Line<'a> {
        let was_tried = self.backend.is_some();
        let since = |at: Instant| at.saturating_duration_since(self.begun);
        let queue = self.waited();
        Line {
            client: asked.client(),
            asked: Some(asked),
            fault: None,
            service: asked.service.as_deref(),
            backend: self.backend(),
            status: self.status,
            reason,
            end: reason.haproxy(self.phase()),
            attempts: self.attempts,
            reused: self.reused,
            received: self.received(),
            sent: self.down,
            times: Times {
                queue: (was_tried || !queue.is_zero()).then_some(queue),
                connect: self.connected.map(since),
                first_byte: self.heard.map(since),
                total,
            },
        }
    }

    /// How far it has come; only if there is a log.
    fn phase(&self) -> Phase {
        let upload = self.upload.as_deref();
        if self.heard.is_some() {
            Phase::Answered
        } else if self.queueing.is_some() {
            Phase::Queued
        } else if self.backend.is_none() {
            Phase::Asking
        } else if self.connected.is_none() {
            Phase::Connecting
        } else if upload.is_some_and(Progress::has_ended) {
            Phase::Sent
        } else {
            Phase::Asking
        }
    }

    fn received(&self) -> u64 {
        self.up + self.upload.as_deref().map_or(0, Progress::bytes)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.client.answered();
        let reason = match self.reason {
            Reason::ClientAbort if self.counters.is_cutting() => Reason::Draining,
            reason => self.or_cut(reason),
        };
        let total = self.begun.elapsed();
        if let Some(asked) = self.asked.take() {
            asked.write(&self.line(&asked, reason, total));
        }
        let is_tunnel = self.status == Some(StatusCode::SWITCHING_PROTOCOLS);
        let ended = Ended {
            class: self.status.map_or(0, |status| status.as_u16() / 100),
            reason,
            spoken: self.spoken,
            received: self.received(),
            sent: self.down,
            took: (!is_tunnel).then_some(total),
        };
        if let Some(host) = &self.backend {
            host.ended(ended);
        }
        self.counters.request(self.service, ended);
    }
}
