//! One request: route, choose a backend, send, and pass the answer on.

use std::{future::ready, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::Either;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    header::{self, HeaderValue},
    http::request::Parts,
};

use tokio::time::timeout_at;

use admit::admit;

use super::{
    answer::{Reason, Refusal},
    backend::{self, Arriving, Loan, pool::Place},
    body::{Download, Progress, Upload},
    client::{ClientState, Stop},
    exchange::Exchange,
    forward::Peer,
    policy::{self, Policy},
    request::{self, BodyKind, Checked, Sender},
    table::{ServiceTable, Table},
    tunnel,
    wire::Stream,
    worker::{Held, Worker},
};

mod admit;

/// Answers a request on a connection from `address`, which `client` names, by this `table`.
///
/// No `async fn`: what it awaits is moved several times before it is first polled, and would be twice as large with all
/// that is needed before.
pub(super) fn respond(
    worker: Rc<Worker>,
    table: Held,
    state: Arc<ClientState>,
    address: IpAddr,
    client: HeaderValue,
    mut request: Request<Incoming>,
) -> impl Future<Output = Response<Download>> {
    let mut exchange = Exchange::begin(worker.counters.clone(), state, &request);
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, incoming) = request.into_parts();
    if parts.version == Version::HTTP_2 && request::is_grpc(&parts.headers) {
        exchange.calls();
    }
    let admitted = admit(
        &worker,
        table,
        address,
        client,
        parts,
        &incoming,
        &mut exchange,
    );
    let outgoing = match admitted {
        Ok(outgoing) => outgoing,
        Err(answer) => return Either::Left(Either::Left(ready(Download::own(*answer, exchange)))),
    };
    let mut upload = Upload::new(incoming, outgoing.max_body);
    // In HTTP/1 its wire sees to that.
    if outgoing.client.version == Version::HTTP_2 {
        upload.hurry(&worker.limits.get());
    }
    exchange.uploads(upload.progress());
    if outgoing.note.is_open() {
        // Rarely, and all others would have room for it.
        let asked = ask(worker, outgoing, upload, upgrade, exchange);
        return Either::Left(Either::Right(Box::pin(asked)));
    }
    Either::Right(pass(worker, outgoing, upload, upgrade, exchange))
}

/// Has a password looked at before the request is sent on.
async fn ask(
    worker: Rc<Worker>,
    mut outgoing: Outgoing,
    upload: Upload,
    upgrade: hyper::upgrade::OnUpgrade,
    mut exchange: Exchange,
) -> Response<Download> {
    let service = outgoing.service.clone();
    if let Some(policy) = service.policy()
        && let Err(answer) = policy.ask(&worker.passwords, &mut outgoing.note).await
    {
        let policy::Answer { reason, response } = *answer;
        exchange.answer(response.status(), reason);
        let whole = upload.progress().has_ended();
        let response = if whole { response } else { closing(response) };
        return Download::own(response, exchange);
    }
    exchange.has_user(outgoing.note.user());
    pass(worker, outgoing, upload, upgrade, exchange).await
}

/// Sends the request on, and passes the answer on.
fn pass(
    worker: Rc<Worker>,
    outgoing: Outgoing,
    upload: Upload,
    upgrade: hyper::upgrade::OnUpgrade,
    mut exchange: Exchange,
) -> impl Future<Output = Response<Download>> {
    let progress = upload.progress();
    async move {
        let sent = match exchange.deadline(worker.limits.get().request) {
            None => backend::send(&worker, &outgoing, upload, &mut exchange).await,
            Some(until) => {
                // Of no concern to all others, who would have room for it.
                let sent = backend::send(&worker, &outgoing, upload, &mut exchange);
                let sent = Box::pin(timeout_at(until, sent)).await;
                sent.unwrap_or(Err(Reason::RequestTimeout))
            }
        };
        let (response, loan) = match sent {
            Ok(sent) => sent,
            Err(reason) => {
                let reason = if progress.has_failed() {
                    client_fault(exchange.client(), &progress)
                } else {
                    reason
                };
                return unserved(&outgoing.table, reason, &progress, exchange);
            }
        };
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched && outgoing.checked.upgrade {
            let Some(place) = loan.into_place() else {
                // HTTP/2 has no such answer.
                return unserved(
                    &outgoing.table,
                    Reason::ResponseInvalid,
                    &progress,
                    exchange,
                );
            };
            let backend = exchange.backend();
            let idle = outgoing.talk_idle(&worker);
            let mut response = switch(&worker, response, place, upgrade, exchange, idle);
            if let Some(policy) = outgoing.service.policy() {
                policy.on_switch(response.headers_mut(), outgoing.note, backend);
            }
            return response;
        }
        if switched || !request::is_plainly_coded(response.headers()) {
            return unserved(
                &outgoing.table,
                Reason::ResponseInvalid,
                &progress,
                exchange,
            );
        }
        relay(&worker, outgoing, response, loan, exchange, &progress)
    }
}

/// A request that goes on to a backend.
pub(super) struct Outgoing {
    /// What it was let in by.
    table: Held,
    pub(super) service: Arc<ServiceTable>,
    /// The client's head.
    client: Parts,
    checked: Checked,
    address: IpAddr,
    /// The same as a header has it.
    name: HeaderValue,
    /// Whether the client speaks TLS with us.
    secure: bool,
    /// Bytes that its body may have.
    max_body: u64,
    /// The id that it gets.
    id: Option<HeaderValue>,
    pub(super) note: policy::Note,
}

impl Outgoing {
    pub(super) fn method(&self) -> &Method {
        &self.client.method
    }

    /// How long an answer or a tunnel may be silent, if the service says so.
    fn idle(&self) -> Option<Duration> {
        self.service.policy().and_then(Policy::idle)
    }

    /// How long both may be silent that talk with each other.
    pub(super) fn talk_idle(&self, worker: &Worker) -> Duration {
        self.idle().unwrap_or(worker.limits.get().tunnel_idle)
    }

    /// The head that a backend gets.
    pub(super) fn head(&self, body: BodyKind) -> Parts {
        let sender = Sender {
            peer: Peer {
                address: self.address,
                text: &self.name,
                secure: self.secure,
            },
            forwarding: &self.table.forwarding,
            id: self.id.as_ref(),
            via: &self.table.via,
        };
        let mut parts = request::rewrite(&self.client, &self.checked, &sender, body);
        if let Some(policy) = self.service.policy() {
            policy.on_request(&mut parts, &self.note);
        }
        parts
    }

    /// The same for one that speaks HTTP/2; `None` if the name asked for is none there.
    pub(super) fn head_of_2(&self, upload: &Upload) -> Option<Parts> {
        let mut parts = self.head(upload.kind());
        let trailers = backend::takes_trailers(&self.client.headers);
        let length = upload.size_hint().exact();
        backend::adapt(&mut parts, &self.checked.authority, trailers, length).then_some(parts)
    }
}

/// Answers for a client that has too many requests in flight.
pub(super) fn turn_away(
    worker: &Worker,
    state: Arc<ClientState>,
    address: IpAddr,
    request: Request<Incoming>,
) -> Response<Download> {
    let mut exchange = Exchange::begin(worker.counters.clone(), state, &request);
    let (parts, incoming) = request.into_parts();
    exchange.asked(worker.log.asked(&parts, address));
    let answer = refuse(CROWD, &incoming, &mut exchange);
    Download::own(answer, exchange)
}

/// What answers to a client on an `S` say of its future.
pub(super) fn hsts<S: Stream>(table: &Table) -> Option<HeaderValue> {
    if !S::SECURE {
        return None;
    }
    table.https.as_ref().and_then(|https| https.hsts())
}

/// What a client did that did not deliver the body it announced.
fn client_fault(client: &ClientState, progress: &Progress) -> Reason {
    match client.stop() {
        _ if progress.was_too_large() => Reason::BodyTooLarge,
        None if progress.was_late() => Reason::BodyTimeout,
        Some(Stop::BodyTimeout) => Reason::BodyTimeout,
        None if client.has_ended() || progress.was_taken_back() => Reason::ClientAbort,
        _ => Reason::BadRequest,
    }
}

/// Passes a backend's answer on.
fn relay(
    worker: &Worker,
    outgoing: Outgoing,
    response: Response<Arriving>,
    mut loan: Loan,
    exchange: Exchange,
    upload: &Progress,
) -> Response<Download> {
    let (mut parts, incoming) = response.into_parts();
    // hyper would send the next request in HTTP/1.0 too, and without a body whose length is not known.
    if parts.version == Version::HTTP_10 || !upload.has_ended() {
        loan.end_with_answer();
    }
    // The answer to HEAD tells the length of what is not there.
    let head = exchange.is_head().then_some(&parts.headers);
    let length = head.and_then(|headers| headers.get(header::CONTENT_LENGTH));
    let length = length.cloned();
    // This answer must say what to change to (RFC 9110 section 15.5.22).
    let required =
        parts.status == StatusCode::UPGRADE_REQUIRED && outgoing.client.version == Version::HTTP_11;
    let upgrade = required.then(|| parts.headers.remove(header::UPGRADE));
    request::strip_hop_by_hop(&mut parts.headers);
    if let Some(length) = length {
        parts.headers.insert(header::CONTENT_LENGTH, length);
    }
    parts.version = Version::HTTP_11;
    let backend = exchange.backend();
    let status = parts.status;
    let idle = match loan.is_patient() {
        true => outgoing.talk_idle(worker),
        false => outgoing.idle().unwrap_or(worker.limits.get().body_idle),
    };
    let until = exchange.deadline(worker.limits.get().request);
    let mut body = Download::passed(incoming, loan, exchange, status, idle);
    if let Some(until) = until {
        body.end_by(until);
    }
    let mut response = Response::from_parts(parts, body);
    if let Some(policy) = outgoing.service.policy() {
        let asked = &outgoing.client.headers;
        policy.on_answer(&mut response, asked, outgoing.note, backend);
    }
    // The rest of the request is not waited for.
    if !upload.has_ended() {
        response = closing(response);
    }
    // In HTTP/1.0 nothing but the connection's end ends what has no length (RFC 9112 section 6.3). hyper keeps the connection
    // if the client asks for that, unless the answer is in that version as well.
    if outgoing.client.version == Version::HTTP_10 && response.body().size_hint().exact().is_none()
    {
        *response.version_mut() = Version::HTTP_10;
    }
    if let Some(upgrade) = upgrade.flatten() {
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, upgrade);
        headers.append(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    response
}

/// The connection ends with this answer, and it says so.
fn closing<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Leaves HTTP on both sides.
fn switch(
    worker: &Worker,
    mut response: Response<Arriving>,
    place: Rc<Place>,
    client: hyper::upgrade::OnUpgrade,
    mut exchange: Exchange,
    idle: Duration,
) -> Response<Download> {
    let backend = hyper::upgrade::on(&mut response);
    exchange.client().begin_tunnel();
    // Until its end is reached, the end is the client's doing.
    exchange.answer(StatusCode::SWITCHING_PROTOCOLS, Reason::ClientAbort);
    let end = worker.cut.clone();
    let tunnel = tunnel::run(client, backend, place, exchange, idle, end);
    worker.tasks.spawn_local(tunnel);
    let (mut parts, _) = response.into_parts();
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    request::strip_hop_by_hop(&mut parts.headers);
    parts
        .headers
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    Response::from_parts(parts, Download::Switched)
}

/// An answer without having looked at the body. With part of it unread the connection ends, and says so.
fn refuse(mut refusal: Refusal, body: &Incoming, exchange: &mut Exchange) -> Response<Bytes> {
    refusal.close |= !body.is_end_stream();
    exchange.answer(refusal.status, refusal.reason);
    refusal.response()
}

/// An answer in place of one from a backend.
fn unserved(
    table: &Table,
    reason: Reason,
    progress: &Progress,
    mut exchange: Exchange,
) -> Response<Download> {
    let reason = exchange.or_cut(reason);
    let mut refusal = Refusal::of(reason);
    if reason == Reason::RequestTimeout && progress.is_starved() {
        // It is the client that took so long.
        refusal.status = StatusCode::REQUEST_TIMEOUT;
    }
    refusal.close |= !progress.has_ended();
    // A call is told in gRPC's own words.
    if reason == Reason::NoBackend && !exchange.is_call() {
        refusal.status = table.no_backend_status;
    }
    exchange.answer(refusal.status, refusal.reason);
    let answer = table.pages.dress(refusal.response(), reason, &exchange);
    Download::own(answer, exchange)
}

const CROWD: Refusal = Refusal {
    text: "limit: this client has too many requests in flight\n",
    status: StatusCode::SERVICE_UNAVAILABLE,
    reason: Reason::Limit,
    close: false,
};
