//! What becomes of a request, by its head alone.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use hyper::{
    Response, Version,
    body::{Body, Incoming},
    header::HeaderValue,
    http::request::Parts,
};

use super::{Outgoing, closing, refuse};
use crate::{
    answer::{Reason, Refusal},
    exchange::Exchange,
    forward::Peer,
    policy::{self, Policy},
    request::{self, Checked},
    table::{ServiceTable, Table},
    worker::{Held, Worker},
};

/// Decides what becomes of a request: where it goes on to, or how it is answered without having looked at its body.
pub(super) fn admit(
    worker: &Worker,
    table: Held,
    address: IpAddr,
    name: HeaderValue,
    parts: Parts,
    body: &Incoming,
    exchange: &mut Exchange,
) -> Result<Outgoing, Box<Response<Bytes>>> {
    let client = table.forwarding.client(address, &parts.headers);
    exchange.asked(worker.log.asked(&parts, client));
    let (mut checked, service) = match route(&table, &parts, client, exchange) {
        Ok(found) => found,
        Err(refusal) => {
            let answer = refuse(refusal, body, exchange);
            return Err(table.pages.dress(answer, refusal.reason, exchange).into());
        }
    };
    // A client that is still sending a request cannot leave HTTP, and hyper would wait for the rest for ever. An upgrade may always
    // be ignored (RFC 9110 section 7.8).
    checked.upgrade &= body.is_end_stream();
    let tls = exchange.client().is_secure();
    let peer = Peer {
        address,
        text: &name,
        secure: tls,
    };
    let secure = || table.forwarding.is_secure(peer, &parts.headers);
    if let Some(https) = &table.https
        && !secure()
        && let Some(answer) = https.redirect(&parts, &checked)
    {
        return Err(instead(answer, body, exchange));
    }
    let policy = service.policy();
    let judged = policy.map(|policy| {
        let note = policy.before(&parts, &checked, secure())?;
        let asking = policy::Asking {
            client,
            headers: &parts.headers,
            lasting: service.lasting(),
            table: &table,
            passwords: &worker.passwords,
        };
        policy.admit(&asking, note)
    });
    let note = match judged {
        Some(Err(answer)) => {
            let plain =
                answer.reason == Reason::Maintenance && policy.is_some_and(Policy::has_no_notice);
            let answer = instead(*answer, body, exchange);
            return Err(match plain {
                true => Box::new(table.pages.dress(*answer, Reason::Maintenance, exchange)),
                false => answer,
            });
        }
        Some(Ok(note)) => note,
        None => policy::Note::default(),
    };
    let max_body = policy.and_then(Policy::max_body);
    let max_body = max_body.unwrap_or(worker.limits.get().max_body);
    if body.size_hint().lower() > max_body {
        let refusal = Refusal::of(Reason::BodyTooLarge);
        return Err(refuse(refusal, body, exchange).into());
    }
    let id = table.forwarding.id(address, &parts.headers, &worker.ids);
    exchange.has_id(&parts.headers, id.as_ref());
    exchange.has_user(note.user());
    Ok(Outgoing {
        table,
        service,
        client: parts,
        checked,
        address,
        name,
        secure: tls,
        max_body,
        id,
        note,
    })
}

/// What a rule answers, without having looked at the body.
fn instead(
    policy::Answer { reason, response }: policy::Answer,
    body: &Incoming,
    exchange: &mut Exchange,
) -> Box<Response<Bytes>> {
    exchange.answer(response.status(), reason);
    let whole = body.is_end_stream();
    Box::new(if whole { response } else { closing(response) })
}

/// Which service the request is for.
fn route(
    table: &Table,
    parts: &Parts,
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

const AMBIGUOUS: Refusal = Refusal::bad_request(
    "bad_request: services share this host, and the path may be read as another one\n",
);
