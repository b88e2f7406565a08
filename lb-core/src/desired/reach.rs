//! Which of a backend's addresses a client can reach, from where it stands.

use std::net::SocketAddr;

use crate::{snapshot::Backend, views::View};

/// The address of `backend` that this host reaches, and so whoever it sends packets on for.
pub fn from_host(backend: &Backend) -> SocketAddr {
    reach(backend, Viewpoint::Host).unwrap_or(backend.address)
}

/// Where a client stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Viewpoint<'a> {
    /// On the host, or it is not known where.
    Host,
    /// In a container that shares no network with the backend; whether it reaches more than its networks.
    Elsewhere {
        /// Whether it does.
        outside: bool,
    },
    /// In a container.
    Container(&'a View),
}

/// The address of `backend` that a client at `from` can reach.
///
/// A container's own address is reachable from its host and from its own networks there; Docker drops the rest. Where the
/// host publishes it, others get through.
pub(super) fn reach(backend: &Backend, from: Viewpoint<'_>) -> Option<SocketAddr> {
    let reach = &backend.reach;
    let in_container = reach.networks.values().any(|own| *own == backend.address);
    let outside = match from {
        // Another host's container networks are not this one's, whatever their names are.
        Viewpoint::Host if in_container && !backend.local => {
            return Some(reach.published.unwrap_or(backend.address));
        }
        Viewpoint::Host => return Some(backend.address),
        Viewpoint::Elsewhere { outside } => outside,
        Viewpoint::Container(view) => {
            let mut shared = reach
                .networks
                .iter()
                .filter(|(name, _)| backend.local && view.networks.contains(*name));
            if let Some((_, address)) = shared.next() {
                return Some(*address);
            }
            view.outside
        }
    };
    let public = if in_container || !reach.networks.is_empty() {
        reach.published?
    } else {
        backend.address
    };
    // The loopback of a container is its own.
    (outside && !public.ip().to_canonical().is_loopback()).then_some(public)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::catalog::Reach;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn container(local: bool, published: Option<&str>) -> Backend {
        Backend {
            address: at("172.18.0.2:80"),
            local,
            reach: Reach {
                networks: BTreeMap::from([
                    ("db".to_owned(), at("172.19.0.2:80")),
                    ("web".to_owned(), at("172.18.0.2:80")),
                ]),
                published: published.map(at),
                ..Reach::default()
            }
            .shared(),
            ..Backend::usable(at("172.18.0.2:80"))
        }
    }

    fn view(networks: &[&str], outside: bool) -> View {
        View {
            networks: networks.iter().map(|&name| name.to_owned()).collect(),
            outside,
            ranges: BTreeSet::new(),
        }
    }

    #[track_caller]
    fn check(backend: &Backend, from: Viewpoint<'_>, expect: Option<&str>) {
        assert_eq!(reach(backend, from), expect.map(at), "{from:?}");
    }

    #[test]
    fn a_container_is_reached_from_its_host_and_its_networks_by_its_own_address() {
        let backend = container(true, Some("10.1.1.1:8080"));
        check(&backend, Viewpoint::Host, Some("172.18.0.2:80"));
        let on = |networks| view(networks, true);
        check(
            &backend,
            Viewpoint::Container(&on(&["web"])),
            Some("172.18.0.2:80"),
        );
        check(
            &backend,
            Viewpoint::Container(&on(&["db", "other"])),
            Some("172.19.0.2:80"),
        );
        check(
            &backend,
            Viewpoint::Container(&on(&["other"])),
            Some("10.1.1.1:8080"),
        );
    }

    #[test]
    fn without_a_published_port_there_is_no_way_from_another_network() {
        let backend = container(true, None);
        check(
            &backend,
            Viewpoint::Container(&view(&["other"], true)),
            None,
        );
        check(&backend, Viewpoint::Elsewhere { outside: true }, None);
    }

    #[test]
    fn from_an_internal_network_only_that_network_is_reached() {
        let backend = container(true, Some("10.1.1.1:8080"));
        let inside = view(&["web"], false);
        check(
            &backend,
            Viewpoint::Container(&inside),
            Some("172.18.0.2:80"),
        );
        check(&backend, Viewpoint::Container(&view(&["x"], false)), None);
    }

    #[test]
    fn another_hosts_container_is_reached_where_its_host_publishes_it() {
        let backend = container(false, Some("10.1.1.1:8080"));
        check(&backend, Viewpoint::Host, Some("10.1.1.1:8080"));
        let web = view(&["web"], true);
        check(&backend, Viewpoint::Container(&web), Some("10.1.1.1:8080"));
    }

    #[test]
    fn a_container_that_is_registered_at_another_address_is_reached_where_it_is_published() {
        let backend = Backend {
            address: at("10.9.9.9:80"),
            ..container(true, Some("10.1.1.1:8080"))
        };
        check(&backend, Viewpoint::Host, Some("10.9.9.9:80"));
        let elsewhere = Viewpoint::Elsewhere { outside: true };
        check(&backend, elsewhere, Some("10.1.1.1:8080"));
        let other = view(&["other"], true);
        check(
            &backend,
            Viewpoint::Container(&other),
            Some("10.1.1.1:8080"),
        );
    }

    #[test]
    fn what_is_sent_on_for_others_goes_where_the_host_reaches_it() {
        let local = container(true, Some("10.1.1.1:8080"));
        assert_eq!(from_host(&local), at("172.18.0.2:80"));
        let remote = container(false, Some("10.1.1.1:8080"));
        assert_eq!(from_host(&remote), at("10.1.1.1:8080"));
        // Whatever its other networks are, and wherever it is registered.
        let own = ("web".to_owned(), at("172.18.0.2:80"));
        let reach = Reach {
            networks: [own].into(),
            published: Some(at("10.1.1.1:8080")),
            ..Reach::default()
        };
        let on_one_network = Backend {
            reach: reach.shared(),
            ..container(false, None)
        };
        assert_eq!(from_host(&on_one_network), at("10.1.1.1:8080"));
        let at_its_host = Backend {
            address: at("10.9.9.9:80"),
            ..container(false, Some("10.1.1.1:8080"))
        };
        assert_eq!(from_host(&at_its_host), at("10.9.9.9:80"));
        let unpublished = container(false, None);
        assert_eq!(from_host(&unpublished), at("172.18.0.2:80"));
    }

    #[test]
    fn what_listens_on_loopback_exists_on_the_host_only() {
        let backend = Backend {
            address: at("127.0.0.1:80"),
            ..Backend::usable(at("172.18.0.2:80"))
        };
        check(&backend, Viewpoint::Host, Some("127.0.0.1:80"));
        check(&backend, Viewpoint::Elsewhere { outside: true }, None);
    }
}
