//! The kernel's tables of neighbours: which entries it keeps known for an agent, and which others keep.
//!
//! Such an entry is *managed* (`NTF_EXT_MANAGED`, Linux 5.16, older than which no kernel takes the programs): the kernel asks
//! again before it forgets. It has the agent's mark, so that the next agent and `lb-agent uninstall` find it.

use std::{collections::BTreeMap, io, net::IpAddr};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
};
use nix::errno::Errno;
use rtnetlink::{Handle, new_connection};

use super::{Error, OUR_PROTOCOL, device, failed};

/// A next hop: a device, and the address behind it that takes frames.
pub(crate) type Hop = (u32, IpAddr);

/// Who sees to it that an entry stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The kernel, since an agent of ours wanted it.
    Us,
    /// An administrator or another program.
    Another,
    /// Nobody: the kernel forgets it when it is not used.
    Nobody,
}

/// All entries of all devices.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) async fn list(handle: &Handle) -> Result<BTreeMap<Hop, Keeper>, rtnetlink::Error> {
    let all: Vec<_> = handle.neighbours().get().execute().try_collect().await?;
    let told = all.iter().filter_map(|it| Some((hop(it)?, keeper(it))));
    Ok(told.collect())
}

/// Has the kernel keep a next hop known, which nobody keeps: of an entry without an end it would take the end and the address away.
///
/// # Errors
/// When the kernel refuses.
pub(crate) async fn keep(handle: &Handle, (device, address): Hop) -> Result<(), rtnetlink::Error> {
    let mut request = handle.neighbours().add(device, address).replace();
    let message = request.message_mut();
    message.header.state = NeighbourState::None;
    message.attributes.extend([
        NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed),
        NeighbourAttribute::Protocol(OUR_PROTOCOL),
    ]);
    request.execute().await
}

/// Has the kernel forget an entry; one that is gone already is no fault.
///
/// # Errors
/// When the kernel refuses.
pub(crate) async fn forget(
    handle: &Handle,
    (device, address): Hop,
) -> Result<(), rtnetlink::Error> {
    let mut message = NeighbourMessage::default();
    let (family, address) = match address {
        IpAddr::V4(it) => (AddressFamily::Inet, NeighbourAddress::Inet(it)),
        IpAddr::V6(it) => (AddressFamily::Inet6, NeighbourAddress::Inet6(it)),
    };
    message.header.ifindex = device;
    message.header.family = family;
    let destination = NeighbourAttribute::Destination(address);
    message.attributes.push(destination);
    match handle.neighbours().del(message).execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if is_gone(&error.to_io()) => Ok(()),
        result => result,
    }
}

/// Whether there is no such entry, or not even its device.
fn is_gone(error: &io::Error) -> bool {
    [Errno::ENOENT, Errno::ENODEV]
        .map(|it| Some(it as i32))
        .contains(&error.raw_os_error())
}

/// Has the kernel forget all that it keeps known for an agent.
///
/// # Errors
/// When it does not tell which those are, or refuses.
pub async fn forget_all() -> Result<(), Error> {
    let (connection, handle, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let result = remove(&handle, false).await;
    connection.abort();
    result.map(drop)
}

/// The same, and tells what that was; only tells it if `dry`.
pub(super) async fn remove(handle: &Handle, dry: bool) -> Result<Vec<String>, Error> {
    let all = list(handle).await.map_err(failed("list neighbours"))?;
    let ours = all.into_iter().filter(|(_, it)| *it == Keeper::Us);
    let mut told = Vec::new();
    for (hop, _) in ours {
        if !dry {
            let forgotten = forget(handle, hop).await;
            forgotten.map_err(failed("forget a neighbour"))?;
        }
        told.push(format!("the neighbour {} on {}", hop.1, device(hop.0)));
    }
    Ok(told)
}

fn hop(message: &NeighbourMessage) -> Option<Hop> {
    let address = message.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => Some(IpAddr::V4(*it)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => Some(IpAddr::V6(*it)),
        _ => None,
    });
    Some((message.header.ifindex, address?))
}

fn keeper(message: &NeighbourMessage) -> Keeper {
    let (header, attributes) = (&message.header, &message.attributes);
    let managed = attributes.iter().any(|it| match it {
        NeighbourAttribute::ExtFlags(flags) => flags.contains(NeighbourExtFlags::Managed),
        _ => false,
    });
    let lasts = matches!(
        header.state,
        NeighbourState::Permanent | NeighbourState::Noarp
    ) || header.flags.contains(NeighbourFlags::ExtLearned);
    // Whoever changes an entry leaves the mark there, and ends that it is managed.
    let marked = attributes.contains(&NeighbourAttribute::Protocol(OUR_PROTOCOL));
    match (managed, lasts) {
        (true, false) if marked => Keeper::Us,
        (false, false) => Keeper::Nobody,
        _ => Keeper::Another,
    }
}
