//! One probe of one target.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    Request, StatusCode,
    client::conn::{http1, http2},
    header,
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    select,
    task::JoinSet,
    time::timeout,
};

use super::{Outcome, Target};
use crate::{causes::error_chain, options::CheckKind};

/// Asks `target`, for at most `limit`.
pub(super) async fn probe(target: &Target, limit: Duration) -> Outcome {
    let began = Instant::now();
    let (address, check) = target;
    let asked = async {
        let mut stream = connect(*address).await?;
        match check {
            CheckKind::Http(path) => get(stream, *address, path).await,
            CheckKind::HttpAfter(how, path) => {
                let told = stream.write_all(&how.of_ourselves()).await;
                told.map_err(|error| Outcome::Failed(plain(&error)))?;
                get(stream, *address, path).await
            }
            CheckKind::Http2(path) => get_by_http2(stream, *address, path).await,
            CheckKind::Tcp | CheckKind::Off => Ok(()),
        }
    };
    match timeout(limit, asked).await {
        Ok(Ok(())) => Outcome::Passed(began.elapsed()),
        Ok(Err(outcome)) => outcome,
        Err(_) => Outcome::Failed(format!("no answer within {limit:?}")),
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Outcome> {
    let unable = |error: io::Error| Outcome::Unable(format!("this host cannot probe: {error}"));
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAFNOSUPPORT) => no_way("has no IPv6"),
        _ => unable(error),
    })?;
    // A close by reset: no port waits in TIME_WAIT, however many targets there are.
    socket.set_zero_linger().map_err(unable)?;
    socket
        .connect(address)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable if lacks_source(address) => {
                no_way("has no address to reach it from")
            }
            // The ports of this host have run out.
            io::ErrorKind::AddrNotAvailable => unable(error),
            _ => Outcome::Failed(plain(&error)),
        })
}

/// No client on this host reaches the backend either, as long as it is so: a fact about the backend, not a fault that
/// passes.
fn no_way(why: &str) -> Outcome {
    Outcome::Failed(format!("this host {why}"))
}

/// Whether no address of this host leads to `address`, as without IPv6. Of UDP, for the kernel says the same of TCP when
/// its ports have run out; nothing is sent.
fn lacks_source(address: SocketAddr) -> bool {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect(address))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// A GET of `path`; only the head of the answer is read.
async fn get(stream: TcpStream, address: SocketAddr, path: &str) -> Result<(), Outcome> {
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Outcome::Failed(format!("cannot ask for {path}: {error}")))?;
    let broken = |error: hyper::Error| Outcome::Failed(format!("no HTTP answer: {error}"));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_LIMIT as usize)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answer = answer(sender.send_request(request), connection).await;
    judge(answer.map_err(broken)?.status())
}

/// The same, to a server that speaks HTTP/2 and is not asked whether it does.
async fn get_by_http2(stream: TcpStream, address: SocketAddr, path: &str) -> Result<(), Outcome> {
    let request = Request::get(format!("http://{address}{path}"))
        .header(header::USER_AGENT, USER_AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| Outcome::Failed(format!("cannot ask for {path}: {error}")))?;
    let broken =
        |error: hyper::Error| Outcome::Failed(format!("no HTTP/2 answer: {}", error_chain(&error)));
    let tasks = Arc::default();
    let (mut sender, connection) = http2::Builder::new(Beside(Arc::downgrade(&tasks)))
        .max_header_list_size(HEAD_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answer = answer(sender.send_request(request), connection).await;
    judge(answer.map_err(broken)?.status())
}

/// An answer, while its connection runs, which may end in the moment in which the answer is complete.
async fn answer<T>(answer: impl Future<Output = T>, connection: impl Future) -> T {
    tokio::pin!(answer, connection);
    select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

/// Runs what a connection needs beside a probe: it ends with the probe, whatever the server does.
#[derive(Clone)]
struct Beside(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Beside {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.spawn(task);
        }
    }
}

fn judge(status: StatusCode) -> Result<(), Outcome> {
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(Outcome::Failed(format!("HTTP status {}", status.as_u16())))
    }
}

/// The system's words without its number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

const USER_AGENT: &str = "lb-agent (health check)";

/// Bytes that the head of an answer may have; hyper takes no less than 8 KiB.
const HEAD_LIMIT: u32 = 16 << 10;

#[cfg(test)]
mod tests;
