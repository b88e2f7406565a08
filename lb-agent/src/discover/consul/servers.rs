//! The servers of one cluster, and which of them is asked. It sends nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;
use tracing::info;

use super::{config::Config, error::SetupError, server::Server};

/// Those that can be asked. One is, until it fails.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) all: Vec<Server>,
    /// Who is asked first.
    current: watch::Sender<usize>,
    /// Who answered last, to tell a change once.
    answered: AtomicUsize,
}

impl Servers {
    /// Those of `config`, of which the one at `current` is asked first.
    pub(super) fn new(config: &Config, current: usize) -> Result<Self, SetupError> {
        let tls = config.tls.load_for(&config.addresses)?;
        let all = config.addresses.iter();
        Ok(Self {
            all: all
                .map(|address| {
                    let url = config.tls.named(address.url())?;
                    Ok(Server::new(address.clone(), url, tls.clone())?)
                })
                .collect::<Result<_, SetupError>>()?,
            current: watch::Sender::new(current),
            answered: AtomicUsize::new(current),
        })
    }

    /// Whether one connection carries many requests, now and after any failure. `None` is not known yet.
    pub(super) fn multiplex(&self) -> Option<bool> {
        let all_may = self.all.iter().all(|server| server.address.is_tls());
        if !all_may {
            return Some(false);
        }
        self.current().1.multiplexes()
    }

    /// Who is asked first.
    pub(super) fn current(&self) -> (usize, &Server) {
        let at = *self.current.borrow();
        (at, &self.all[at])
    }

    /// The one to ask after the one at `at`.
    pub(super) fn after(&self, at: usize) -> usize {
        (at + 1) % self.all.len()
    }

    /// Leaves the server at `from`, unless somebody else did, for the one at `to`.
    pub(super) fn leave(&self, from: usize, to: usize) {
        self.current.send_if_modified(|current| {
            let is_current = *current == from;
            if is_current {
                *current = to;
            }
            is_current
        });
    }

    /// Ends when the server at `at` is left, or is not the one that is asked first.
    pub(super) async fn left(&self, at: usize) {
        // We hold the sender, so it is never an error.
        let mut current = self.current.subscribe();
        let _ = current.wait_for(|current| *current != at).await;
    }

    /// Tells once when another one answers than before.
    pub(super) fn answered_by(&self, at: usize) {
        let before = self.answered.swap(at, Ordering::Relaxed);
        if before != at {
            let (from, to) = (&self.all[before].address, &self.all[at].address);
            info!(%from, %to, "another Consul is asked");
        }
    }
}
