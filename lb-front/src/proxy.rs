//! One request: route, choose a backend, send, and pass the answer on.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    header::{self, HeaderValue},
};

use super::{
    answer::{Reason, Refusal},
    backend::{self, pool::Lease},
    body::{Download, Progress, Upload},
    client::{ClientState, Stop},
    exchange::Exchange,
    forward::Peer,
    policy,
    request::{self, Checked, Sender},
    table::{ServiceTable, Table},
    tunnel,
    worker::Worker,
};

/// Answers a request on a connection from `address`, which `client` names.
pub(super) async fn respond(
    worker: Rc<Worker>,
    state: Arc<ClientState>,
    address: IpAddr,
    client: HeaderValue,
    mut request: Request<Incoming>,
) -> Response<Download> {
    let mut exchange = Exchange::begin(
        worker.counters.clone(),
        state,
        request.method() == Method::HEAD,
    );
    let peer = Peer {
        address,
        text: &client,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, incoming) = request.into_parts();
    let table = worker.table();
    let address = table.forwarding.client(address, &parts.headers);
    exchange.asked(worker.log.asked(&parts, address));
    let (checked, service) = match route(&table, &parts, address, &mut exchange) {
        Ok(found) => found,
        Err(refusal) => return refuse(refusal, &incoming, exchange),
    };
    let policy = service.policy();
    let secure = || table.forwarding.is_secure(peer.address, &parts.headers);
    let note = match policy.map(|policy| policy.before(&parts, &checked, secure())) {
        Some(Err(answer)) => return instead(*answer, &incoming, exchange),
        Some(Ok(note)) => note,
        None => policy::Note::default(),
    };
    let mut upload = Upload::new(incoming);
    // In HTTP/1 its wire sees to that.
    if parts.version == Version::HTTP_2 {
        upload.hurry(&worker.limits);
    }
    let sender = Sender {
        peer,
        forwarding: &table.forwarding,
        ids: &worker.ids,
        via: &table.via,
    };
    request::rewrite(&mut parts, &checked, &sender, upload.kind());
    if let Some(policy) = policy {
        policy.on_request(&mut parts);
    }
    exchange.has_id(&parts.headers);
    // Not kept while a backend is waited for: an old table would live as long, and cheap readers are few.
    drop(table);
    let method = parts.method.clone();
    let progress = upload.progress();
    exchange.uploads(progress.clone());
    let request = Request::from_parts(parts, upload);
    let sent = backend::send(&worker, &service, note.wish, request, &mut exchange).await;
    let (response, mut lease) = match sent {
        Ok(sent) => sent,
        Err(reason) => {
            let reason = if progress.has_failed() {
                client_fault(exchange.client(), &progress)
            } else {
                reason
            };
            return unserved(reason, &progress, exchange);
        }
    };
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switched && checked.upgrade {
        return switch(&worker, response, lease, upgrade, exchange);
    }
    let whole = progress.has_ended();
    if !whole {
        lease.end_with_answer();
    }
    if switched || !request::is_plainly_coded(response.headers()) {
        return unserved(Reason::ResponseInvalid, &progress, exchange);
    }
    let mut response = relay(&worker, &method, response, lease, exchange);
    if let Some(policy) = policy {
        policy.on_answer(response.headers_mut(), note);
    }
    // The rest of the request is not waited for.
    if !whole {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Answers for a client that has too many requests in flight.
pub(super) fn turn_away(
    worker: &Worker,
    state: Arc<ClientState>,
    address: IpAddr,
    request: Request<Incoming>,
) -> Response<Download> {
    let head = request.method() == Method::HEAD;
    let mut exchange = Exchange::begin(worker.counters.clone(), state, head);
    let (parts, incoming) = request.into_parts();
    exchange.asked(worker.log.asked(&parts, address));
    refuse(CROWD, &incoming, exchange)
}

/// Which service the request is for.
fn route(
    table: &Table,
    parts: &hyper::http::request::Parts,
    client: IpAddr,
    exchange: &mut Exchange,
) -> Result<(Checked, Arc<ServiceTable>), Refusal> {
    let checked = request::check(parts)?;
    if !table.is_known() {
        return Err(Refusal::of(Reason::Starting));
    }
    let found = table.find(&checked.host, parts.uri.path());
    let Some(service) = found.map_err(|_| AMBIGUOUS)? else {
        let mut refusal = Refusal::no_route(table.no_route_status);
        refusal.close = parts.version == Version::HTTP_10;
        return Err(refusal);
    };
    exchange.belongs_to(service);
    if !table.admits(service, client) {
        return Err(Refusal::of(Reason::Denied));
    }
    if table.via.is_in(&parts.headers) {
        return Err(Refusal::of(Reason::Loop));
    }
    Ok((checked, service.clone()))
}

/// What a client did that did not deliver the body it announced.
fn client_fault(client: &ClientState, progress: &Progress) -> Reason {
    match client.stop() {
        None if progress.was_late() => Reason::BodyTimeout,
        Some(Stop::BodyTimeout) => Reason::BodyTimeout,
        None if client.has_ended() => Reason::ClientAbort,
        _ => Reason::BadRequest,
    }
}

/// Passes a backend's answer on.
fn relay(
    worker: &Worker,
    method: &Method,
    response: Response<Incoming>,
    mut lease: Lease,
    exchange: Exchange,
) -> Response<Download> {
    let (mut parts, incoming) = response.into_parts();
    // hyper would send the next request in HTTP/1.0 too, and without a body whose length is not known.
    if parts.version == Version::HTTP_10 {
        lease.end_with_answer();
    }
    // The answer to HEAD tells the length of what is not there.
    let length = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .filter(|_| *method == Method::HEAD);
    let length = length.cloned();
    request::strip_hop_by_hop(&mut parts.headers);
    if let Some(length) = length {
        parts.headers.insert(header::CONTENT_LENGTH, length);
    }
    parts.version = Version::HTTP_11;
    let status = parts.status;
    let body = Download::passed(incoming, lease, exchange, status, worker.limits.body_idle);
    Response::from_parts(parts, body)
}

/// Leaves HTTP on both sides.
fn switch(
    worker: &Worker,
    mut response: Response<Incoming>,
    lease: Lease,
    client: hyper::upgrade::OnUpgrade,
    mut exchange: Exchange,
) -> Response<Download> {
    let backend = hyper::upgrade::on(&mut response);
    exchange.client().begin_tunnel();
    // Until its end is reached, the end is the client's doing.
    exchange.answer(StatusCode::SWITCHING_PROTOCOLS, Reason::ClientAbort);
    let (idle, end) = (worker.limits.tunnel_idle, worker.cut.clone());
    let tunnel = tunnel::run(client, backend, lease.into_place(), exchange, idle, end);
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
fn refuse(mut refusal: Refusal, body: &Incoming, exchange: Exchange) -> Response<Download> {
    refusal.close |= !body.is_end_stream();
    own(refusal, exchange)
}

/// What a rule of the service answers, without having looked at the body.
fn instead(answer: policy::Answer, body: &Incoming, mut exchange: Exchange) -> Response<Download> {
    let mut response = answer.response;
    if !body.is_end_stream() {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.answer(response.status(), answer.reason);
    Download::own(response, exchange)
}

/// An answer in place of one from a backend.
fn unserved(reason: Reason, progress: &Progress, exchange: Exchange) -> Response<Download> {
    let mut refusal = Refusal::of(reason);
    refusal.close |= !progress.has_ended();
    own(refusal, exchange)
}

fn own(refusal: Refusal, mut exchange: Exchange) -> Response<Download> {
    exchange.answer(refusal.status, refusal.reason);
    Download::own(refusal.response(), exchange)
}

const CROWD: Refusal = Refusal {
    text: "limit: this client has too many requests in flight\n",
    status: StatusCode::SERVICE_UNAVAILABLE,
    reason: Reason::Limit,
    close: false,
};

const AMBIGUOUS: Refusal = Refusal::bad_request(
    "bad_request: services share this host, and the path may be read as another one\n",
);
