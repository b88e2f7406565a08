//! Sends one request to a backend.
//!
//! Sent again is only what cannot have had an effect: a request of which nothing was written, on another
//! backend; and once, on a new connection, an idempotent request without body that died with a connection
//! the backend had kept idle before a byte of an answer came (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).

use std::{net::SocketAddr, rc::Rc};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
};
use tokio::time::timeout;

use super::pool::Lease;
use crate::{
    answer::Reason,
    body::{Progress, Upload},
    exchange::Exchange,
    table::ServiceTable,
    worker::Worker,
};

/// Sends `request` to the first backend that takes it.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    service: &ServiceTable,
    mut request: Request<Upload>,
    exchange: &mut Exchange,
) -> Result<(Response<Incoming>, Lease), Reason> {
    let mut failure = Reason::NoBackend;
    for (attempt, backend) in service.candidates().take(ATTEMPTS).enumerate() {
        if attempt > 0 {
            worker.counters.retries.add_one();
        }
        let mut pooled = worker.pool.take(backend.address);
        loop {
            exchange.tries(backend.address);
            let lease = match pooled.take() {
                Some(lease) => lease,
                None => match worker.pool.connect(backend.address).await {
                    Ok(lease) => lease,
                    Err(reason) => {
                        failure = reason;
                        break;
                    }
                },
            };
            let reused = lease.reused;
            exchange.connected(reused);
            match send_on(worker, lease, request, backend.address).await {
                Ok(answered) => {
                    exchange.heard();
                    return Ok(answered);
                }
                Err(Unsent {
                    request: Some(unsent),
                    reason,
                }) => {
                    request = unsent;
                    failure = reason;
                    // A stale connection says nothing about the backend: once more, on a new one.
                    if !reused {
                        break;
                    }
                    worker.counters.retries.add_one();
                }
                Err(Unsent {
                    request: None,
                    reason,
                }) => return Err(reason),
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
    worker: &Worker,
    mut lease: Lease,
    request: Request<Upload>,
    address: SocketAddr,
) -> Result<(Response<Incoming>, Lease), Unsent> {
    let progress = request.body().progress();
    let repeatable =
        lease.reused && request.method().is_idempotent() && request.body().is_end_stream();
    let spare = repeatable.then(|| copy(&request, progress.clone()));
    lease.heard.forget();
    let error = {
        let answer = lease.sender.try_send_request(request);
        let mut answer = std::pin::pin!(answer);
        loop {
            let frames = progress.frames();
            match timeout(worker.limits.response_head, answer.as_mut()).await {
                Ok(Ok(response)) => return Ok((response, lease)),
                Ok(Err(error)) => break error,
                // The time runs from the last byte of a long upload.
                Err(_) if progress.frames() != frames => {}
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

fn copy(request: &Request<Upload>, progress: Rc<Progress>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty(progress));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The first backend and two more.
const ATTEMPTS: usize = 3;
