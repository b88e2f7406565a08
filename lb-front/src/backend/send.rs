//! Sends one request to a backend.
//!
//! Sent again is only what cannot have had an effect: a request of which nothing was written, on another
//! backend; and once, on a new connection, an idempotent request without body that died with a connection
//! the backend had kept idle before a byte of an answer came (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use hyper::{
    Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{HeaderMap, HeaderName},
};
use tokio::time::timeout;

use super::{
    account::Flight,
    choose::{Choosing, Way},
    pool::Lease,
};
use crate::{
    answer::Reason,
    body::{Progress, Upload},
    exchange::Exchange,
    policy::{Policy, Wish},
    rules::Rules,
    table::ServiceTable,
    worker::Worker,
};

/// Sends `request` to the first backend that takes it.
pub(crate) async fn send(
    worker: &Worker,
    service: &Arc<ServiceTable>,
    wish: Wish,
    mut request: Request<Upload>,
    exchange: &mut Exchange,
) -> Result<(Response<Incoming>, Lease), Reason> {
    let account = worker.pool.account(&service.label);
    let mut flight = Flight::begin(account.clone());
    let mut choosing = Choosing::new(worker, &account, service, wish);
    let policy = service.policy();
    let retries = policy.and_then(Policy::retries).unwrap_or(RETRIES);
    let patience = policy.and_then(Policy::timeout);
    let patience = patience.unwrap_or(worker.limits.response_head);
    let progress = request.body().progress();
    let mut failure = Reason::NoBackend;
    let mut repeated = false;
    for attempt in 0..ATTEMPTS.min(1 + retries) {
        if attempt > 0
            && !flight
                .retry(worker.limits.queue, worker.limits.queued)
                .await
        {
            break;
        }
        let (host, way) = match choosing.choose(attempt).await {
            Ok(Some(chosen)) => chosen,
            Ok(None) => break,
            Err(reason) => return Err(reason),
        };
        if attempt > 0 {
            worker.counters.retries.add_one();
            host.retries.add_one();
        }
        let failed = |reason: &'static str| {
            host.failures.add_one();
            account.failed(host.address, reason, choosing.service.usable);
        };
        let mut way = way;
        loop {
            exchange.tries(host.address);
            let lease = match way {
                Way::Idle(lease) => lease,
                Way::New(place) => match place.connect().await {
                    Ok(lease) => lease,
                    Err(reason) => {
                        // What this host lacks is not the backend's fault.
                        if reason != Reason::Limit {
                            failed(reason.as_str());
                        }
                        failure = reason;
                        break;
                    }
                },
            };
            let reused = lease.reused;
            exchange.connected(reused);
            match send_on(patience, lease, request, host.address, repeated).await {
                Ok((response, mut lease)) => {
                    exchange.heard();
                    match bad_gateway(response.status()) {
                        Some(why) => failed(why),
                        None => account.served(host.address),
                    }
                    if let Some(said) = kept(response.headers()) {
                        lease.heed(said);
                    }
                    flight.answered();
                    lease.flight = Some(flight);
                    return Ok((response, lease));
                }
                Err(Unsent {
                    request: Some(unsent),
                    reason,
                }) => {
                    request = unsent;
                    failure = reason;
                    if !reused {
                        failed(reason.as_str());
                        break;
                    }
                    // A stale connection says nothing about the backend: once more, on a new one.
                    repeated = true;
                    worker.counters.retries.add_one();
                    host.retries.add_one();
                    let Some(place) = host.claim() else {
                        // The stale one still has it.
                        choosing.forget(attempt);
                        break;
                    };
                    way = Way::New(place);
                }
                Err(Unsent {
                    request: None,
                    reason,
                }) => {
                    if !progress.has_failed() {
                        failed(reason.as_str());
                    }
                    return Err(reason);
                }
            }
        }
    }
    Err(failure)
}

/// A request without answer; `request` is there when it may be sent again.
struct Unsent {
    request: Option<Request<Upload>>,
    reason: Reason,
}

async fn send_on(
    patience: Duration,
    mut lease: Lease,
    request: Request<Upload>,
    address: SocketAddr,
    repeated: bool,
) -> Result<(Response<Incoming>, Lease), Unsent> {
    let progress = request.body().progress();
    let repeatable = lease.reused
        && !repeated
        && request.method().is_idempotent()
        && request.body().is_end_stream();
    let spare = repeatable.then(|| copy(&request, progress.clone()));
    lease.heard.forget();
    let error = {
        let answer = lease.sender.try_send_request(request);
        let mut answer = std::pin::pin!(answer);
        loop {
            let frames = progress.frames();
            match timeout(patience, answer.as_mut()).await {
                Ok(Ok(response)) => return Ok((response, lease)),
                Ok(Err(error)) => break error,
                // The time runs from the last byte of a long upload. While more of it has to come the client is waited for, which
                // has a time of its own: no backend is to blame for it.
                Err(_) if progress.frames() != frames || progress.is_starved() => {}
                Err(_) => {
                    return Err(Unsent {
                        request: None,
                        reason: Reason::ResponseTimeout,
                    });
                }
            }
        }
    };
    let mut error = error;
    let unsent = error.take_message();
    let error = error.into_error();
    tracing::debug!(%address, %error, "no answer from a backend");
    let reason = if error.is_parse() {
        Reason::ResponseInvalid
    } else {
        Reason::BackendReset
    };
    let stale = spare.filter(|_| !lease.heard.anything());
    Err(Unsent {
        request: unsent.or(stale),
        reason,
    })
}

/// Whether the backend says itself that it cannot serve.
fn bad_gateway(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::BAD_GATEWAY => Some("status_502"),
        StatusCode::SERVICE_UNAVAILABLE => Some("status_503"),
        StatusCode::GATEWAY_TIMEOUT => Some("status_504"),
        _ => None,
    }
}

/// How long the backend keeps the connection, if it says so.
fn kept(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let mut parameters = value.split(',').filter_map(|it| it.trim().split_once('='));
    let timeout = parameters.find(|(name, _)| name.trim_end().eq_ignore_ascii_case("timeout"));
    let seconds = timeout?.1.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

fn copy(request: &Request<Upload>, progress: Rc<Progress>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty(progress));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// How many more backends a request is tried on where the service does not say.
const RETRIES: usize = 2;

/// The first backend, and as many more as a service may ask for.
pub(super) const ATTEMPTS: usize = 1 + Rules::MOST_RETRIES as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_says_how_long_it_keeps_a_connection() {
        for (value, seconds) in [
            ("timeout=5", Some(5)),
            ("timeout=5, max=100", Some(5)),
            ("max=100,Timeout = 7", Some(7)),
            ("max=100", None),
            ("timeout", None),
            ("timeout=-1", None),
            ("timeout=5s", None),
        ] {
            let headers = HeaderMap::from_iter([(KEEP_ALIVE, value.parse().unwrap())]);
            assert_eq!(kept(&headers), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
