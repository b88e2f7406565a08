//! TLS towards clients: the handshake, and what is under HTTP after it.
//!
//! The front has no file: certificates come from the agent, judged, and a new set takes the place of the old one for the
//! handshakes that follow. Until the first byte a connection is the bare socket, as without TLS; one that speaks plain HTTP
//! is told so.

mod certificate;
mod choose;

use std::{
    collections::HashMap,
    io::{self, Write},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use hyper::StatusCode;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, ProducesTickets},
    version::{TLS12, TLS13},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub use certificate::{Certificate, CertificateError, Usable};

use super::{
    answer::{PLAIN_HTTP, Reason},
    client::ClientState,
    connection, h2, leave,
    wire::Stream,
    worker::Worker,
};
use choose::Choice;

/// What clients of a TLS listener are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The first is for clients that ask for no name that we have.
    pub certificates: Vec<Certificate>,
    /// Proofs for an authority that these names are ours.
    #[serde(default)]
    pub proofs: Vec<(String, Certificate)>,
    /// What the front says once it shows all this.
    #[serde(default)]
    pub number: u64,
    /// Whether TLS 1.2 is too old.
    #[serde(default)]
    pub only_1_3: bool,
}

/// What makes a [`ServerConfig`], and keeps the keys of tickets from one to the next: they are good for the same front.
pub(super) struct Maker {
    provider: Arc<CryptoProvider>,
    tickets: Option<Arc<dyn ProducesTickets>>,
}

impl Maker {
    pub(super) fn new() -> Self {
        Self {
            provider: Arc::new(ring::default_provider()),
            // Without them each connection of a client has a whole handshake.
            tickets: ring::Ticketer::new().ok(),
        }
    }

    /// # Errors
    /// A certificate that cannot be used, which the agent should not have sent.
    pub(super) fn config(&self, tls: &Tls) -> Result<ServerConfig, CertificateError> {
        let usable = tls.certificates.iter();
        let usable: Vec<_> = usable
            .map(|it| it.read_with(&self.provider))
            .collect::<Result<_, _>>()?;
        let proofs = tls.proofs.iter().map(|(name, proof)| {
            let proof = proof.prove_with(&self.provider)?;
            Ok((name.to_ascii_lowercase(), Arc::new(proof)))
        });
        let proofs: HashMap<_, _> = proofs.collect::<Result<_, _>>()?;
        let proves = !proofs.is_empty();
        let versions: &[_] = match tls.only_1_3 {
            true => &[&TLS13],
            false => &[&TLS13, &TLS12],
        };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| CertificateError::Unusable(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Choice::new(&usable, proofs)));
        config.alpn_protocols = vec![H2.to_vec(), HTTP_1.to_vec()];
        if proves {
            config.alpn_protocols.push(ACME.to_vec());
        }
        // No store that workers would share: a ticket holds all that there is to know.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if let Some(tickets) = &self.tickets {
            config.ticketer = tickets.clone();
        }
        Ok(config)
    }
}

/// Shakes hands with the client at `address`, and serves it.
pub(super) async fn serve(
    worker: Rc<Worker>,
    mut socket: TcpStream,
    address: SocketAddr,
    state: Arc<ClientState>,
) {
    match first_byte(&worker, &socket).await {
        None => return,
        // What would be a method. TLS begins with 0x16.
        Some(letter) if letter.is_ascii_alphabetic() => {
            let plain = Fault::Plain;
            refused(
                &worker,
                address,
                plain,
                Some(StatusCode::BAD_REQUEST),
                Duration::ZERO,
            );
            socket.end_with(PLAIN_HTTP);
            return Box::pin(connection::see_off(&worker, &socket)).await;
        }
        Some(_) => {}
    }
    // In boxes, since those that wait for a first byte would have room for all of it.
    let Some(stream) = Box::pin(shake_hands(&worker, socket, address)).await else {
        return;
    };
    match stream.0.get_ref().1.alpn_protocol() {
        Some(H2) => Box::pin(h2::serve(worker, stream, BytesMut::new(), address, state)).await,
        // The handshake was all that the authority wanted.
        Some(ACME) => {}
        _ => Box::pin(connection::serve(worker, stream, address, state)).await,
    }
}

/// Waits for the client to begin. The byte stays where it is.
async fn first_byte(worker: &Worker, socket: &TcpStream) -> Option<u8> {
    let mut first = [0];
    let mut deadline = Instant::now() + worker.limits.get().first_byte;
    let mut hurried = false;
    loop {
        tokio::select! {
            biased;
            peeked = socket.peek(&mut first) => return peeked.ok().filter(|&it| it > 0).map(|_| first[0]),
            () = sleep_until(deadline) => return None,
            () = worker.hurry.cancelled(), if !hurried => {
                hurried = true;
                // As without TLS: one that was just taken from the queue has its hello on the way.
                deadline = deadline.min(Instant::now() + leave::FIRST_REQUEST);
            }
        }
    }
}

async fn shake_hands(worker: &Worker, socket: TcpStream, address: SocketAddr) -> Option<Secured> {
    let began = Instant::now();
    let Some(config) = worker.tls() else {
        refused(worker, address, Fault::NoCertificate, None, Duration::ZERO);
        return None;
    };
    let mut handshake = TlsAcceptor::from(config).accept(socket).into_fallible();
    let result = tokio::select! {
        result = timeout(worker.limits.get().head, &mut handshake) => result,
        () = worker.cut.cancelled() => return None,
    };
    let fault = match result {
        Ok(Ok(stream)) => return Some(Secured(Box::new(stream))),
        Ok(Err((error, socket))) => {
            let fault = Fault::of(&error);
            if fault.is_some() {
                // Our alert is on its way.
                connection::see_off(worker, &socket).await;
            }
            fault
        }
        Err(_) => Some(Fault::Late),
    };
    refused(worker, address, fault?, None, began.elapsed());
    None
}

fn refused(
    worker: &Worker,
    address: SocketAddr,
    fault: Fault,
    status: Option<StatusCode>,
    took: Duration,
) {
    let word = fault.as_str();
    worker.counters.rejected(word);
    tracing::debug!(client = %address, reason = word, "handshake refused");
    let reason = match fault {
        Fault::Late => Reason::HeaderTimeout,
        _ => Reason::BadRequest,
    };
    worker.log.refused(address.ip(), reason, word, status, took);
}

/// Why there was no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is HTTP without TLS.
    Plain,
    /// It took too long.
    Late,
    /// It is no TLS.
    Malformed,
    /// Nothing that both know: a version that is too old, no cipher, no protocol.
    NoAgreement,
    /// The client does not take what it is shown.
    Alert,
    /// There is none for it.
    NoCertificate,
}

impl Fault {
    /// The word in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "tls_plain_http",
            Self::Late => "tls_timeout",
            Self::Malformed => "tls_malformed",
            Self::NoAgreement => "tls_no_agreement",
            Self::Alert => "tls_alert",
            Self::NoCertificate => "tls_no_certificate",
        }
    }

    /// `None`: the client went away.
    fn of(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(match error {
            rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => {
                Self::NoAgreement
            }
            rustls::Error::AlertReceived(_) => Self::Alert,
            // The resolver had none.
            rustls::Error::General(_) => Self::NoCertificate,
            _ => Self::Malformed,
        })
    }
}

/// A client's stream inside TLS. In a box, for it is large and moves about.
pub(super) struct Secured(Box<TlsStream<TcpStream>>);

impl Stream for Secured {
    const SECURE: bool = true;

    fn tcp(&self) -> &TcpStream {
        self.0.get_ref().0
    }

    fn end_with(&mut self, last_word: &[u8]) {
        let (socket, session) = self.0.get_mut();
        // Both into memory. Then what the socket takes at once, as without TLS.
        let _ = session.writer().write_all(last_word);
        session.send_close_notify();
        while session.wants_write()
            && session
                .write_tls(&mut AtOnce(socket))
                .is_ok_and(|it| it > 0)
        {}
    }
}

struct AtOnce<'s>(&'s TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What a client may offer to speak inside (RFC 7301), the first of ours first.
const H2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";
/// An authority that looks for a proof (RFC 8737).
const ACME: &[u8] = b"acme-tls/1";
