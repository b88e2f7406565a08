//! The record of one request: what became of it, and why it ended.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use hyper::StatusCode;

use super::{answer::Reason, body::Progress, client::ClientState, stats::Counters};

/// One request from its head to the last byte of its answer. Counted on drop, because hyper drops the work
/// on a request whose client went away at any point.
pub(super) struct Exchange {
    counters: Rc<Counters>,
    client: Arc<ClientState>,
    service: Option<Arc<str>>,
    status: Option<StatusCode>,
    reason: Reason,
    /// The backend of the last attempt.
    backend: Option<SocketAddr>,
    attempts: u16,
    /// Whether the last attempt had a connection that was already open.
    reused: bool,
    /// How far the client's body is.
    upload: Option<Rc<Progress>>,
    /// Bytes of the answer's body.
    down: u64,
    begun: Instant,
    /// When the connection of the last attempt stood.
    connected: Option<Instant>,
    /// When the head of the answer had come.
    heard: Option<Instant>,
}

impl Exchange {
    pub(super) fn begin(counters: Rc<Counters>, client: Arc<ClientState>) -> Self {
        Self {
            counters,
            client,
            service: None,
            status: None,
            reason: Reason::ClientAbort,
            backend: None,
            attempts: 0,
            reused: false,
            upload: None,
            down: 0,
            begun: Instant::now(),
            connected: None,
            heard: None,
        }
    }

    pub(super) fn belongs_to(&mut self, service: Arc<str>) {
        self.service = Some(service);
    }

    /// The client's body is looked at by way of `progress`.
    pub(super) fn uploads(&mut self, progress: Rc<Progress>) {
        self.upload = Some(progress);
    }

    /// An attempt on `backend` begins; each after the first one is a retry.
    pub(super) fn tries(&mut self, backend: SocketAddr) {
        self.backend = Some(backend);
        self.attempts += 1;
    }

    /// The attempt has a connection.
    pub(super) fn connected(&mut self, reused: bool) {
        self.reused = reused;
        self.connected = Some(Instant::now());
    }

    /// The backend's head is there.
    pub(super) fn heard(&mut self) {
        self.heard = Some(Instant::now());
    }

    /// The client gets an answer with `status`; `reason` stands until something worse happens.
    pub(super) fn answer(&mut self, status: StatusCode, reason: Reason) {
        self.status = Some(status);
        self.reason = reason;
    }

    /// `bytes` more of the answer's body went to the client.
    pub(super) fn passed_down(&mut self, bytes: usize) {
        self.down += bytes as u64;
    }

    /// It ended for `reason`.
    pub(super) fn end(&mut self, reason: Reason) {
        self.reason = reason;
    }

    pub(super) fn client(&self) -> &Arc<ClientState> {
        &self.client
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.client.answered();
        let reason = match self.reason {
            Reason::ClientAbort if self.counters.is_cutting() => Reason::Draining,
            reason => reason,
        };
        tracing::trace!(
            service = self.service.as_deref(),
            status = self.status.map(|status| status.as_u16()),
            reason = reason.as_str(),
            backend = self.backend.map(tracing::field::display),
            attempts = self.attempts,
            reused = self.reused,
            up = self.upload.as_ref().map(|upload| upload.bytes()),
            down = self.down,
            connected = ?self.connected.map(|at| at - self.begun),
            heard = ?self.heard.map(|at| at - self.begun),
            total = ?self.begun.elapsed(),
            "request ended"
        );
        self.counters
            .request(self.service.take(), self.status, reason);
    }
}
