//! What one service is to one client: which endpoint decides, and why each backend is given or not.
//!
//! The endpoints are those that the maps get, made by [`Asked`]; here is only said how they came about.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use lb_common::{
    Balance, Client, HOST_VIEW, INTERNAL_VIEW, OUTSIDE_VIEW, Refusal, SLOTS, flag, mix, random_slot,
};
use serde::{Deserialize, Serialize};

use super::{
    Endpoint,
    asked::{Asked, against, fit},
    reach::{Viewpoint, reach},
};
use crate::{
    catalog::InstanceKey,
    options::Local,
    snapshot::{Backend, Service, ServiceName},
    views::Views,
    vip::Pools,
};

/// What a service is to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// The view whose endpoint decides: the client's own only where that differs from what others see.
    pub view: u32,
    /// Which rule keeps the client out; `null` if it is let in.
    pub denied: Option<String>,
    /// How a backend is chosen, for each kind of socket that is told apart.
    pub ways: Vec<Way>,
    /// Every backend.
    pub backends: Vec<Explained>,
}

/// What sockets of one kind get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
pub struct Way {
    /// `every`, or `ipv4` and `ipv6` where these reach different addresses.
    pub sockets: String,
    /// Why the next connect is refused, if it is.
    pub refused: Option<String>,
    /// How many addresses the next connect may go to: suspected ones only if all of them are.
    pub choices: usize,
    /// Which of them it goes to, where the client's hash says it.
    pub leads_to: Option<SocketAddr>,
}

/// What becomes of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
pub struct Explained {
    /// Who it is.
    #[serde(flatten)]
    pub key: InstanceKey,
    /// The address that the client would reach it at; `null` if there is none.
    pub address: Option<SocketAddr>,
    /// Whose address that is.
    pub by: Option<By>,
    /// Its part of the slots for the sockets it is given to, in thousandths; 0 if it is given to none.
    pub share_permille: u32,
    /// `given`, `given to ipv6 sockets`, or why not.
    pub verdict: String,
    /// Whether the kernel saw it fail in the last ten seconds; it is then skipped while there is another one.
    pub suspect: bool,
}

/// Whose address a backend is reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Its own on a Docker network.
    Container,
    /// The one that its host publishes it at.
    Published,
    /// The registered one.
    Registered,
}

impl By {
    /// The word in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Published => "published",
            Self::Registered => "registered",
        }
    }
}

/// What `service` is to the client that stands there, `None` on the host, in the network namespace with the `cookie`, if
/// that is known. `suspects` are the addresses that the kernel skips now, and no backend may lie in one of the `pools`.
/// `None` as long as the service has no VIP.
pub fn explain(
    (name, service): (&ServiceName, &Service),
    (client, cookie): (Option<Client>, Option<u64>),
    views: &Views,
    suspects: &BTreeSet<SocketAddr>,
    pools: Pools,
) -> Option<Explanation> {
    let asked = Asked::new(name, service, views, pools)?;
    let view = asked.decides(client);
    let from = match view {
        HOST_VIEW => Viewpoint::Host,
        OUTSIDE_VIEW => Viewpoint::Elsewhere { outside: true },
        INTERNAL_VIEW => Viewpoint::Elsewhere { outside: false },
        view => views
            .views
            .get(&view)
            .map_or(Viewpoint::Host, Viewpoint::Container),
    };
    let (any, v6) = asked.endpoint(view)?;
    let way = |sockets, endpoint| way(sockets, endpoint, cookie, suspects);
    let ways = match v6 {
        None => vec![way("every", any)],
        Some(v6) => vec![way("ipv4", any), way("ipv6", v6)],
    };
    let (for_all, for_v6) = (slots(any), v6.map(slots).unwrap_or_default());
    // By the client's own view, whichever element decides: several may keep it out.
    let stands = client.and_then(|client| views.views.get(&client.view));
    let stands = stands.map_or(from, Viewpoint::Container);
    let denied = against(&service.options.access, stands);
    let backends = service.shares().map(|(key, backend, share)| {
        let address = reach(backend, from);
        let part = |slots: &BTreeMap<SocketAddr, u32>| slots.get(&address?).copied();
        let (given, verdict) = match (part(&for_all), part(&for_v6)) {
            (Some(given), _) => (given, "given".to_owned()),
            (None, Some(given)) => (given, "given to ipv6 sockets".to_owned()),
            (None, None) => {
                let why = not_given(service, backend, share, (from, pools), denied.is_some());
                (0, why)
            }
        };
        Explained {
            key: key.clone(),
            address,
            by: address.map(|address| by(backend, address)),
            share_permille: given,
            verdict,
            suspect: address.is_some_and(|it| suspects.contains(&it)),
        }
    });
    Some(Explanation {
        view,
        backends: backends.collect(),
        denied,
        ways,
    })
}

fn way(
    sockets: &str,
    endpoint: &Endpoint,
    cookie: Option<u64>,
    suspects: &BTreeSet<SocketAddr>,
) -> Way {
    let all: BTreeSet<_> = endpoint.slots.iter().collect();
    let sound = all.iter().filter(|it| !suspects.contains(*it)).count();
    let refused = all.is_empty().then(|| {
        let flags = endpoint.flags;
        let reason = if flags & flag::DENIED != 0 {
            Refusal::Denied
        } else if flags & flag::NO_PATH != 0 {
            Refusal::NoPath
        } else {
            Refusal::NoBackend
        };
        reason.as_str().to_owned()
    });
    Way {
        sockets: sockets.to_owned(),
        refused,
        choices: if sound == 0 { all.len() } else { sound },
        leads_to: cookie
            .filter(|_| endpoint.balance == Balance::Maglev)
            .and_then(|cookie| hashed(&endpoint.slots, cookie, suspects)),
    }
}

/// Where a table of hashes leads the client, as the programs choose.
fn hashed(
    slots: &[SocketAddr],
    cookie: u64,
    suspects: &BTreeSet<SocketAddr>,
) -> Option<SocketAddr> {
    let (first, _) = random_slot(mix(cookie), u32::try_from(slots.len()).ok()?);
    let (first, ring) = (usize::try_from(first).ok()?, SLOTS as usize);
    let choice = *slots.get(first)?;
    // The half of a table is filled with the slots over and over, and goes on at its beginning.
    let mut after = (first..first + ring).map(|slot| slots[slot % ring % slots.len()]);
    Some(after.find(|it| !suspects.contains(it)).unwrap_or(choice))
}

/// The thousandths of the slots that each address has, at least one.
fn slots(endpoint: &Endpoint) -> BTreeMap<SocketAddr, u32> {
    let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for address in &endpoint.slots {
        *counts.entry(*address).or_default() += 1;
    }
    let all = endpoint.slots.len();
    let part = |many: usize| u32::try_from(many * 1000 / all).unwrap_or(1000).max(1);
    let counts = counts.into_iter();
    counts
        .map(|(address, many)| (address, part(many)))
        .collect()
}

/// Why a backend is not given, the first cause that would have to be mended.
fn not_given(
    service: &Service,
    backend: &Backend,
    share: u16,
    (from, pools): (Viewpoint<'_>, Pools),
    denied: bool,
) -> String {
    if let Err(unfit) = fit(backend.address, pools) {
        return unfit;
    }
    if !backend.state().usable() {
        return backend.state().as_str().to_owned();
    }
    if backend.weight == 0 {
        return "weight 0".to_owned();
    }
    if share == 0 && service.options.local == Local::Only {
        return "not on this host (lb_local=only)".to_owned();
    }
    if denied {
        return Refusal::Denied.as_str().to_owned();
    }
    if reach(backend, from).is_none() {
        return Refusal::NoPath.as_str().to_owned();
    }
    "no slot: the service has more instances than slots".to_owned()
}

fn by(backend: &Backend, address: SocketAddr) -> By {
    if backend.reach.networks.values().any(|own| *own == address) {
        By::Container
    } else if backend.reach.published == Some(address) {
        By::Published
    } else {
        By::Registered
    }
}

#[cfg(test)]
mod tests;
