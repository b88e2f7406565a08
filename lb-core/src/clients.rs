//! Who the clients on this host are: which network namespace belongs to which container, and what can be reached from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

/// The clients that do not stand on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// By the cookie of their network namespace. The host's is never among them.
    pub by_cookie: BTreeMap<u64, Standing>,
}

/// Where a client stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
pub struct Standing {
    /// The full id of the container whose namespace it is.
    pub container: String,
    /// Its name.
    pub name: String,
    /// The networks that the namespace is connected to; none: nothing can be reached from it.
    pub networks: BTreeSet<String>,
    /// Its addresses in all of them.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether one of them leads further than to its own members: to the host's published ports.
    pub outside: bool,
}

/// One line of the list that the admin interface shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
pub struct Client {
    /// The cookie of its network namespace.
    pub cookie: u64,
    /// The rest.
    #[serde(flatten)]
    pub standing: Standing,
}

impl Clients {
    /// The client that is meant by the name of its container, or by the first digits of that container's id.
    pub fn find(&self, meant: &str) -> Option<(u64, &Standing)> {
        let find = |fits: &dyn Fn(&Standing) -> bool| {
            let mut all = self.by_cookie.iter();
            all.find(|(_, standing)| fits(standing))
                .map(|(&cookie, standing)| (cookie, standing))
        };
        // As long as the engine's own short form, or it might be a number or a word.
        let is_id = meant.len() >= 12;
        find(&|it| it.name == meant)
            .or_else(|| find(&|it| is_id && it.container.starts_with(meant)))
    }

    /// All of them, by the name of the container.
    pub fn list(&self) -> Vec<Client> {
        let all = self.by_cookie.iter();
        let mut list: Vec<Client> = all
            .map(|(&cookie, standing)| Client {
                cookie,
                standing: standing.clone(),
            })
            .collect();
        list.sort_by(|a, b| a.standing.name.cmp(&b.standing.name));
        list
    }
}
