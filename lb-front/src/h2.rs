//! HTTP/2 from a client: hyper's server, on a stream whose frames are counted, with an end to what it would bear for
//! ever.
//!
//! A request goes the same way as one in HTTP/1. What is refused here is whoever makes work without asking for
//! anything (`watch`), or asks without taking the answer (`flow`).

use std::{
    convert::Infallible,
    future::{poll_fn, ready},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::{FutureExt as _, future::Either};
use hyper::{
    HeaderMap, Request, Response,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until};

use super::{answer::Reason, client::ClientState, policy, proxy, wire::Stream, worker::Worker};

use flow::{Flow, Flowing, Streams, Tasks};
use watch::Watched;

mod flow;
pub(super) mod frames;
mod piece;
mod watch;

/// Whether a connection that begins with `bytes` is HTTP/2; `None` while they may become it.
pub(super) fn is_preface(bytes: &[u8]) -> Option<bool> {
    let known = bytes.len().min(PREFACE.len());
    if bytes[..known] != PREFACE[..known] {
        return Some(false);
    }
    (known == PREFACE.len()).then_some(true)
}

/// Serves requests from `bytes` on, the preface included, until one of the two has enough.
pub(super) async fn serve<S: Stream>(
    worker: Rc<Worker>,
    stream: S,
    bytes: BytesMut,
    address: SocketAddr,
    state: Arc<ClientState>,
) {
    // An address is always a legal value.
    let Ok(client) = HeaderValue::from_str(&address.ip().to_canonical().to_string()) else {
        return;
    };
    let bearable = worker.bearable(address.ip());
    let began = Instant::now();
    let streams = Streams::new(worker.limits.get().write_stall);
    let stream = Watched::new(stream, bytes, streams.clone(), worker.limits.get());
    let service = {
        let (worker, streams) = (worker.clone(), streams.clone());
        service_fn(move |mut request: Request<Incoming>| {
            let token = state.one_more(bearable);
            let admitted = token.is_some();
            let flow = streams.begin(token);
            join_cookies(request.headers_mut());
            let table = worker.table();
            let hsts = proxy::hsts::<S>(&table);
            let ip = address.ip();
            let (worker, state) = (worker.clone(), state.clone());
            let answer = match admitted {
                true => {
                    let client = client.clone();
                    Either::Left(proxy::respond(worker, table, state, ip, client, request))
                }
                false => Either::Right(ready(proxy::turn_away(&worker, state, ip, request))),
            };
            // In a box at once: what hyper makes of it is moved several times.
            Box::pin(answer.map(move |mut answer| {
                policy::tell_hsts(answer.headers_mut(), hsts);
                Ok::<_, Infallible>(passed(answer, flow))
            }))
        })
    };
    let mut builder = http2::Builder::new(Tasks(streams.clone()));
    builder
        .max_concurrent_streams(worker.limits.get().streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        .timer(TokioTimer::new())
        .keep_alive_interval(worker.limits.get().client_silence)
        .keep_alive_timeout(worker.limits.get().client_silence);
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
    let serving = async {
        let idle = worker.limits.get().keep_alive;
        let mut look = Instant::now() + idle;
        loop {
            let full = poll_fn(|cx| match connection.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending if streams.begun() >= MOST_STREAMS => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            tokio::select! {
                ended = full => match ended {
                    Some(result) => return result,
                    None => break,
                },
                () = sleep_until(look) => {}
                () = worker.drain.cancelled() => break,
            }
            look = streams.idle_since().unwrap_or_else(Instant::now) + idle;
            // What is stuck cannot be reset any more: END_STREAM is behind it.
            if look <= Instant::now() || streams.is_stuck() {
                break;
            }
        }
        // GOAWAY: what is in flight may end, and what the client could not know of is still taken.
        connection.as_mut().graceful_shutdown();
        loop {
            let look = streams.idle_since().unwrap_or_else(Instant::now) + LEAVE;
            let over = poll_fn(|cx| match connection.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending if streams.begun() >= 2 * MOST_STREAMS => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            });
            tokio::select! {
                result = over => return result,
                () = sleep_until(look) => {}
            }
            // It neither acknowledges the end nor asks for anything, or does not take what is left.
            let idle_since = streams.idle_since();
            if idle_since.is_some_and(|since| since + LEAVE <= Instant::now()) {
                return Ok(());
            }
        }
    };
    let result = tokio::select! {
        result = serving => result,
        () = worker.cut.cancelled() => {
            drop(connection);
            // The requests see it, and are counted.
            while streams.idle_since().is_none() {
                tokio::task::yield_now().await;
            }
            return;
        }
    };
    let reason = match (streams.abuse(), result) {
        (Some(abuse), _) => abuse.as_str(),
        (None, Err(error)) if is_violation(&error) => "http_2",
        (None, _) => return,
    };
    worker.counters.rejected(reason);
    tracing::debug!(client = %address, reason, "connection refused");
    let (log, took) = (&worker.log, began.elapsed());
    log.refused(address.ip(), Reason::BadRequest, reason, None, took);
}

/// Whether it was we who found fault with the connection.
fn is_violation(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let error = source.and_then(|source| source.downcast_ref::<::h2::Error>());
    error.is_some_and(::h2::Error::is_library)
}

/// The answer as HTTP/2 has it: what concerns the connection is said in frames.
fn passed(mut response: Response<super::body::Download>, flow: Rc<Flow>) -> Response<Flowing> {
    response.headers_mut().remove(header::CONNECTION);
    response.map(|body| Flowing::new(body, flow))
}

/// Several Cookie fields are legal in HTTP/2 only (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies = headers.get_all(header::COOKIE);
    if cookies.iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
    // Legal parts make a legal whole.
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// All requests of one connection: then it begins anew, on whichever worker has room.
const MOST_STREAMS: u64 = 10_000;
/// Bytes of bodies on their way to us.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const FRAME: u32 = 16 * 1024;
/// As in HTTP/1, in the measure of RFC 9113 section 6.5.2.
const HEADER_LIST: u32 = 32 * 1024;
/// Bytes that one answer keeps beyond what the client's window takes.
const SEND_BUFFER: usize = 128 * 1024;
/// How long a client without requests in flight may take to see that the connection ends.
const LEAVE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_known_as_soon_as_it_can_be() {
        assert_eq!(is_preface(PREFACE), Some(true));
        assert_eq!(is_preface(&[PREFACE, b"more"].concat()), Some(true));
        for part in 0..PREFACE.len() {
            assert_eq!(is_preface(&PREFACE[..part]), None, "{part}");
        }
        for other in ["G", "POST / HTTP/1.1", "PRI * HTTP/2.0\r\n\r\nSX"] {
            assert_eq!(is_preface(other.as_bytes()), Some(false), "{other}");
        }
    }

    #[test]
    fn cookies_become_one_field() {
        let mut headers = HeaderMap::new();
        join_cookies(&mut headers);
        assert!(headers.is_empty());
        for cookie in ["a=1", "b=2", "c=\u{e9}"] {
            headers.append(
                header::COOKIE,
                HeaderValue::from_bytes(cookie.as_bytes()).unwrap(),
            );
        }
        join_cookies(&mut headers);
        let all: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(all, ["a=1; b=2; c=\u{e9}".as_bytes()]);
    }
}
