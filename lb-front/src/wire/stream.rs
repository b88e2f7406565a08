//! What carries the bytes: a socket, bare or within TLS.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// What carries a client's bytes, in whatever wrapping.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether that is TLS.
    const SECURE: bool;

    /// The socket at its bottom.
    fn tcp(&self) -> &TcpStream;

    /// Sends `last_word`, if that is anything, as far as the socket takes it at once; and says that nothing follows where there
    /// is a word for it.
    fn end_with(&mut self, last_word: &[u8]);
}

impl Stream for TcpStream {
    const SECURE: bool = false;

    fn tcp(&self) -> &TcpStream {
        self
    }

    fn end_with(&mut self, last_word: &[u8]) {
        if !last_word.is_empty() {
            // Whoever does not take this does not get it.
            let _ = self.try_write(last_word);
        }
    }
}
