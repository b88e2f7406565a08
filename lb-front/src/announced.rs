//! Connections from proxies that announce the client behind them by the PROXY protocol. The header is read from the bare
//! socket to its last byte and no further, so that whatever follows finds a connection of the client.
//!
//! From whom a header is believed it is demanded: else their clients could write one.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use super::{
    answer::Reason,
    client::Ends,
    leave,
    proxy_header::{Header, MOST, Malformed, parse},
    worker::Worker,
};

/// Serves a connection that the proxy at `peer` passes on, with TLS behind the header if it is `secure`.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    secure: bool,
) {
    let began = Instant::now();
    let mut seen = 0;
    let mut deadline = began + worker.limits.get().first_byte;
    let ends = {
        let header = read(&stream, &mut seen);
        let mut header = std::pin::pin!(header);
        tokio::select! {
            biased; // What has come is served.
            ends = timeout_at(deadline, header.as_mut()) => ends.ok(),
            () = worker.hurry.cancelled() => {
                deadline = deadline.min(Instant::now() + leave::FIRST_REQUEST);
                timeout_at(deadline, header).await.ok()
            }
        }
    };
    match ends {
        Some(Ok(ends)) => {
            let ends = ends.unwrap_or_else(|| Ends::of(&stream, peer));
            worker.take(stream, ends, place, secure);
        }
        // Whether the port is open is asked so.
        _ if seen == 0 => {}
        _ => refuse(&worker, peer, began.elapsed()),
    }
}

fn refuse(worker: &Worker, peer: SocketAddr, took: Duration) {
    worker.counters.rejected(FAULT);
    tracing::debug!(%peer, reason = FAULT, "connection refused");
    let log = &worker.log;
    log.refused(peer.ip(), Reason::BadRequest, FAULT, None, took);
}

/// Takes the header from `stream`, and counts the bytes that have come.
async fn read(stream: &TcpStream, seen: &mut usize) -> io::Result<Option<Ends>> {
    let mut bytes = vec![0; MOST];
    loop {
        let from = *seen;
        *seen += stream.peek(&mut bytes[from..]).await?;
        if *seen == from {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = parse(&bytes[..*seen]).map_err(|Malformed| io::ErrorKind::InvalidData)?;
        // Of a part all belongs to the header.
        let (end, ends) = match header {
            Header::Part => (*seen, None),
            Header::Whole { length, ends } => (length, Some(ends)),
        };
        let mut taken = from;
        while taken < end {
            stream.readable().await?;
            match stream.try_read(&mut bytes[taken..end]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => taken += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(ends) = ends {
            return Ok(ends);
        }
    }
}

/// The word in metrics and in the log.
const FAULT: &str = "bad_proxy_header";
