//! What a front is told of the routes: all of them first, and then what changes.

use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc};

use tokio::task::spawn_blocking;

use super::{
    super::{control::Order, table::Settings},
    listen,
};
use crate::{
    catalog::Problem,
    routes::{Follower, RouteConfig},
    snapshot::Snapshot,
};

/// What one connection has carried.
pub(super) struct Telling {
    follower: Follower,
    /// What it follows.
    snapshot: Arc<Snapshot>,
    /// The host's addresses beside those that it has at the moment.
    addresses: BTreeSet<IpAddr>,
    settings: Settings,
    has_told: bool,
}

impl Telling {
    pub(super) fn new(config: RouteConfig, settings: Settings) -> Self {
        Self {
            snapshot: Arc::default(),
            addresses: config.host_addresses.clone(),
            follower: Follower::new(config),
            settings,
            has_told: false,
        }
    }

    /// Whether the front has been told anything.
    pub(super) fn has_told(&self) -> bool {
        self.has_told
    }

    /// What to say about `snapshot`; `None` if the routes stay as they are. On another thread, for the maps must not
    /// wait for it.
    pub(super) async fn order(
        mut self,
        snapshot: Arc<Snapshot>,
    ) -> io::Result<(Self, Option<Order>)> {
        let follow = move || {
            let addresses = &self.addresses | &listen::host_addresses();
            let change = self.follower.follow(&self.snapshot, &snapshot, &addresses);
            self.snapshot = snapshot;
            let order = if !std::mem::replace(&mut self.has_told, true) {
                Some(Order::Routes(change, self.settings.clone()))
            } else {
                (!change.is_empty()).then_some(Order::Change(change))
            };
            (self, order)
        };
        spawn_blocking(follow).await.map_err(io::Error::other)
    }

    /// What could not become a route.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.follower.problems()
    }
}
