//! After a 101: bytes both ways until both sides have closed, nothing moves for too long, or the front must
//! end.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{answer::Reason, backend::pool::Place, exchange::Exchange};

/// Joins the two upgraded connections. The backend's has a `place` among those allowed; the client's brings
/// its own along. `exchange` ends with the tunnel.
pub(super) async fn run(
    client: OnUpgrade,
    backend: OnUpgrade,
    place: Rc<Place>,
    mut exchange: Exchange,
    idle: Duration,
    end: CancellationToken,
) {
    let cut = place.ends();
    // hyper has no limit for what is left of HTTP. Whoever is through is closed by the drop.
    let switched = async { tokio::join!(client, backend) };
    let switched = tokio::select! {
        switched = timeout(idle, switched) => switched,
        () = cut.cancelled() => return exchange.end(Reason::Cut),
        () = end.cancelled() => return,
    };
    let (client, backend) = match switched {
        Ok((Ok(client), Ok(backend))) => (client, backend),
        Ok(_) => return, // One side closed in the moment of switching; the drop closes the other.
        Err(_) => return exchange.end(Reason::TunnelIdle),
    };
    let (client_read, client_write) = split(TokioIo::new(client));
    let (backend_read, backend_write) = split(TokioIo::new(backend));
    let moved = Cell::new(Instant::now());
    let (up, down) = (Cell::new(0), Cell::new(0));
    // Whoever fails to read or to write is the one who ends it; but many clients end TLS without a word for it once the
    // backend has ended.
    let over = Cell::new(false);
    let by_client = |_| match over.get() {
        true => Reason::Ok,
        false => Reason::ClientAbort,
    };
    let by_backend = |_| Reason::ResponseTruncated;
    let both = async {
        let down = async {
            let (from, to) = ((backend_read, by_backend), (client_write, by_client));
            pump(from, to, &down, &moved).await?;
            over.set(true);
            Ok(())
        };
        let (from, to) = ((client_read, by_client), (backend_write, by_backend));
        tokio::try_join!(pump(from, to, &up, &moved), down)
    };
    // However it ends, both sides are closed by the drop.
    tokio::select! {
        ended = both => exchange.end(ended.map_or_else(|reason| reason, |_| Reason::Ok)),
        () = silence(&moved, idle) => exchange.end(Reason::TunnelIdle),
        () = cut.cancelled() => exchange.end(Reason::Cut),
        () = end.cancelled() => {}
    }
    exchange.carried(up.get(), down.get());
}

/// Copies until the end, and passes the end on, since each side may close its half first.
/// What fails on either side is the reason that it gives.
async fn pump<R>(
    (mut from, unread): (impl AsyncRead + Unpin, impl Fn(io::Error) -> R),
    (mut to, unwritten): (impl AsyncWrite + Unpin, impl Fn(io::Error) -> R),
    bytes: &Cell<u64>,
    moved: &Cell<Instant>,
) -> Result<(), R> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await.map_err(&unread)?;
        moved.set(Instant::now());
        if read == 0 {
            return to.shutdown().await.map_err(&unwritten);
        }
        let piece = &buffer[..read];
        to.write_all(piece).await.map_err(&unwritten)?;
        // TLS may still have some of it.
        to.flush().await.map_err(&unwritten)?;
        moved.set(Instant::now());
        bytes.set(bytes.get() + read as u64);
    }
}

/// Ends when nothing has moved for `idle`.
async fn silence(moved: &Cell<Instant>, idle: Duration) {
    while moved.get().elapsed() < idle {
        sleep_until(moved.get() + idle).await;
    }
}

const BUFFER: usize = 16 * 1024;
