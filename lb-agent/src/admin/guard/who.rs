//! Who asks, from where, and what a request of theirs may do.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Where a request came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Actor {
    /// Over the unix socket; the kernel says who it is.
    Local {
        /// The user of the process at the other end.
        uid: u32,
        /// What that user is here.
        rank: Rank,
    },
    /// Over TCP.
    Remote {
        /// The other end.
        peer: SocketAddr,
        /// Our end.
        own: SocketAddr,
    },
}

/// What a user of this host is to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Rank {
    /// Root, or the agent's own user.
    Owner,
    /// One of `[admin] allow_uids`.
    Listed,
    /// Anybody else.
    Stranger,
}

/// What a request may do: for handlers, which find it among its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct Access {
    /// Whether it may read. One that may not reaches nothing but the session and the probes.
    pub(in crate::admin) may_read: bool,
    /// Whether whoever sent it may change something, from where it was sent.
    pub(in crate::admin) may_change: bool,
    /// Who sent it.
    pub(in crate::admin) who: Who,
    /// From which address; `None` for the unix socket.
    pub(in crate::admin) client: Option<IpAddr>,
    /// Whether it came to where the page is published.
    pub(in crate::admin) published: bool,
    /// Whether it came there by TLS.
    pub(in crate::admin) secure: bool,
    /// Whether everybody may read from where it was sent.
    pub(in crate::admin) open: bool,
}

impl Access {
    /// Whether it may be told who the clients are and which processes these have: whoever may change something at the address
    /// that the page listens on, and reads there, may know that, too.
    pub(in crate::admin) fn sees_clients(&self) -> bool {
        self.who.known() && !self.published
    }

    /// Where it came from, for the audit.
    pub(in crate::admin) fn source(&self) -> String {
        match self.client {
            None => "socket".to_owned(),
            Some(client) => client.to_string(),
        }
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Who {
    /// Nobody who said so.
    Nobody,
    /// A user of this host.
    User(u32),
    /// Who knows the token.
    Token,
    /// Who knew the token when the session with this number was opened.
    Session(u64),
}

impl Who {
    /// Whether it is somebody.
    pub(in crate::admin) fn known(self) -> bool {
        self != Self::Nobody
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Token => f.write_str("token"),
            Self::Session(number) => write!(f, "session {number}"),
        }
    }
}
