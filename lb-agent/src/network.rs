//! The two things the host's network must know of the pool: the agent's own address on `lo`, and an
//! `unreachable` route, so that nothing for the pool can leave the host whatever the hooks do.
//!
//! Both stay when the agent ends: the data plane goes on without it.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    address::{AddressAttribute, AddressProtocol},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder, new_connection};
use thiserror::Error;

/// The mark of our own routes among those of others: "l" for lb. Not taken in iproute2's table of protocols.
const OUR_PROTOCOL: RouteProtocol = RouteProtocol::Other(108);

/// The same mark on addresses. A kernel before 5.18 does not keep it; there a former pool's address stays.
const OUR_ADDRESSES: AddressProtocol = AddressProtocol::Other(108);

/// `lo` is always the first device of a network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Why the pool cannot be taken.
#[derive(Debug, Error)]
pub enum Error {
    /// Somebody else uses addresses of the pool.
    #[error(
        "the VIP pool {pool} is in use by somebody else: {what}; choose another one with --pool, or remove that"
    )]
    Taken {
        /// The pool.
        pool: Ipv4Net,
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
    Socket(#[from] std::io::Error),
}

fn failed(verb: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |source| Error::Netlink { verb, source }
}

/// Takes `pool` for this host: puts `own` on `lo` and the unreachable route below it.
///
/// # Errors
/// When somebody else uses addresses of the pool, or the kernel refuses.
pub async fn take_pool(pool: Ipv4Net, own: Ipv4Addr) -> Result<(), Error> {
    let (connection, handle, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let result = take(&handle, pool, own).await;
    connection.abort();
    result
}

async fn take(handle: &Handle, pool: Ipv4Net, own: Ipv4Addr) -> Result<(), Error> {
    remove_outdated(handle, pool, own).await?;
    if let Some(what) = foreign_address(handle, pool, own)
        .await?
        .or(foreign_route(handle, pool).await?)
    {
        return Err(Error::Taken { pool, what });
    }
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(pool.network(), pool.prefix_len())
        .kind(RouteType::Unreachable)
        .protocol(OUR_PROTOCOL)
        .build();
    handle
        .route()
        .add(route)
        .replace()
        .execute()
        .await
        .map_err(failed("add the unreachable route of the pool"))?;
    let mut address = handle
        .address()
        .add(LOOPBACK_INDEX, own.into(), 32)
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

async fn foreign_address(
    handle: &Handle,
    pool: Ipv4Net,
    own: Ipv4Addr,
) -> Result<Option<String>, Error> {
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses
        .try_next()
        .await
        .map_err(failed("list addresses"))?
    {
        let ours = |address: Ipv4Addr| address == own && message.header.index == LOOPBACK_INDEX;
        for attribute in &message.attributes {
            if let AddressAttribute::Local(IpAddr::V4(address)) = attribute
                && pool.contains(address)
                && !ours(*address)
            {
                let length = message.header.prefix_len;
                let device = device(message.header.index);
                return Ok(Some(format!("address {address}/{length} on {device}")));
            }
        }
    }
    Ok(None)
}

async fn foreign_route(handle: &Handle, pool: Ipv4Net) -> Result<Option<String>, Error> {
    let mut routes = handle
        .route()
        .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
        .execute();
    while let Some(route) = routes.try_next().await.map_err(failed("list routes"))? {
        if let Some(destination) = destination(&route)
            && overlaps(destination, pool)
            && route.header.kind == RouteType::Unicast
        {
            let device = route
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(format!(" on {}", device(*index))),
                    _ => None,
                });
            return Ok(Some(format!(
                "a route to {destination}{}",
                device.unwrap_or_default()
            )));
        }
        // An unreachable route of somebody else for the same pool does the same: ours replaces it.
    }
    Ok(None)
}

fn device(index: u32) -> String {
    nix::net::if_::if_indextoname(index).map_or_else(
        |_| format!("device number {index}"),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Whether two networks share addresses. A route to half of the Internet or more shares them with everybody and
/// claims nothing.
fn overlaps(destination: Ipv4Net, pool: Ipv4Net) -> bool {
    destination.prefix_len() >= 8 && (pool.contains(&destination) || destination.contains(&pool))
}

/// Takes away the routes and addresses that an earlier agent of ours laid for another pool.
async fn remove_outdated(handle: &Handle, pool: Ipv4Net, own: Ipv4Addr) -> Result<(), Error> {
    let mut routes = handle
        .route()
        .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
        .execute();
    let mut outdated = Vec::new();
    while let Some(route) = routes.try_next().await.map_err(failed("list routes"))? {
        if route.header.protocol == OUR_PROTOCOL && destination(&route) != Some(pool) {
            outdated.push(route);
        }
    }
    for route in outdated {
        handle
            .route()
            .del(route)
            .execute()
            .await
            .map_err(failed("remove the route of a former pool"))?;
    }
    let mut addresses = handle.address().get().execute();
    let mut outdated = Vec::new();
    while let Some(message) = addresses
        .try_next()
        .await
        .map_err(failed("list addresses"))?
    {
        let ours = message
            .attributes
            .contains(&AddressAttribute::Protocol(OUR_ADDRESSES));
        if ours
            && !message
                .attributes
                .contains(&AddressAttribute::Local(own.into()))
        {
            outdated.push(message);
        }
    }
    for address in outdated {
        handle
            .address()
            .del(address)
            .execute()
            .await
            .map_err(failed("remove the address of a former pool"))?;
    }
    Ok(())
}

fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                Ipv4Net::new(*address, route.header.destination_prefix_length).ok()
            }
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_shares_addresses_with_the_pool_is_in_the_way() {
        let pool = "198.18.0.0/16".parse().unwrap();
        for (destination, expect) in [
            ("198.18.0.0/16", true),
            ("198.18.7.0/24", true),
            ("198.18.0.0/15", true),
            ("198.0.0.0/8", true),
            ("198.19.0.0/16", false),
            // A VPN that takes everything takes nothing in particular.
            ("128.0.0.0/1", false),
            ("0.0.0.0/0", false),
        ] {
            assert_eq!(
                overlaps(destination.parse().unwrap(), pool),
                expect,
                "{destination}"
            );
        }
    }
}
