//! What is known of the engine and its containers, as one value.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use super::Container;

/// Containers by their full id.
pub type Containers = BTreeMap<String, Arc<Container>>;

/// Networks by their name.
pub type Networks = BTreeMap<String, Network>;

/// A network of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// It leads nowhere else, not even to the host's published ports.
    pub internal: bool,
}

/// What the engine last said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// All containers, those that ended included; `None` before the first full list. While the engine cannot be
    /// reached the last ones stay.
    pub containers: Option<Arc<Containers>>,
    /// Ids of containers that are there and could not be read: they are not among `containers`.
    pub unread: BTreeSet<String>,
    /// All networks; `None` before the engine has told them.
    pub networks: Option<Arc<Networks>>,
    /// What the engine calls its host.
    pub name: Option<String>,
    /// When the last good list came. This moves without waking anybody.
    pub updated: Option<SystemTime>,
    /// Why the engine cannot be followed at the moment.
    pub error: Option<String>,
}
