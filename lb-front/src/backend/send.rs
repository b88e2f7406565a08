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
    body::Body,
    header::{HeaderMap, HeaderName},
};
use tokio::time::Instant;

use super::{
    account::Flight,
    arriving::Arriving,
    choose::{Choosing, Way},
    h2c,
    loan::Loan,
    pool::Host,
};
use crate::{
    Limits,
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
) -> Result<(Response<Arriving>, Loan), Reason> {
    let service = &outgoing.service;
    let account = worker.pool.account(&service.label);
    let mut flight = Flight::begin(account.clone());
    let wish = outgoing.note.wish;
    let mut choosing = Choosing::new(worker, &account, service, wish, exchange.client());
    let policy = service.policy();
    let retries = policy.and_then(Policy::retries).unwrap_or(RETRIES);
    let patience = policy.and_then(Policy::timeout);
    let patience = patience.unwrap_or(worker.limits.get().response_head);
    let progress = upload.progress();
    let failed = |host: &Host, choosing: &Choosing<'_>, reason: &'static str| {
        // An operator's doing is no sign of how the backend is.
        if host.is_cut() {
            return;
        }
        worker.counters.failures.add_one();
        host.failures.add_one();
        account.failed(host.address, reason, choosing.service.usable);
    };
    let mut failure = Reason::NoBackend;
    // How often a stale connection may cost no attempt.
    let mut repeats = 1;
    let mut again = false;
    for attempt in 0..ATTEMPTS.min(1 + retries) {
        // What is rare is in boxes: every request would have room for it.
        if attempt > 0 {
            exchange.joins_queue();
            let Limits { queue, queued, .. } = worker.limits.get();
            let may = Box::pin(flight.retry(queue, queued)).await;
            exchange.leaves_queue();
            if !may {
                break;
            }
        }
        let (mut host, mut way) = match choosing.choose(attempt, exchange).await {
            Ok(Some(chosen)) => chosen,
            Ok(None) => break,
            Err(reason) => return Err(reason),
        };
        if attempt > 0 {
            worker.counters.retries.add_one();
            host.retries.add_one();
        }
        loop {
            exchange.tries(host.clone());
            let loan = match way {
                Way::Idle(lease) => Ok(Loan::Whole(lease)),
                Way::New(place, caller) => Box::pin(place.connect(caller)).await.map(Loan::Whole),
                Way::Shared(seat) => Box::pin(seat.ride()).await.map(Loan::Share),
            };
            let loan = match loan {
                Ok(loan) => loan,
                Err(reason) => {
                    // What this host lacks is not the backend's fault.
                    if reason != Reason::Limit {
                        failed(&host, &choosing, reason.as_str());
                    }
                    failure = reason;
                    break;
                }
            };
            let reused = loan.is_reused();
            exchange.connected(reused);
            let repeatable = reused
                && repeats > 0
                && upload.is_end_stream()
                && outgoing.method().is_idempotent();
            let sent = match loan {
                Loan::Share(ride) => {
                    let sent = h2c::send_on(worker, outgoing, ride, upload, patience, repeatable);
                    Box::pin(sent).await
                }
                Loan::Whole(mut lease) => {
                    let head = outgoing.head(upload.kind());
                    lease.heard.forget();
                    let answer = lease
                        .sender
                        .try_send_request(Request::from_parts(head, upload));
                    match in_time(pin!(answer), &mut lease.timer, patience, &progress).await {
                        Some(Ok(response)) => Ok((response.map(Arriving::One), Loan::Whole(lease))),
                        Some(Err(mut error)) => {
                            let unsent = error.take_message().map(Request::into_body);
                            let stale = repeatable && !lease.heard.anything();
                            let stale = stale.then(|| Upload::empty(progress.clone()));
                            Err(Unsent {
                                upload: unsent.or(stale),
                                reason: reason(host.address, &error.into_error()),
                                stale: reused,
                            })
                        }
                        None => Err(Unsent::lost(Reason::ResponseTimeout)),
                    }
                }
            };
            // Without an answer its connection has ended by now, and left its place.
            let unsent = match sent {
                Ok((response, mut loan)) => {
                    exchange.heard();
                    match bad_gateway(response.status()) {
                        Some(why) => failed(&host, &choosing, why),
                        None => account.served(host.address),
                    }
                    if let Some(said) = kept(response.headers()) {
                        loan.heed(said);
                    }
                    flight.answered();
                    loan.carry(flight);
                    return Ok((response, loan));
                }
                Err(unsent) => unsent,
            };
            failure = unsent.reason;
            let Some(rest) = unsent.upload else {
                if !progress.has_failed() {
                    failed(&host, &choosing, failure.as_str());
                }
                return Err(failure);
            };
            upload = rest;
            // A stale connection says nothing about the backend: once more, on a new one. In HTTP/2 that may be another's, and
            // stale as well.
            if !unsent.stale || repeats == 0 {
                failed(&host, &choosing, failure.as_str());
                break;
            }
            repeats -= 1;
            worker.counters.retries.add_one();
            host.retries.add_one();
            way = match Box::pin(choosing.new_way(&host)).await {
                Some(way) => way,
                // Somebody who waited has its place by now: whoever has one next.
                None => {
                    choosing.forget(attempt);
                    match Box::pin(choosing.choose(attempt, exchange)).await? {
                        Some(next) => {
                            host = next.0;
                            // It may be on a connection that another request has just left, and stale as well.
                            repeats += usize::from(matches!(next.1, Way::Idle(_)) && !again);
                            again = true;
                            next.1
                        }
                        None => break,
                    }
                }
            };
        }
    }
    Err(failure)
}

/// A request without answer.
pub(super) struct Unsent {
    /// Its body, if it may be sent again.
    pub(super) upload: Option<Upload>,
    pub(super) reason: Reason,
    /// Whether it was on a connection that had stood before, and nothing is said about the backend.
    pub(super) stale: bool,
}

impl Unsent {
    /// It may have been seen.
    pub(super) fn lost(reason: Reason) -> Self {
        Self {
            upload: None,
            reason,
            stale: false,
        }
    }
}

/// The answer, unless it takes longer than `patience` from the last byte of the request.
pub(super) async fn in_time<A: Future>(
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
