//! Sends one request to a backend.
//!
//! Sent again is only what cannot have had an effect: a request of which nothing was written, on another
//! backend; and once, on a new connection, an idempotent request without body that died with a connection
//! the backend had kept idle before a byte of an answer came (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use hyper::{
    Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{HeaderMap, HeaderName},
};
use tokio::time::Instant;

use super::{
    account::Flight,
    choose::{Choosing, Way},
    pool::Lease,
};
use crate::{
    answer::Reason,
    body::{Progress, Upload},
    exchange::Exchange,
    policy::Policy,
    proxy::Outgoing,
    request,
    rules::Rules,
    timer::Timer,
    worker::Worker,
};

/// Sends a request to the first backend that takes it.
pub(crate) async fn send(
    worker: &Worker,
    outgoing: &Outgoing,
    mut upload: Upload,
    exchange: &mut Exchange,
) -> Result<(Response<Incoming>, Lease), Reason> {
    let service = &outgoing.service;
    let account = worker.pool.account(&service.label);
    let mut flight = Flight::begin(account.clone());
    let mut choosing = Choosing::new(worker, &account, service, outgoing.note.wish);
    let policy = service.policy();
    let retries = policy.and_then(Policy::retries).unwrap_or(RETRIES);
    let patience = policy.and_then(Policy::timeout);
    let patience = patience.unwrap_or(worker.limits.response_head);
    let progress = upload.progress();
    let mut failure = Reason::NoBackend;
    let mut repeated = false;
    for attempt in 0..ATTEMPTS.min(1 + retries) {
        // What is rare is in boxes: every request would have room for it.
        if attempt > 0 && !Box::pin(flight.retry(worker.limits.queue, worker.limits.queued)).await {
            break;
        }
        let (host, mut way) = match choosing.choose(attempt).await {
            Ok(Some(chosen)) => chosen,
            Ok(None) => break,
            Err(reason) => return Err(reason),
        };
        if attempt > 0 {
            worker.counters.retries.add_one();
            host.retries.add_one();
        }
        let failed = |reason: &'static str| {
            worker.counters.failures.add_one();
            host.failures.add_one();
            account.failed(host.address, reason, choosing.service.usable);
        };
        loop {
            exchange.tries(host.address);
            let mut lease = match way {
                Way::Idle(lease) => lease,
                Way::New(place) => match Box::pin(place.connect()).await {
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
            let repeatable =
                reused && !repeated && upload.is_end_stream() && outgoing.method().is_idempotent();
            let head = outgoing.head(worker, upload.kind());
            lease.heard.forget();
            let answer = lease
                .sender
                .try_send_request(Request::from_parts(head, upload));
            let answer = in_time(pin!(answer), &mut lease.timer, patience, &progress).await;
            let (unsent, reason) = match answer {
                Some(Ok(response)) => {
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
                Some(Err(mut error)) => {
                    let unsent = error.take_message().map(Request::into_body);
                    let stale = repeatable && !lease.heard.anything();
                    let stale = stale.then(|| Upload::empty(progress.clone()));
                    (unsent.or(stale), reason(host.address, &error.into_error()))
                }
                None => (None, Reason::ResponseTimeout),
            };
            // Its connection has ended, and leaves its place.
            drop(lease);
            let Some(unsent) = unsent else {
                if !progress.has_failed() {
                    failed(reason.as_str());
                }
                return Err(reason);
            };
            upload = unsent;
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
    }
    Err(failure)
}

/// The answer, unless it takes longer than `patience` from the last byte of the request.
async fn in_time<A: Future>(
    mut answer: Pin<&mut A>,
    timer: &mut Timer,
    patience: Duration,
    upload: &Progress,
) -> Option<A::Output> {
    loop {
        let frames = upload.frames();
        let deadline = Instant::now() + patience;
        let waited = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => timer.poll(cx, deadline).map(|()| None),
        });
        // While more of a long upload has to come the client is waited for, which has a time of its own: no backend is to
        // blame for it.
        match waited.await {
            None if upload.frames() != frames || upload.is_starved() => {}
            waited => return waited,
        }
    }
}

/// Why there is no answer from `address`.
fn reason(address: SocketAddr, error: &hyper::Error) -> Reason {
    tracing::debug!(%address, %error, "no answer from a backend");
    match error.is_parse() {
        true => Reason::ResponseInvalid,
        false => Reason::BackendReset,
    }
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
    if !request::has(headers, &KEEP_ALIVE) {
        return None;
    }
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let mut parameters = value.split(',').filter_map(|it| it.trim().split_once('='));
    let timeout = parameters.find(|(name, _)| name.trim_end().eq_ignore_ascii_case("timeout"));
    let seconds = timeout?.1.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

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
