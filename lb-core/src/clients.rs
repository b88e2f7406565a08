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

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(container: &str, name: &str) -> Standing {
        Standing {
            container: container.to_owned(),
            name: name.to_owned(),
            networks: BTreeSet::new(),
            addresses: BTreeSet::new(),
            outside: true,
        }
    }

    /// Two containers, of which the first has the name that the second's id begins with.
    fn clients() -> Clients {
        let (one, other) = (
            standing("0123456789abcdef", "fedcba987654"),
            standing("fedcba9876543210", "app"),
        );
        Clients {
            by_cookie: [(7, one), (9, other)].into(),
        }
    }

    #[test]
    fn a_client_is_meant_by_its_name_or_by_the_first_digits_of_its_id() {
        let clients = clients();
        for (meant, cookie) in [
            ("app", Some(9)),
            ("fedcba987654", Some(7)),
            ("fedcba9876543", Some(9)),
            ("0123456789ab", Some(7)),
            // Shorter than any short form.
            ("0123456789a", None),
            ("0123456789ac", None),
            ("ap", None),
            ("", None),
        ] {
            let found = clients.find(meant);
            assert_eq!(found.map(|(cookie, _)| cookie), cookie, "{meant:?}");
            assert!(found.is_none_or(|(cookie, it)| *it == clients.by_cookie[&cookie]));
        }
    }

    #[test]
    fn they_are_listed_by_their_names() {
        let listed = clients().list();
        let listed: Vec<_> = listed
            .iter()
            .map(|it| (it.cookie, &*it.standing.name))
            .collect();
        assert_eq!(listed, [(9, "app"), (7, "fedcba987654")]);
    }
}
