//! One client's connection, from its first byte to its last.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use hyper::{StatusCode, header::HeaderValue, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    answer::{self, Reason},
    client::{ClientState, Stop},
    guard::Fault,
    leave::{self, Begun},
    proxy,
    wire::{self, Stream, Wire},
    worker::Worker,
};

/// Serves the client at `address` until one of the two has enough.
pub(super) async fn serve<S: Stream>(
    worker: Rc<Worker>,
    stream: S,
    address: SocketAddr,
    state: Arc<ClientState>,
) {
    let Ok(client) = HeaderValue::from_str(&address.ip().to_canonical().to_string()) else {
        return; // An address is always a legal value.
    };
    let wire = Wire::new(stream, state.clone(), worker.limits);
    let begun = Rc::new(Begun::default());
    let service = {
        let (worker, state, begun) = (worker.clone(), state.clone(), begun.clone());
        service_fn(move |request| {
            begun.one();
            let answer = proxy::respond(
                worker.clone(),
                state.clone(),
                address.ip(),
                client.clone(),
                request,
            );
            let begun = begun.clone();
            async move {
                let answer = answer.await;
                begun.answered();
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let mut connection = http1()
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let result = tokio::select! {
        result = &mut connection => result,
        () = worker.drain.cancelled() => {
            let end = async {
                tokio::select! {
                    result = &mut connection => return result,
                    () = leave::moment(&worker.hurry, &begun) => {}
                }
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            };
            tokio::select! {
                result = end => result,
                () = worker.cut.cancelled() => return,
            }
        }
    };
    let stop = state.stop();
    let rejection = rejection(&result, stop);
    if let Some(reason) = rejection {
        worker.counters.rejected(reason);
        tracing::debug!(client = %address, reason, "stream refused");
    }
    // `None` after an upgrade: the tunnel has the socket.
    let Some(parts) = connection.into_parts() else {
        return;
    };
    let wire = parts.io.into_inner();
    let stalled = wire.is_stalled();
    if let Some(fault) = rejection {
        let took = wire
            .head_since()
            .map_or(Duration::ZERO, |since| since.elapsed());
        if let Some((reason, status)) = answer_to(stop, fault) {
            let status = status.filter(|_| !stalled);
            worker
                .log
                .refused(address.ip(), reason, fault, status, took);
        }
    }
    let stream = wire.into_stream();
    let socket = stream.tcp();
    let last_word = match stop {
        Some(Stop::HeaderTimeout) => answer::HEADER_TIMEOUT,
        Some(Stop::Guard(Fault::TargetTooLong)) => answer::TARGET_TOO_LONG,
        _ => b"",
    };
    if !last_word.is_empty() && !stalled {
        // Whoever does not take this does not get it.
        let _ = socket.try_write(last_word);
    }
    if !state.has_ended() && !stalled {
        // Tells the client that nothing follows, then waits for it to see that.
        let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write);
        tokio::select! {
            () = wire::linger(socket) => {}
            () = worker.cut.cancelled() => {}
        }
    }
}

/// How hyper reads clients.
pub(super) fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_header_size(HEAD_LIMIT).max_buf_size(BUFFER);
    builder
}

/// What a stream gets that ends by `fault` before it is a request; `None` when it was within a body, for that is one.
fn answer_to(stop: Option<Stop>, fault: &str) -> Option<(Reason, Option<StatusCode>)> {
    Some(match (stop, fault) {
        (Some(Stop::BodyTimeout), _) => return None,
        (Some(Stop::Guard(fault)), _) if !fault.in_head() => return None,
        (Some(Stop::HeaderTimeout), _) => {
            (Reason::HeaderTimeout, Some(StatusCode::REQUEST_TIMEOUT))
        }
        (Some(Stop::Guard(Fault::TargetTooLong)), _) => {
            (Reason::BadRequest, Some(StatusCode::URI_TOO_LONG))
        }
        (None, "http_2") => (Reason::BadRequest, None),
        (_, "head_too_long") => {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            (Reason::BadRequest, Some(status))
        }
        _ => (Reason::BadRequest, Some(StatusCode::BAD_REQUEST)),
    })
}

/// Why there is no request on the rest of a stream, in the words of the metrics: what the guard says, or
/// what hyper does.
fn rejection(result: &hyper::Result<()>, stop: Option<Stop>) -> Option<&'static str> {
    if let Some(stop) = stop {
        return Some(stop.as_str());
    }
    let error = result.as_ref().err()?;
    if error.is_parse_too_large() {
        Some("head_too_long")
    } else if error.is_parse_version_h2() {
        Some("http_2")
    } else if error.is_parse() {
        Some("malformed")
    } else {
        None // The client went away, or its request was counted.
    }
}

const HEAD_LIMIT: usize = 32 * 1024;
const BUFFER: usize = 64 * 1024;
