//! After a 101: bytes both ways until both sides have closed, nothing moves for too long, or the front must
//! end.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::backend::pool::Place;

/// Joins the two upgraded connections. The backend's has a `place` among those allowed; the client's brings
/// its own along.
pub(super) async fn run(
    client: OnUpgrade,
    backend: OnUpgrade,
    _place: Rc<Place>,
    idle: Duration,
    end: CancellationToken,
) {
    let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else {
        return; // One side closed in the moment of switching; the drop closes the other.
    };
    let (client_read, client_write) = split(TokioIo::new(client));
    let (backend_read, backend_write) = split(TokioIo::new(backend));
    let moved = Cell::new(Instant::now());
    let both = async {
        tokio::try_join!(
            pump(client_read, backend_write, &moved),
            pump(backend_read, client_write, &moved),
        )
    };
    // However it ends, both sides are closed by the drop.
    tokio::select! {
        _ = both => {}
        () = silence(&moved, idle) => {}
        () = end.cancelled() => {}
    }
}

/// Copies until the end, and passes the end on, since each side may close its half first.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Cell<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        moved.set(Instant::now());
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        moved.set(Instant::now());
    }
}

/// Ends when nothing has moved for `idle`.
async fn silence(moved: &Cell<Instant>, idle: Duration) {
    while moved.get().elapsed() < idle {
        sleep_until(moved.get() + idle).await;
    }
}

const BUFFER: usize = 16 * 1024;
