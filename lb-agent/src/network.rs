//! The two things the host's network must know of the pool: the agent's own address on `lo`, and an
//! `unreachable` route, so that nothing for the pool can leave the host whatever the hooks do.
//!
//! Both stay when the agent ends: the data plane goes on without it.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    address::AddressAttribute,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder, new_connection};
use thiserror::Error;

/// The mark of our own routes among those of others: "l" for lb. Not taken in iproute2's table of protocols.
const OUR_PROTOCOL: RouteProtocol = RouteProtocol::Other(108);

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
    let address = handle
        .address()
        .add(LOOPBACK_INDEX, own.into(), 32)
        .replace();
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
                let (length, device) = (message.header.prefix_len, message.header.index);
                return Ok(Some(format!(
                    "address {address}/{length} on device number {device}"
                )));
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
            && pool.contains(&destination)
            && route.header.kind == RouteType::Unicast
        {
            return Ok(Some(format!("a route to {destination}")));
        }
        // An unreachable route of somebody else for the same pool does the same: ours replaces it.
    }
    Ok(None)
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
