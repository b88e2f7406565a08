//! What a front is told of the routes: all of them first, and then what changes.

use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc, time::Duration};

use tokio::task::spawn_blocking;

use lb_front::{
    Settings,
    control::{Order, encode},
};

use super::listen;
use crate::{
    catalog::Problem,
    cpu,
    front::users::Lists,
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
    users: Arc<Lists>,
    has_told: bool,
}

/// What there is to say about a snapshot.
pub(super) struct Told {
    /// As it is sent; `None` if the routes stay as they are.
    pub(super) order: Option<Vec<u8>>,
    /// The CPU time that it took to find out.
    pub(super) cost: Duration,
}

impl Telling {
    pub(super) fn new(config: RouteConfig, settings: Settings) -> Self {
        Self {
            snapshot: Arc::default(),
            addresses: config.host_addresses.clone(),
            follower: Follower::new(config),
            settings,
            users: Arc::default(),
            has_told: false,
        }
    }

    /// Whether the front has been told anything.
    pub(super) fn has_told(&self) -> bool {
        self.has_told
    }

    /// What to say about `snapshot` and `users`. On another thread, for the maps must not wait for it.
    pub(super) async fn order(
        mut self,
        snapshot: Arc<Snapshot>,
        users: Arc<Lists>,
    ) -> io::Result<(Self, Told)> {
        let follow = move || {
            let began = cpu::time();
            let addresses = &self.addresses | &listen::host_addresses();
            let mut change = self.follower.follow(&self.snapshot, &snapshot, &addresses);
            self.snapshot = snapshot;
            change.users = users.since(&self.users);
            self.users = users;
            let order = if !std::mem::replace(&mut self.has_told, true) {
                Some(Order::Routes(change, Box::new(self.settings.clone())))
            } else {
                (!change.is_empty()).then_some(Order::Change(change))
            };
            let order = order.map(|order| encode(&order)).transpose()?;
            let cost = cpu::time().saturating_sub(began);
            Ok((self, Told { order, cost }))
        };
        spawn_blocking(follow).await.map_err(io::Error::other)?
    }

    /// What could not become a route.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.follower.problems().chain(self.users.problems())
    }
}
