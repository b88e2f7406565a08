//! Routes: which host names the front answers to, and the backends behind each. It gets the first ones whole and then
//! what changes.

mod paths;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{carried, rules::Rules, users::Users};
pub use paths::{Ambiguous, Paths, lies_under};

/// What a service is called between agent and front. One that comes back has another.
pub type Place = u64;

/// Lower-case host names, and the place of the service behind each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Whose every path of a host is that nobody else has.
    pub names: BTreeMap<String, Place>,
    /// Hosts that services share.
    pub paths: Paths,
}

/// What makes routes others. All of the routes are what makes empty ones them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesChange {
    /// Host names, and the service behind each from now on.
    pub hosts: Vec<(String, Option<Place>)>,
    /// Host names with a prefix of paths, and the service behind each from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<(String, String, Option<Place>)>,
    /// Services as they are from now on; `None` where there is none any more.
    pub services: Vec<(Place, Option<Arc<RouteService>>)>,
    /// The host's own addresses, if they are others: whoever comes from one is the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_addresses: Option<BTreeSet<IpAddr>>,
    /// Lists of users as they are from now on; `None` where there is none, or none any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<(String, Option<Arc<Users>>)>,
}

/// A service, or a tagged part of one, behind at least one host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteService {
    /// Its name on the page and in metrics.
    pub label: Arc<str>,
    /// In the order of their instances' keys.
    pub backends: Vec<RouteBackend>,
    /// Whom it lets in; `None` is everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<RouteAccess>,
    /// Whether its backends speak HTTP/2, by prior knowledge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub h2c: bool,
    /// What else it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Arc<Rules>>,
}

/// A backend as the front sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteBackend {
    /// Where requests go.
    pub address: SocketAddr,
    /// Whether it takes new requests.
    pub usable: bool,
    /// Relative share; 0 takes none.
    pub weight: u16,
    /// Whether it states `lb_canary`: its share is one of [`Rules::canary`] then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// When its connections end, whatever is on them, in milliseconds since 1970; never if absent. Not used, either, while
    /// another service leads to the same address and says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
}

/// Whom a service with rules lets in, told by nothing but the address that a client comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAccess {
    /// Whether those with an address of the host are let in.
    pub host: bool,
    /// Whoever else lies in here is let in.
    pub allow: Vec<IpNet>,
    /// Whoever lies in here is kept out.
    pub deny: Vec<IpNet>,
}

impl RouteAccess {
    /// Whether a client with the address `client` is let in on a host with the addresses `own`.
    pub fn admits(&self, client: IpAddr, own: &BTreeSet<IpAddr>) -> bool {
        let client = client.to_canonical();
        let lies_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        // The host's processes may choose among its addresses, and rules of addresses do not mean them: as on a VIP.
        let allowed = match client.is_loopback() || own.contains(&client) {
            true => self.host,
            false => lies_in(&self.allow),
        };
        allowed && !lies_in(&self.deny)
    }
}

impl Hosts {
    /// The place of the service that answers to `path` of `host`, which is in lower case and without port.
    ///
    /// A name that carries an address under a domain made for that (`www.hello.10.0.0.7.nip.io`) is the name
    /// before the address, whatever the address is: so the demo works from any machine.
    ///
    /// # Errors
    ///
    /// When services share the host and cannot be told apart by this path.
    pub fn find(&self, host: &str, path: &str) -> Result<Option<Place>, Ambiguous> {
        let under = |name: &str| match self.paths.find(name, path) {
            Ok(None) => Ok(self.names.get(name).copied()),
            found => found,
        };
        let found = under(host).transpose();
        let found = found.or_else(|| carried::named(host).find_map(|name| under(name).transpose()));
        found.transpose()
    }

    /// Makes them what `change` says.
    pub fn apply(&mut self, change: &RoutesChange) {
        for (host, place) in &change.hosts {
            match place {
                Some(place) => drop(self.names.insert(host.clone(), *place)),
                None => drop(self.names.remove(host)),
            }
        }
        for (host, prefix, place) in &change.paths {
            self.paths.set(host, prefix, *place);
        }
    }
}

impl RoutesChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        let names = self.hosts.is_empty() && self.paths.is_empty();
        let beside = self.host_addresses.is_none() && self.users.is_empty();
        names && self.services.is_empty() && beside
    }
}
