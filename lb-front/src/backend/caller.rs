//! The client that a connection to a backend is for, where the backend is told by the PROXY protocol. It carries no request
//! of any other client's connection.

use std::sync::{Arc, Weak};

use crate::{client::ClientState, rules::ProxyProtocol};

/// A client's connection, and how its backend is told.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) how: ProxyProtocol,
    pub(super) client: Arc<ClientState>,
}

/// The same where nothing is under way, which holds no client back.
pub(super) struct Known {
    how: ProxyProtocol,
    client: Weak<ClientState>,
}

impl Caller {
    /// What the backend is told.
    pub(super) fn header(&self) -> Vec<u8> {
        self.how.of(self.client.ends)
    }

    /// Whether no further request of it comes.
    pub(super) fn leaves(&self) -> bool {
        self.client.leaves()
    }

    pub(super) fn known(&self) -> Known {
        Known {
            how: self.how,
            client: Arc::downgrade(&self.client),
        }
    }
}

impl Known {
    pub(super) fn is(&self, caller: &Caller) -> bool {
        self.how == caller.how && Weak::as_ptr(&self.client) == Arc::as_ptr(&caller.client)
    }

    /// Whether the client's connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.client.strong_count() == 0
    }
}
