//! The guard beside hyper: of a stream that the guard lets pass, both make the same requests.

use std::{cell::RefCell, convert::Infallible, future::poll_fn, pin::Pin, rc::Rc};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    http::{request::Parts, uri::PathAndQuery},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use crate::{
    connection,
    guard::{Fault, Framing, Scan},
};

/// The first byte says how the rest is cut.
pub fn front_guard(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    agree(stream);
    let verdict = judge(stream, &[]);
    let sizes = [usize::from(size % 64), usize::from(size / 64)];
    assert_eq!(judge(stream, &sizes), verdict, "cut by {sizes:?}");
}

/// What the guard says of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Where requests end.
    pub(crate) ends: Vec<usize>,
    /// Complete heads.
    pub(crate) heads: u32,
    /// Why it goes no further, and where.
    pub(crate) fault: Option<(usize, Fault)>,
}

/// What the guard says of `stream` when it comes in pieces of `sizes`, over and over; without any, as it is.
pub(crate) fn judge(stream: &[u8], sizes: &[usize]) -> Verdict {
    let mut framing = Framing::default();
    let mut sizes = sizes.iter().copied().cycle();
    let mut ends = Vec::new();
    let mut fault = None;
    let mut begin = 0;
    while begin < stream.len() && fault.is_none() {
        let size = sizes.next().unwrap_or(stream.len()).max(1);
        let end = stream.len().min(begin + size);
        begin = match framing.scan(&stream[begin..end]) {
            Scan::Pass => end,
            Scan::End(at) => {
                ends.push(begin + at);
                begin + at
            }
            Scan::Fault(at, why) => {
                fault = Some((begin + at, why));
                end
            }
        };
    }
    Verdict {
        ends,
        heads: framing.heads(),
        fault,
    }
}

/// Panics unless hyper makes of what passes the requests that the guard has seen, or fewer.
pub(crate) fn agree(stream: &[u8]) {
    let verdict = judge(stream, &[]);
    let passed = verdict.fault.map_or(stream.len(), |(at, _)| at);
    let read = read(&stream[..passed]);
    assert!(
        read.len() <= usize::try_from(verdict.heads).unwrap_or(usize::MAX),
        "hyper has {} requests, the guard {}",
        read.len(),
        verdict.heads
    );
    let begins = [0].iter().chain(&verdict.ends);
    let mut cuts = begins
        .zip(&verdict.ends)
        .map(|(&begin, &end)| &stream[begin..end]);
    for (parts, body) in &read {
        let Some(body) = body else {
            break; // Refused by hyper or not there to its end: it reads no further.
        };
        // What hyper has read to its end has ended for the guard, too.
        let request = cuts.next();
        assert!(request.is_some(), "{parts:?} has no end for the guard");
        let (line, plain) = plainly(request.unwrap_or_default());
        assert_eq!(*body, plain, "{parts:?}");
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some(parts.method.as_str()));
        let target = words.next().unwrap_or_default();
        if target.starts_with('/') {
            assert_eq!(
                parts.uri.path_and_query().map(PathAndQuery::as_str),
                Some(target)
            );
        }
    }
}

/// The request line and the body of one whole request, read in the plainest way.
fn plainly(request: &[u8]) -> (String, Vec<u8>) {
    let mut request = request;
    while let Some(rest) = request.strip_prefix(b"\r\n") {
        request = rest;
    }
    let end = b"\r\n\r\n";
    let at = request.windows(4).position(|window| window == end);
    let (head, mut rest) = request.split_at(at.map_or(request.len(), |at| at + 4));
    let head = String::from_utf8_lossy(head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    let mut names = head.lines().filter_map(|line| line.split_once(':'));
    if !names.any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
        return (line, rest.to_vec());
    }
    let mut body = Vec::new();
    while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
        let size = String::from_utf8_lossy(&rest[..at]);
        let digits = size.find(|digit: char| !digit.is_ascii_hexdigit());
        let size = usize::from_str_radix(&size[..digits.unwrap_or(size.len())], 16);
        let Ok(size @ 1..) = size else {
            break; // The last chunk.
        };
        let begin = at + 1;
        body.extend_from_slice(&rest[begin..begin + size]);
        rest = &rest[begin + size + 2..];
    }
    (line, body)
}

/// The requests that hyper makes of `stream`, with the body of each that came to its end.
pub(crate) fn read(stream: &[u8]) -> Vec<(Parts, Option<Vec<u8>>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else {
        return Vec::new(); // Out of memory says nothing about the stream.
    };
    let read = Rc::new(RefCell::new(Vec::new()));
    runtime.block_on(async {
        // Room for all that is sent and answered.
        let (mut client, server) = tokio::io::duplex(ROOM);
        // A closed half fails nothing here: what hyper has made of the stream is all that counts.
        let _ = client.write_all(stream).await;
        let _ = client.shutdown().await;
        let keeps = read.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let keeps = keeps.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = whole(body).await;
                keeps.borrow_mut().push((parts, body));
                Ok::<_, Infallible>(Response::new(String::new()))
            }
        });
        let mut builder = connection::http1();
        builder.half_close(true);
        let _ = builder
            .serve_connection(TokioIo::new(server), service)
            .await;
    });
    read.take()
}

async fn whole(mut body: Incoming) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Some(whole)
}

const ROOM: usize = 1 << 20;
