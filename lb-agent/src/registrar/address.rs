//! Where a port of a container can be reached: on which networks, and where its host publishes it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::settings::{Addressing, Settings};
use crate::{
    catalog::Reach,
    docker::{Container, Containers, Endpoint, NetworkMode, Port, State},
    options::cut,
};

/// How a container is connected, once it is followed to whoever owns its network namespace.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'c> {
    /// On the host's network.
    Host,
    /// On the networks of this container: itself, or the one whose namespace it shares.
    Networks(&'c Container),
    /// On none.
    None,
}

/// Why a port has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Nowhere {
    /// It is not meant to be reached.
    Fine(String),
    /// Somebody has to say more.
    Wrong(String),
    /// The host publishes it, and nobody has said where: [`UNKNOWN_HOST`].
    UnknownHost,
}

/// Follows `container:<id>` to the owner of the network namespace.
///
/// # Errors
/// When that one is not known.
pub(super) fn place<'c>(
    container: &'c Container,
    all: &'c Containers,
) -> Result<Place<'c>, String> {
    let mut owner = container;
    // Docker refuses a longer chain than one; a circle would be a lie.
    for _ in 0..4 {
        match &owner.network {
            NetworkMode::Host => return Ok(Place::Host),
            NetworkMode::None => return Ok(Place::None),
            NetworkMode::Networks => return Ok(Place::Networks(owner)),
            NetworkMode::Container(id) => match find(id, all) {
                Some(next) => owner = next,
                None => {
                    let short: String = id.chars().take(12).collect();
                    return Err(format!(
                        "it shares the network of container {short}, which does not run; start that one"
                    ));
                }
            },
        }
    }
    Err("it shares a network in a circle; correct its network mode".to_owned())
}

/// The running container `id`. Docker keeps the name instead of the id of one that was not there at first.
fn find<'c>(id: &str, all: &'c Containers) -> Option<&'c Container> {
    let name = id.strip_prefix('/').unwrap_or(id);
    let by_name = || all.values().find(|it| it.name == name);
    let runs = |it: &&Container| !matches!(it.state, State::Created | State::Exited(_));
    let found = all.get(id).or_else(by_name).map(|it| &**it);
    found.filter(runs)
}

/// All addresses of `port`.
pub(super) fn reach(place: Place<'_>, port: Port, settings: &Settings) -> Reach {
    match place {
        Place::None => Reach::default(),
        Place::Host => Reach {
            networks: BTreeMap::new(),
            published: settings
                .published_address()
                .map(|ip| SocketAddr::new(ip, port.number)),
            host: None,
        },
        Place::Networks(owner) => Reach {
            networks: owner
                .networks
                .iter()
                .filter_map(|(name, endpoint)| {
                    let address = SocketAddr::new(address(endpoint)?, port.number);
                    Some((name.clone(), address))
                })
                .collect(),
            published: published(owner, port, None, settings).and_then(Result::ok),
            host: None,
        },
    }
}

/// Where the other addresses of the host lead to `port`, by their tags; one that the port is not bound to does not.
pub(super) fn tagged(
    place: Place<'_>,
    port: Port,
    settings: &Settings,
) -> BTreeMap<String, SocketAddr> {
    let number = |ip: IpAddr| match place {
        Place::None => None,
        Place::Host => Some(port.number),
        Place::Networks(owner) => {
            let leads = |bound: IpAddr| {
                bound == ip || bound.is_unspecified() && bound.is_ipv6() == ip.is_ipv6()
            };
            let bindings = owner.published.iter().filter(|it| it.port == port);
            let leading = bindings.filter(|it| leads(it.host_address));
            // One for this very address first.
            let best = leading.min_by_key(|it| (it.host_address != ip, **it));
            best.map(|it| it.host_port)
        }
    };
    let addresses = settings.tagged.iter();
    let addresses =
        addresses.filter_map(|(tag, ip)| Some((tag.clone(), SocketAddr::new(*ip, number(*ip)?))));
    addresses.collect()
}

/// Where to send clients of `port`; `network` and `own` are what the container asks for.
pub(super) fn choose(
    place: Place<'_>,
    port: Port,
    network: Option<&str>,
    own: Option<IpAddr>,
    settings: &Settings,
) -> Result<SocketAddr, Nowhere> {
    let is_bound =
        matches!(place, Place::Networks(_)) && settings.addressing == Addressing::Published;
    if let Some(ip) = own.filter(|_| !is_bound) {
        return Ok(SocketAddr::new(ip, port.number));
    }
    match (place, settings.addressing) {
        (Place::None, _) => Err(Nowhere::Fine("it has no network".to_owned())),
        (Place::Host, _) => match settings.published_address() {
            Some(ip) => Ok(SocketAddr::new(ip, port.number)),
            None => Err(Nowhere::UnknownHost),
        },
        (Place::Networks(owner), Addressing::Published) => {
            match published(owner, port, own, settings) {
                Some(Ok(address)) => Ok(address),
                Some(Err(UnknownHost)) => Err(Nowhere::UnknownHost),
                None => Err(Nowhere::Fine(
                    "the host does not publish it; publish it, or register internal addresses"
                        .to_owned(),
                )),
            }
        }
        (Place::Networks(owner), Addressing::Internal) => {
            let ip = of_networks(&owner.networks, network, &settings.networks)
                .map_err(Nowhere::Wrong)?;
            Ok(SocketAddr::new(ip, port.number))
        }
    }
}

/// Whether the host publishes `port`: only such a port is a candidate for a published address.
pub(super) fn is_published(place: Place<'_>, port: Port) -> bool {
    match place {
        Place::None => false,
        Place::Host => true,
        Place::Networks(owner) => owner.published.iter().any(|it| it.port == port),
    }
}

/// The host listens on all its addresses of a family, and none of them is known.
struct UnknownHost;

/// Where the host publishes `port`, IPv4 first, and where others reach it before where only the host does. `own` is
/// what the container says itself; that and `ip` stand for whatever the port is bound to.
fn published(
    owner: &Container,
    port: Port,
    own: Option<IpAddr>,
    settings: &Settings,
) -> Option<Result<SocketAddr, UnknownHost>> {
    let forced = own.or(settings.ip);
    let of_all = forced.or(settings.host_address);
    // An engine may choose another port for each family.
    let is_known = |bound: IpAddr| {
        !bound.is_unspecified() || of_all.is_some_and(|ip| ip.is_ipv6() == bound.is_ipv6())
    };
    let bindings = owner.published.iter().filter(|it| it.port == port);
    let binding = bindings.min_by_key(|it| {
        let bound = it.host_address;
        (
            forced.is_some_and(|ip| ip != bound),
            !is_known(bound),
            bound.is_loopback(),
            bound.is_ipv6(),
            **it,
        )
    })?;
    let ip = match (forced, binding.host_address) {
        (Some(ip), _) => Some(ip),
        (None, bound) if !is_known(bound) => None,
        (None, bound) if bound.is_unspecified() => settings.host_address,
        (None, bound) => Some(bound),
    };
    let address = ip.map(|ip| SocketAddr::new(ip, binding.host_port));
    Some(address.ok_or(UnknownHost))
}

/// The address on the network that the container asks for, else on the first preferred one, else on the only one.
fn of_networks(
    networks: &BTreeMap<String, Endpoint>,
    wanted: Option<&str>,
    preferred: &[String],
) -> Result<IpAddr, String> {
    let names = || {
        let names: Vec<&str> = networks.keys().map(|name| &**name).collect();
        names.join(", ")
    };
    if let Some(wanted) = wanted {
        return networks.get(wanted).and_then(address).ok_or_else(|| {
            let wanted = cut(wanted);
            format!(
                "it asks for the network {wanted}, on which it has no address; correct \
                 SERVICE_NETWORK to one of {}",
                names()
            )
        });
    }
    let preferred = preferred
        .iter()
        .find_map(|name| networks.get(name).and_then(address));
    if let Some(address) = preferred {
        return Ok(address);
    }
    let mut addresses = networks.values().filter_map(address);
    match (addresses.next(), addresses.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err("it has no address on any network yet; connect it to one".to_owned()),
        (Some(_), Some(_)) => Err(format!(
            "it is on several networks ({}); name one with the label SERVICE_NETWORK or in \
             [registrar] networks",
            names()
        )),
    }
}

fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    let (v4, v6) = (endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6));
    v4.or(v6).filter(|ip| !ip.is_unspecified())
}

pub(super) const UNKNOWN_HOST: &str = "at which address of its family this host publishes it is not known; set [registrar] ip or --ip";
