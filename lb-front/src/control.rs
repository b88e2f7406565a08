//! The messages between agent and front: a length of four bytes, then JSON. The first message of each side
//! says which version it speaks. Sides of different versions have the hellos, the listeners beside the front's
//! ([`handover`](super::handover)), `drain` and `retire` in common, which are the same in every version: it takes no more to let one
//! front follow another without losing a client.

use std::{io, net::SocketAddr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{pages::Pages, routes::RoutesChange, stats::FrontStats, table::Settings, tls::Tls};

/// Changes with every change of a message, including routes and figures.
pub const VERSION: u32 = 19;

/// The name of the passed listening socket that the agent connects to.
pub const CONTROL: &str = "control";

/// The name of the passed listeners for clients.
pub const FRONT: &str = "front";

/// The name of the passed listeners for clients that speak TLS.
pub const FRONT_TLS: &str = "front-tls";

/// What the front says first, with its listeners beside it. Version and process id stay where they are in every version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of its side.
    pub version: u32,
    /// The socket's own credentials name the agent that opened it, not the front.
    pub pid: i32,
    /// Where it listens.
    #[serde(default)]
    pub listeners: Vec<SocketAddr>,
    /// Those of them that are for TLS.
    #[serde(default)]
    pub tls: Vec<SocketAddr>,
    /// Whether it has routes from an earlier agent.
    #[serde(default)]
    pub has_routes: bool,
    /// What it was started as: [`ChildArgs::kind`](super::ChildArgs::kind).
    #[serde(default)]
    pub kind: String,
}

/// What the agent says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First of all.
    Hello {
        /// [`VERSION`] of its side.
        version: u32,
    },
    /// Follow these from now on, which are all there are.
    Routes(RoutesChange, Box<Settings>),
    /// Change those that you have.
    Change(RoutesChange),
    /// Show these to clients that speak TLS from now on.
    Certificates(Tls),
    /// Show these pages from now on. Nothing is said to it.
    Pages(Pages),
    /// Write the access log into the file that comes next, beside a byte of its own, or to standard output. Nothing is said
    /// to it.
    Log {
        /// Whether there is one.
        file: bool,
    },
    /// Finish what is in flight and end.
    Drain,
    /// Take no more connections, for another front does, and end with the last one that there is, or by `drain`.
    Retire {
        /// After this many it is as with `drain`.
        seconds: u64,
    },
}

/// What the front says after its hello.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// At first, and when something has left them.
    Figures(FrontStats),
    /// What has changed in them since, at most once a second: see [`FrontStats::learn`].
    News(FrontStats),
    /// Requests follow all routes that were sent so far.
    Follows,
    /// Clients are shown the certificates of this [`Tls::number`].
    Shows(u64),
}

/// Sends one message.
pub async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?).await
}

/// One message as it is sent. In one buffer: the routes of a large catalog are ten megabytes.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Waits for one message; `None` when the other side has closed. Not to be dropped in the middle.
pub async fn receive<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let length = match from.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > LIMIT {
        let message = format!("a message of {length} bytes is longer than any should be");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    // Grows with what really comes, not with what is announced.
    let mut body = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut body).await?;
    if body.len() < length as usize {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Far above 16,384 backends and their names.
const LIMIT: u32 = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_arrives_as_it_was_sent() {
        let (mut here, mut there) = tokio::io::duplex(16);
        let sent = Order::Routes(RoutesChange::default(), Box::default());
        let (sent_fine, received) =
            tokio::join!(send(&mut here, &sent), receive::<Order>(&mut there));
        sent_fine.unwrap();
        let Some(Order::Routes(routes, settings)) = received.unwrap() else {
            panic!("another message");
        };
        let empty = (RoutesChange::default(), Box::default());
        assert_eq!((routes, settings), empty);
    }

    #[test]
    fn what_all_versions_have_in_common_stays_as_it_is() {
        let said = |order| serde_json::to_string(&order).unwrap();
        assert_eq!(
            said(Order::Hello { version: 9 }),
            r#"{"hello":{"version":9}}"#
        );
        assert_eq!(said(Order::Drain), r#""drain""#);
        assert_eq!(
            said(Order::Retire { seconds: 9 }),
            r#"{"retire":{"seconds":9}}"#
        );
        let hello: Hello = serde_json::from_str(r#"{"version":9,"pid":7,"new":1}"#).unwrap();
        assert_eq!((hello.version, hello.pid), (9, 7));
    }

    #[tokio::test]
    async fn an_absurd_length_is_refused_before_memory_is_taken() {
        let mut bytes: &[u8] = &[0xff; 8];
        assert!(receive::<Order>(&mut bytes).await.is_err());
    }

    #[tokio::test]
    async fn a_closed_connection_is_no_message() {
        let mut cut: &[u8] = &[0, 0, 0, 9, b'"'];
        assert!(receive::<Order>(&mut cut).await.unwrap().is_none());
        assert!(
            receive::<Order>(&mut io::Cursor::new(Vec::new()))
                .await
                .unwrap()
                .is_none()
        );
    }
}
