//! A socket to a backend, and why there is none.

use std::{io, net::SocketAddr};

use nix::errno::Errno;
use tokio::net::TcpStream;

use crate::answer::Reason;

pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, Reason> {
    let stream = TcpStream::connect(address).await.map_err(|error| {
        tracing::debug!(%address, %error, "no connection to a backend");
        unconnected(&error)
    })?;
    // Only slower without it.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Why there is no connection. What this host lacks is not the backend's fault.
fn unconnected(error: &io::Error) -> Reason {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::EMFILE
            | Errno::ENFILE
            | Errno::EADDRNOTAVAIL
            | Errno::EAGAIN
            | Errno::ENOBUFS
            | Errno::ENOMEM,
        ) => Reason::Limit,
        Some(
            // A rule of its own firewall, which is for this backend and not for all.
            Errno::EACCES
            | Errno::EPERM
            | Errno::EHOSTUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETUNREACH
            | Errno::ENETDOWN
            | Errno::ETIMEDOUT,
        ) => Reason::ConnectTimeout,
        _ => Reason::ConnectRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backend_that_refused_is_said_to_have_refused() {
        for (errno, reason) in [
            (Errno::ECONNREFUSED, Reason::ConnectRefused),
            (Errno::ECONNRESET, Reason::ConnectRefused),
            (Errno::EHOSTUNREACH, Reason::ConnectTimeout),
            (Errno::ENETUNREACH, Reason::ConnectTimeout),
            (Errno::EMFILE, Reason::Limit),
            (Errno::ENFILE, Reason::Limit),
            (Errno::EACCES, Reason::ConnectTimeout),
            (Errno::EPERM, Reason::ConnectTimeout),
            // No port is left.
            (Errno::EADDRNOTAVAIL, Reason::Limit),
        ] {
            assert_eq!(unconnected(&errno.into()), reason, "{errno}");
        }
    }
}
