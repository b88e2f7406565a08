//! A client's connection, without or with TLS.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddrV4, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use super::workload::HOST;

/// What clients need for TLS; `None` without.
pub(super) type Trust = Option<Arc<ClientConfig>>;

/// A connection; what it is sent before the handshake is over goes out behind that.
pub(super) struct Wire {
    stream: TcpStream,
    session: Option<ClientConnection>,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(super) fn connect(proxy: SocketAddrV4, trust: &Trust) -> io::Result<Self> {
        Self::over(TcpStream::connect(proxy)?, trust)
    }

    /// The same over a connection that stands.
    ///
    /// # Errors
    /// When an option of the socket cannot be set.
    pub(super) fn over(stream: TcpStream, trust: &Trust) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let session = trust.as_ref().map(|config| {
            let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
            ClientConnection::new(config.clone(), name).map_err(io::Error::other)
        });
        Ok(Self {
            stream,
            session: session.transpose()?,
        })
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends so little that it always fits.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let Some(session) = &mut self.session else {
            return self.stream.write_all(message);
        };
        session.writer().write_all(message)?;
        flush(session, &mut self.stream)
    }

    /// What has come, if only its end: 0. With an error of the kind `WouldBlock` that is nothing yet.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return self.stream.read(buffer);
        };
        loop {
            match session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            session.read_tls(&mut self.stream)?;
            session.process_new_packets().map_err(io::Error::other)?;
            flush(session, &mut self.stream)?;
        }
    }
}

fn flush(session: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(stream)?;
    }
    Ok(())
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
