//! What the grammar needs to know of this host and of the operator's choices.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::template::Template;

/// How containers are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The stable identity of this host: the first part of every id, and our mark.
    pub host: String,
    /// Which address is registered.
    pub addressing: Addressing,
    /// The host's address for every published port, whatever the port is bound to.
    pub ip: Option<IpAddr>,
    /// The host's address where a port is bound to all of them and `ip` is not set.
    pub host_address: Option<IpAddr>,
    /// Other addresses of the host, by their tags: what is published is registered at each of them, too.
    pub tagged: BTreeMap<String, IpAddr>,
    /// Which of a container's networks is meant, best first.
    pub networks: Vec<String>,
    /// A label that holds the address to register.
    pub address_label: Option<String>,
    /// Tags of every service.
    pub tags: Vec<Template>,
    /// Whether only ports with a name are registered.
    pub explicit: bool,
    /// The attributes that are copied into Meta, which everybody with read access sees; `None` means all.
    pub attributes: Option<BTreeSet<String>>,
    /// The time within which we must renew a check of every service; `None` is no such check.
    pub ttl: Option<std::time::Duration>,
}

/// Which address of a container is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// Where the host publishes the port.
    Published,
    /// The container's own.
    Internal,
}

impl Settings {
    /// The defaults for the host with this identity.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            addressing: Addressing::Published,
            ip: None,
            host_address: None,
            tagged: BTreeMap::new(),
            networks: Vec::new(),
            address_label: None,
            tags: Vec::new(),
            explicit: false,
            attributes: None,
            ttl: None,
        }
    }

    /// Where a port can be reached that is bound to all addresses of the host.
    pub(super) fn published_address(&self) -> Option<IpAddr> {
        self.ip.or(self.host_address)
    }
}
