//! The way to a front that may or may not be there.

use std::{
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_sys::process::Process;
use nix::sys::socket::{setsockopt, sockopt::PassCred};
use tokio::{
    io::AsyncReadExt as _,
    net::{
        UnixSocket,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use lb_front::{
    Listeners,
    control::{self, Hello, Order, VERSION},
    handover::{self, Handed},
};

/// A front that said hello.
pub(super) struct Living {
    pub(super) reports: OwnedReadHalf,
    pub(super) orders: OwnedWriteHalf,
    pub(super) hello: Hello,
    /// What it listens on, for the next one; empty if it knows no hand-over.
    pub(super) listeners: Listeners,
    /// Its process, if that has a number here.
    sender: Option<i32>,
}

impl Living {
    pub(super) async fn order(&mut self, order: &Order) -> io::Result<()> {
        control::send(&mut self.orders, order).await
    }

    /// Ends with the front, or with this connection of it. May be dropped and called again.
    pub(super) async fn ended(&mut self) {
        while matches!(self.reports.read(&mut [0; 1024]).await, Ok(1..)) {}
    }

    /// Asks the front behind `control` to end, which knows no order of ours, by a signal: to that process and no other.
    pub(super) async fn terminate(self, control: &Path) -> io::Result<()> {
        let unknown = || io::Error::other("its process is not seen from here");
        let pid = self.sender.ok_or_else(unknown)?;
        let process = Process::open(pid.unsigned_abs())?;
        // Numbers are given again. The front has this one before and after the process was looked up, so it is that.
        if greet(control).await?.sender != Some(pid) {
            return Err(io::Error::other("another one is in its place"));
        }
        process.terminate()
    }
}

/// The front behind `control`. An agent that ended while it replaced one by another has left two: the one behind
/// [`successor`] is told to end, or takes the place of the other where that has begun to.
pub(super) async fn find(control: &Path) -> io::Result<Living> {
    let next = successor(control);
    let left = greet(&next).await.ok();
    match (greet(control).await, left) {
        (Err(error), Some(front)) if is_nobody(&error) && front.hello.has_routes => {
            std::fs::rename(&next, control)?;
            Ok(front)
        }
        // Perhaps the one before is just going, and has been told to: then this one is all there is.
        (Err(error), _) if !is_nobody(&error) => Err(error),
        (found, left) => {
            if let Some(mut left) = left {
                // It may have ended by now.
                let _ = left.order(&Order::Drain).await;
            }
            found
        }
    }
}

/// Where a front is found as long as the one behind `control` is not replaced by it.
pub(super) fn successor(control: &Path) -> PathBuf {
    control.with_extension("next")
}

/// Exchanges hellos with the front behind `control`, if there is one.
pub(super) async fn greet(control: &Path) -> io::Result<Living> {
    let greeting = async {
        let socket = UnixSocket::new_stream()?;
        // Before it says anything. What the socket knows of its peer by itself is the agent that made it listen.
        setsockopt(&socket, PassCred, &true)?;
        let mut stream = socket.connect(control).await?;
        control::send(&mut stream, &Order::Hello { version: VERSION }).await?;
        let hello = handover::receive(&stream).await?;
        let ended = || {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ended at once; its log says why",
            )
        };
        let Handed::<Hello> {
            message,
            listeners,
            sender,
        } = hello.ok_or_else(ended)?;
        let is_tls = |it: &TcpListener| it.local_addr().is_ok_and(|it| message.tls.contains(&it));
        let (tls, plain) = listeners.into_iter().partition(is_tls);
        let listeners = Listeners { plain, tls };
        let (reports, orders) = stream.into_split();
        Ok(Living {
            hello: message,
            reports,
            orders,
            listeners,
            sender,
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

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn the_next_front_stays_while_the_one_before_is_just_going() {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("front.sock");
        let going = UnixListener::bind(&control).unwrap();
        let next = UnixListener::bind(successor(&control)).unwrap();
        let hello = serde_json::json!({"version": VERSION, "pid": 7, "has_routes": true});
        let serve = async {
            let (mut agent, _) = next.accept().await.unwrap();
            control::send(&mut agent, &hello).await.unwrap();
            // It takes nobody any more.
            drop(going.accept().await.unwrap());
            drop(going);
            let mut orders = Vec::new();
            while let Some(order) = control::receive::<Order>(&mut agent).await.unwrap() {
                orders.push(order);
            }
            (agent, orders)
        };
        let (found, (agent, orders)) = tokio::join!(find(&control), serve);
        assert!(!is_nobody(&found.err().unwrap()));
        assert!(matches!(orders[..], [Order::Hello { .. }]), "{orders:?}");
        drop(agent);
        // The next look finds it.
        let serve = async {
            let (mut agent, _) = next.accept().await.unwrap();
            control::send(&mut agent, &hello).await.unwrap();
            agent
        };
        let (found, _agent) = tokio::join!(find(&control), serve);
        assert_eq!(found.unwrap().hello.pid, 7);
        assert!(control.exists() && !successor(&control).exists());
    }
}
