//! How the registrar behaves.

use std::{collections::BTreeSet, time::Duration};

use super::{settings::Settings, wish::Deregister};

/// How the registrar behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The identity of this host; `None` takes that of the Consul agent's node or of the engine.
    pub host: Option<String>,
    /// How containers are read; its `host` and, where it is `None`, its `host_address` are found out.
    pub settings: Settings,
    /// When the services of a container that ended are removed.
    pub deregister: Deregister,
    /// How long the services of an ending container may stay in maintenance.
    pub drain: Duration,
    /// How often what Consul holds is looked at although no container changed.
    pub resync: Duration,
    /// How often the heartbeat is renewed; `None` is half of its time.
    pub ttl_refresh: Option<Duration>,
    /// Host names under which a Registrator registered what is taken over.
    pub adopt: BTreeSet<String>,
    /// Whether the services are removed when the registrar ends.
    pub deregister_on_exit: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: None,
            settings: Settings::new(""),
            deregister: Deregister::Always,
            drain: Duration::from_secs(600),
            resync: Duration::from_secs(10),
            ttl_refresh: None,
            adopt: BTreeSet::new(),
            deregister_on_exit: false,
        }
    }
}
