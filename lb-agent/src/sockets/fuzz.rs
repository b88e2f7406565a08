//! The doors of the fuzz targets to what the kernel says of sockets.

use super::{
    process,
    wire::{self, Message},
};

/// What a message says, as far as it matters from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A socket with a record.
    Found(String),
    /// One that may have one.
    Untold(String),
    Other,
    End(i32),
    /// Bytes that make no sense.
    Malformed,
}

/// The messages of a datagram that answers a question about `protocol`. What it takes to end one of those sockets names
/// that socket.
pub(crate) fn messages(bytes: &[u8], protocol: u8) -> Vec<Said> {
    let said = wire::messages(bytes, protocol).map(|message| match message {
        Ok(Message::Found(found)) => {
            ends(&found.socket, bytes);
            Said::Found(format!("{found:?}"))
        }
        Ok(Message::Untold(socket)) => {
            ends(&socket, bytes);
            Said::Untold(format!("{socket:?}"))
        }
        Ok(Message::Other) => Said::Other,
        Ok(Message::End(error)) => Said::End(error),
        Err(wire::Malformed) => Said::Malformed,
    });
    said.collect()
}

fn ends(socket: &wire::Socket, listed: &[u8]) {
    let order = wire::destroy(&socket.id);
    let length = order.first_chunk().copied().map(u32::from_ne_bytes);
    assert_eq!(length.map(|it| it as usize), Some(order.len()));
    // As the kernel named it, cookie and all.
    let id = &order[order.len() - 48..];
    assert!(listed.windows(48).any(|it| it == id));
}

/// The container that a process with these cgroups runs in.
pub(crate) fn container(cgroups: &str) -> Option<String> {
    process::container(cgroups)
}
