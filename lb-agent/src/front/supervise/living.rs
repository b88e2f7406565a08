//! The way to a front that may or may not be there.

use std::{io, path::Path, time::Duration};

use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use lb_front::control::{self, Hello, Order, VERSION};

/// A front that said hello.
pub(super) struct Living {
    pub(super) reports: OwnedReadHalf,
    pub(super) orders: OwnedWriteHalf,
    pub(super) hello: Hello,
}

/// Exchanges hellos with the front behind `control`, if there is one.
pub(super) async fn greet(control: &Path) -> io::Result<Living> {
    let greeting = async {
        let (mut reports, mut orders) = UnixStream::connect(control).await?.into_split();
        control::send(&mut orders, &Order::Hello { version: VERSION }).await?;
        let hello = control::receive(&mut reports).await?;
        let ended = || {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ended at once; its log says why",
            )
        };
        Ok(Living {
            hello: hello.ok_or_else(ended)?,
            reports,
            orders,
        })
    };
    timeout(HELLO, greeting).await?
}

/// Whether a greeting failed because nobody is behind the control socket, or there is none.
pub(super) fn is_nobody(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind())
}

/// How long a front may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
