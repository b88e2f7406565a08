//! One client's connection, from its first byte to its last: which protocol it speaks, and the rests between requests.
//!
//! While nothing moves there is only the bare stream and a timer. hyper's connection, whose buffers are twenty times as
//! large, exists from the first byte on and is given up again when the client has been silent for a moment,
//! but for a few (`warm`).

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use futures_util::FutureExt as _;
use hyper::{StatusCode, header::HeaderValue, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::ReadBuf,
    net::TcpStream,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    answer::{self, Reason},
    client::{ClientState, Stop},
    guard::Fault,
    h2,
    leave::{self, Begun},
    policy, proxy, request,
    wire::{self, Stream, Wire},
    worker::Worker,
};

/// Serves the client at `address` until one of the two has enough.
pub(super) async fn serve<S: Stream>(
    worker: Rc<Worker>,
    mut stream: S,
    address: SocketAddr,
    state: Arc<ClientState>,
) {
    loop {
        let bytes = match rest(&worker, &mut stream, &state).await {
            Rested::Http1(bytes) => bytes,
            // In boxes, since all that rest would have room for them.
            Rested::Http2(bytes) => {
                return Box::pin(h2::serve(worker, stream, bytes, address, state)).await;
            }
            Rested::Late => return Box::pin(late(&worker, stream, address)).await,
            Rested::Over => return stream.end_with(b""),
        };
        match Box::pin(work(&worker, stream, bytes, address, &state)).await {
            Some(silent) => {
                worker.silenced.set(worker.silenced.get() + 1);
                stream = silent;
            }
            None => return,
        }
    }
}

/// How a rest ended.
enum Rested {
    /// With these bytes.
    Http1(BytesMut),
    Http2(BytesMut),
    /// With fewer than make a protocol.
    Late,
    Over,
}

/// Waits until the client begins a request.
async fn rest<S: Stream>(worker: &Worker, stream: &mut S, state: &ClientState) -> Rested {
    let fresh = state.answers() == 0;
    let limit = if fresh {
        worker.limits.get().first_byte
    } else {
        worker.limits.get().keep_alive.saturating_sub(wire::SILENCE)
    };
    let mut deadline = Instant::now() + limit;
    let mut bytes = BytesMut::new();
    loop {
        let more = {
            let more = piece(stream, &mut bytes);
            tokio::select! {
                biased; // What has come is served.
                more = more => Some(more),
                () = sleep_until(deadline) => None,
                () = worker.hurry.cancelled() => {
                    // One that was just taken from the queue brings its request along: closed now, it would lose it.
                    let patience = if fresh { leave::FIRST_REQUEST } else { Duration::ZERO };
                    deadline = deadline.min(Instant::now() + patience);
                    let more = piece(stream, &mut bytes);
                    timeout_at(deadline, more).await.ok()
                }
            }
        };
        match more {
            Some(Ok(())) if !fresh => return Rested::Http1(bytes),
            Some(Ok(())) => match h2::is_preface(&bytes) {
                Some(true) => return Rested::Http2(bytes),
                Some(false) => return Rested::Http1(bytes),
                None => {} // Not enough of it.
            },
            None if !bytes.is_empty() => return Rested::Late,
            Some(Err(_)) | None => return Rested::Over,
        }
    }
}

/// Reads once. An error when there is nothing more to come.
fn piece<S: Stream>(stream: &mut S, bytes: &mut BytesMut) -> impl Future<Output = io::Result<()>> {
    poll_fn(move |cx| {
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut space))?;
        bytes.extend_from_slice(space.filled());
        Poll::Ready(if space.filled().is_empty() {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        })
    })
}

/// The beginning of what may have been a head did not go on.
async fn late<S: Stream>(worker: &Worker, mut stream: S, address: SocketAddr) {
    let stop = Stop::HeaderTimeout.as_str();
    worker.counters.rejected(stop);
    tracing::debug!(client = %address, reason = stop, "stream refused");
    let status = Some(StatusCode::REQUEST_TIMEOUT);
    let took = worker.limits.get().first_byte;
    let log = &worker.log;
    log.refused(address.ip(), Reason::HeaderTimeout, stop, status, took);
    part(worker, &mut stream, Some(Stop::HeaderTimeout)).await;
}

/// Serves HTTP/1 requests from `bytes` on. The stream comes back once the client has been silent for a while.
async fn work<S: Stream>(
    worker: &Rc<Worker>,
    stream: S,
    bytes: BytesMut,
    address: SocketAddr,
    state: &Arc<ClientState>,
) -> Option<S> {
    // An address is always a legal value.
    let client = HeaderValue::from_str(&address.ip().to_canonical().to_string()).ok()?;
    let wire = Wire::new(
        stream,
        state.clone(),
        worker.limits.get(),
        worker.warm.clone(),
        bytes,
    );
    let begun = Rc::new(Begun::default());
    let service = {
        let (worker, state, begun) = (worker.clone(), state.clone(), begun.clone());
        service_fn(move |request| {
            begun.one();
            if request::is_last(&request) {
                state.leave();
            }
            let table = worker.table();
            let hsts = proxy::hsts::<S>(&table);
            let answer = proxy::respond(
                worker.clone(),
                table,
                state.clone(),
                address.ip(),
                client.clone(),
                request,
            );
            let begun = begun.clone();
            answer.map(move |mut answer| {
                policy::tell_hsts(answer.headers_mut(), hsts);
                begun.answered();
                Ok::<_, Infallible>(answer)
            })
        })
    };
    let mut connection = http1()
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let result = tokio::select! {
        result = until_silent(&mut connection, state) => result,
        () = worker.drain.cancelled() => {
            let end = async {
                tokio::select! {
                    result = until_silent(&mut connection, state) => return result,
                    () = leave::moment(&worker.hurry, &begun) => {}
                }
                Pin::new(&mut connection).graceful_shutdown();
                Some((&mut connection).await)
            };
            tokio::select! {
                result = end => result,
                () = worker.cut.cancelled() => return None,
            }
        }
    };
    let stop = state.stop();
    let rejection = result.as_ref().and_then(|result| rejection(result, stop));
    if let Some(reason) = rejection {
        worker.counters.rejected(reason);
        tracing::debug!(client = %address, reason, "stream refused");
    }
    // `None` after an upgrade: the tunnel has the socket.
    let parts = connection.into_parts()?;
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
    let whole = wire.is_at_boundary() && parts.read_buf.is_empty();
    let mut stream = wire.into_stream();
    if result.is_none() && parts.read_buf.is_empty() {
        return Some(stream);
    }
    let gone = whole && state.leaves() && matches!(result, Some(Ok(())));
    // Before it has ended, closing on what it still sends would be a reset.
    if !gone && !state.has_ended() && !stalled {
        part(worker, &mut stream, stop).await;
    }
    None
}

/// Serves on until the end, or until the client has been silent for a while: `None`.
fn until_silent<C: Future + Unpin>(
    connection: &mut C,
    state: &ClientState,
) -> impl Future<Output = Option<C::Output>> {
    poll_fn(move |cx| match Pin::new(&mut *connection).poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if state.is_silent() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
}

/// Closes so that the client sees everything up to here.
async fn part<S: Stream>(worker: &Worker, stream: &mut S, stop: Option<Stop>) {
    let last_word = match stop {
        Some(Stop::HeaderTimeout) => answer::HEADER_TIMEOUT,
        Some(Stop::Guard(Fault::TargetTooLong)) => answer::TARGET_TOO_LONG,
        _ => b"",
    };
    stream.end_with(last_word);
    see_off(worker, stream.tcp()).await;
}

/// Tells the client that nothing follows, then waits for it to see that.
pub(super) async fn see_off(worker: &Worker, socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write);
    tokio::select! {
        () = wire::linger(socket) => {}
        () = worker.cut.cancelled() => {}
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
/// Most requests come whole in it.
const PIECE: usize = 4096;
