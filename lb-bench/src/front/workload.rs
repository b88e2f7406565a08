//! What clients ask for, and what they are answered.

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// Small requests, one after the other on each connection.
    KeepAlive,
    /// Each small request on a connection of its own, which the proxy closes.
    Connect,
    /// Large answers on connections that stay.
    LargeBody,
    /// Frames to and fro on an upgraded connection.
    Websocket,
    /// Small requests, many at a time on one connection.
    Http2,
    /// As [`KeepAlive`](Self::KeepAlive), with TLS.
    Tls,
    /// As [`Connect`](Self::Connect), with TLS: a whole handshake for each, since no session is resumed.
    TlsConnect,
}

impl Workload {
    pub(super) const ALL: [Self; 7] = [
        Self::KeepAlive,
        Self::Connect,
        Self::LargeBody,
        Self::Websocket,
        Self::Http2,
        Self::Tls,
        Self::TlsConnect,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "small requests, kept alive",
            Self::Connect => "a connection for each request",
            Self::LargeBody => "bodies of 100 KB",
            Self::Websocket => "WebSocket echo",
            Self::Http2 => "HTTP/2, 100 streams",
            Self::Tls => "small requests by TLS",
            Self::TlsConnect => "a TLS handshake for each",
        }
    }

    /// What stands in front of the names of its figures.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::KeepAlive => "",
            Self::Connect => "connect_",
            Self::LargeBody => "large_body_",
            Self::Websocket => "websocket_",
            Self::Http2 => "http2_",
            Self::Tls => "tls_",
            Self::TlsConnect => "tls_connect_",
        }
    }

    /// Whether clients speak TLS.
    pub(super) fn encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::TlsConnect)
    }

    /// Whether each request has a connection of its own, which the proxy closes.
    pub(super) fn closes(self) -> bool {
        matches!(self, Self::Connect | Self::TlsConnect)
    }

    /// What a client of HTTP/1 sends at once; once more for each answer, unless it is answered with [`SWITCHED`].
    pub(super) fn request(self) -> &'static [u8] {
        match self {
            Self::KeepAlive | Self::Http2 | Self::Tls => {
                b"GET /small HTTP/1.1\r\nHost: web.localhost\r\n\r\n"
            }
            Self::Connect | Self::TlsConnect => {
                b"GET /small HTTP/1.1\r\nHost: web.localhost\r\nConnection: close\r\n\r\n"
            }
            Self::LargeBody => b"GET /large HTTP/1.1\r\nHost: web.localhost\r\n\r\n",
            // Key and answer of RFC 6455.
            Self::Websocket => {
                b"GET /echo HTTP/1.1\r\nHost: web.localhost\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            }
        }
    }
}

/// The name that clients use.
pub(super) const HOST: &str = "web.localhost";

/// A masked binary frame of 64 bytes: proxies do not look into it.
pub(super) const FRAME: [u8; 70] = {
    let mut frame = [0x55; 70];
    frame[0] = 0x82;
    frame[1] = 0x80 | 64;
    frame
};

/// The answer to an upgrade.
pub(super) const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The whole answer with a body of so many bytes.
pub(super) fn answer(length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

/// The bodies.
pub(super) const SMALL: usize = 64;
pub(super) const LARGE: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::reply::Reply;

    #[test]
    fn every_request_is_whole_and_for_the_host() {
        for workload in Workload::ALL {
            let request = std::str::from_utf8(workload.request()).unwrap();
            assert!(
                request.contains(&format!("\r\nHost: {HOST}\r\n")),
                "{request}"
            );
            assert!(request.ends_with("\r\n\r\n"), "{request}");
        }
    }

    #[test]
    fn an_answer_has_the_length_that_it_says() {
        for length in [SMALL, LARGE] {
            assert!(Reply::default().take(&answer(length)).unwrap());
        }
    }
}
