//! The two things the host's network must know of each pool: the agent's own address on `lo`, and an
//! `unreachable` route, so that nothing for the pool can leave the host whatever the hooks do.
//!
//! Both stay when the agent ends: the data plane goes on without it. While it runs, [`keep()`] sees to that.

mod held;
mod keep;
pub(crate) mod neighbours;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage, AddressProtocol},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder, new_connection};
use thiserror::Error;

pub(crate) use held::{held, ip};
pub use keep::keep;
pub use neighbours::forget_all as forget_neighbours;

/// The mark of our own routes among those of others: "l" for lb. Not taken in iproute2's table of protocols.
const OUR_PROTOCOL: RouteProtocol = RouteProtocol::Other(108);

/// The same mark on addresses; kept since Linux 5.18.
const OUR_ADDRESSES: AddressProtocol = AddressProtocol::Other(108);

/// `lo` is always the first device of a network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Why a pool cannot be taken.
#[derive(Debug, Error)]
pub enum Error {
    /// Somebody else uses addresses of the pool.
    #[error(
        "the VIP pool {pool} is in use by somebody else: {what}; choose another one with --{flag}, or remove that",
        flag = if matches!(pool, IpNet::V4(_)) { "pool" } else { "pool6" }
    )]
    Taken {
        /// The pool.
        pool: IpNet,
        /// What uses it.
        what: String,
    },
    /// The kernel refuses a request.
    #[error("cannot {verb}; the agent needs CAP_NET_ADMIN")]
    Netlink {
        /// What failed.
        verb: &'static str,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[from] io::Error),
}

fn failed(verb: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |source| Error::Netlink { verb, source }
}

/// A pool, and the agent's own address in it.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The pool.
    pub pool: IpNet,
    /// The agent's own address, of the same family.
    pub own: IpAddr,
}

/// Whether addresses of IPv6 can be put on `lo`: neither the kernel nor its administrator has switched IPv6 off.
pub fn has_ipv6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
        .is_ok_and(|disabled| disabled.trim() == "0")
}

/// Takes pools for this host: puts the agent's own address of each on `lo` and the unreachable route below it.
///
/// # Errors
/// When somebody else uses addresses of one, which is found out before any change, or the kernel refuses.
pub async fn take_pools(shares: &[Share]) -> Result<(), Error> {
    let (connection, handle, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let result = take(&handle, shares).await;
    connection.abort();
    result
}

/// What of somebody else uses addresses of these pools: the first such address and route of each. It changes nothing.
///
/// # Errors
/// When the kernel does not tell.
pub async fn in_the_way(shares: &[Share]) -> Result<Vec<(IpNet, String)>, Error> {
    let (connection, handle, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let result = foreign(&handle, shares).await;
    connection.abort();
    result
}

async fn foreign(handle: &Handle, shares: &[Share]) -> Result<Vec<(IpNet, String)>, Error> {
    let addresses = addresses(handle).await?;
    let mut found = Vec::new();
    for &Share { pool, own } in shares {
        // A kernel without IPv6 has no such routes and does not answer.
        if pool.addr().is_ipv6() && !has_ipv6() {
            continue;
        }
        let address = foreign_address(&addresses, pool, own);
        // Whose route it is, the address says already.
        let route = match &address {
            Some(_) => None,
            None => foreign_route(handle, &addresses, pool, own).await?,
        };
        found.extend(address.or(route).map(|what| (pool, what)));
    }
    Ok(found)
}

/// Takes away whatever an agent laid here, of any pool, and the neighbours that the kernel keeps for one, and tells what that
/// was; only tells it if `dry`. The routes go last: until then nothing for a pool can leave the host.
///
/// # Errors
/// When the kernel refuses.
pub async fn give_back(dry: bool) -> Result<Vec<String>, Error> {
    let (connection, handle, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let result = remove_ours(&handle, dry).await;
    connection.abort();
    result
}

async fn remove_ours(handle: &Handle, dry: bool) -> Result<Vec<String>, Error> {
    let mut told = neighbours::remove(handle, dry).await?;
    for message in addresses(handle).await? {
        let Some(address) = local(&message).filter(|_| is_ours(&message)) else {
            continue;
        };
        let device = device(message.header.index);
        if !dry {
            let removal = handle.address().del(message).execute().await;
            removal.map_err(failed("remove the agent's own address"))?;
        }
        told.push(format!("the address {address} on {device}"));
    }
    for (pool, route) in our_routes(handle).await? {
        if !dry {
            let removal = handle.route().del(route).execute().await;
            removal.map_err(failed("remove the route of the pool"))?;
        }
        told.push(format!("the unreachable route of {pool}"));
    }
    Ok(told)
}

/// The routes that an agent of ours laid, of any pool of both families.
async fn our_routes(handle: &Handle) -> Result<Vec<(IpNet, RouteMessage)>, Error> {
    let mut ours = Vec::new();
    for family in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
        // A kernel without IPv6 has no such routes and does not answer.
        if matches!(family, IpNet::V6(_)) && !fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
            continue;
        }
        let routes = routes(handle, family).await?.into_iter();
        let routes = routes.filter(|route| route.header.protocol == OUR_PROTOCOL);
        ours.extend(routes.filter_map(|route| Some((destination(&route)?, route))));
    }
    Ok(ours)
}

/// All addresses of all devices.
async fn addresses(handle: &Handle) -> Result<Vec<AddressMessage>, Error> {
    let addresses = handle.address().get().execute();
    addresses
        .try_collect()
        .await
        .map_err(failed("list addresses"))
}

/// Whether an agent of ours laid this address.
fn is_ours(message: &AddressMessage) -> bool {
    message
        .attributes
        .contains(&AddressAttribute::Protocol(OUR_ADDRESSES))
}

async fn take(handle: &Handle, shares: &[Share]) -> Result<(), Error> {
    // Who is refused leaves everything as it was: what an earlier agent laid for other pools is in force.
    let addresses = addresses(handle).await?;
    for &Share { pool, own } in shares {
        let address = foreign_address(&addresses, pool, own);
        if let Some(what) = address.or(foreign_route(handle, &addresses, pool, own).await?) {
            return Err(Error::Taken { pool, what });
        }
    }
    for &Share { pool, own } in shares {
        lay(handle, pool, own).await?;
    }
    remove_outdated(handle, shares).await
}

async fn lay(handle: &Handle, pool: IpNet, own: IpAddr) -> Result<(), Error> {
    let mut route = match pool {
        IpNet::V4(pool) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(pool.network(), pool.prefix_len())
            .build(),
        IpNet::V6(pool) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(pool.network(), pool.prefix_len())
            .build(),
    };
    route.header.kind = RouteType::Unreachable;
    route.header.protocol = OUR_PROTOCOL;
    handle
        .route()
        .add(route)
        .replace()
        .execute()
        .await
        .map_err(failed("add the unreachable route of the pool"))?;
    let mut address = handle
        .address()
        .add(LOOPBACK_INDEX, own, pool.max_prefix_len())
        .replace();
    address
        .message_mut()
        .attributes
        .push(AddressAttribute::Protocol(OUR_ADDRESSES));
    address
        .execute()
        .await
        .map_err(failed("put the agent's own address on lo"))
}

fn foreign_address(addresses: &[AddressMessage], pool: IpNet, own: IpAddr) -> Option<String> {
    addresses.iter().find_map(|message| {
        let address = local(message)?;
        let on_loopback = message.header.index == LOOPBACK_INDEX;
        let ours = is_ours(message) || address == own && on_loopback;
        let foreign = pool.contains(&address) && !ours;
        foreign.then(|| {
            let length = message.header.prefix_len;
            let device = device(message.header.index);
            format!("address {address}/{length} on {device}")
        })
    })
}

async fn foreign_route(
    handle: &Handle,
    addresses: &[AddressMessage],
    pool: IpNet,
    own: IpAddr,
) -> Result<Option<String>, Error> {
    let of_former_pools = addresses.iter().filter(|it| is_ours(it)).filter_map(local);
    let ours: Vec<IpNet> = of_former_pools.chain([own]).map(IpNet::from).collect();
    for route in routes(handle, pool).await? {
        let device = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
        // The kernel makes a route of its own to an IPv6 address on `lo`.
        let to_ourselves = |to: IpNet| ours.contains(&to) && device == Some(LOOPBACK_INDEX);
        if let Some(destination) = destination(&route)
            && overlaps(destination, pool)
            && route.header.kind == RouteType::Unicast
            && !to_ourselves(destination)
        {
            let on = device.map(|index| format!(" on {}", self::device(index)));
            return Ok(Some(format!(
                "a route to {destination}{}",
                on.unwrap_or_default()
            )));
        }
        // An unreachable route of somebody else for the same pool does the same: ours replaces it.
    }
    Ok(None)
}

/// The routes of the family of `net`.
async fn routes(handle: &Handle, net: IpNet) -> Result<Vec<RouteMessage>, Error> {
    let all = match net {
        IpNet::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpNet::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let routes = handle.route().get(all).execute();
    routes.try_collect().await.map_err(failed("list routes"))
}

/// The address that a device has. IPv6 tells it alone, IPv4 beside that of the other end.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let told = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    told(|it| match it {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
    .or_else(|| {
        told(|it| match it {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn device(index: u32) -> String {
    nix::net::if_::if_indextoname(index).map_or_else(
        |_| format!("device number {index}"),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Whether two networks share addresses. A route to half of the Internet or more shares them with everybody and
/// claims nothing.
fn overlaps(destination: IpNet, pool: IpNet) -> bool {
    destination.prefix_len() >= 8 && (pool.contains(&destination) || destination.contains(&pool))
}

/// Takes away the routes and addresses that an earlier agent of ours laid for pools that are none of these, also of a family that
/// has none now.
async fn remove_outdated(handle: &Handle, shares: &[Share]) -> Result<(), Error> {
    for (pool, route) in our_routes(handle).await? {
        if !shares.iter().any(|share| share.pool == pool) {
            handle
                .route()
                .del(route)
                .execute()
                .await
                .map_err(failed("remove the route of a former pool"))?;
        }
    }
    for message in addresses(handle).await? {
        let current = |address| shares.iter().any(|share| share.own == address);
        if is_ours(&message) && !local(&message).is_some_and(current) {
            handle
                .address()
                .del(message)
                .execute()
                .await
                .map_err(failed("remove the address of a former pool"))?;
        }
    }
    Ok(())
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let length = route.header.destination_prefix_length;
    let to = route.attributes.iter().find_map(|it| match it {
        RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(IpAddr::V4(*to)),
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => Some(IpAddr::V6(*to)),
        _ => None,
    });
    IpNet::new(to?, length).ok()
}

#[cfg(test)]
mod tests;
