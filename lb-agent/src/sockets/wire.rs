//! The kernel's `sock_diag` as bytes: `linux/sock_diag.h`, `linux/inet_diag.h`, `linux/netlink.h`.
//!
//! Pure. What the kernel sends is read with bounds: bytes that make no sense are an error, never a panic.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::{BackendId, Form, Record};

/// A socket as the kernel names it: what it says of one is what it takes to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketId {
    pub(super) kind: Kind,
    /// `inet_diag_sockid`: ports, addresses, device, cookie.
    raw: [u8; SOCKET_ID],
}

/// A table of sockets that the kernel lists at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// `AF_INET` or `AF_INET6`.
    pub(super) family: u8,
    /// IANA protocol number.
    pub(super) protocol: u8,
}

/// What a record says of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The backend that the flow is counted at.
    pub backend: BackendId,
    /// Coarse monotonic nanoseconds at the connect.
    pub start_ns: u64,
    /// The IPv4 VIP that was connected to, or that stands for an IPv6 one.
    pub vip: Ipv4Addr,
    /// The port that was connected to.
    pub vip_port: u16,
    /// Where the flow goes.
    pub address: SocketAddr,
}

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) id: SocketId,
    /// The kernel's number of its state.
    pub(super) state: u8,
    pub(super) uid: u32,
    pub(super) inode: u32,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

/// A socket that has a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) socket: Socket,
    pub(super) origin: Origin,
}

/// One message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A socket with a record whose flow is not over.
    Found(Found),
    /// A socket that may have one: of those of UDP the kernel does not tell what is stored at them.
    Untold(Socket),
    /// A socket that is none of ours.
    Other,
    /// The end of an answer, with an error number or 0.
    End(i32),
}

/// The kernel sent what its headers do not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's list of sockets is cut short")]
pub(super) struct Malformed;

/// Asks for all sockets of `kind` that can be a client's, each with what it has in the map `records`.
pub(super) fn list(kind: Kind, records: u32) -> Vec<u8> {
    let states = match kind.protocol {
        UDP => 1 << ESTABLISHED,
        _ => !(1 << TIME_WAIT | 1 << LISTEN | 1 << NEW_SYN_RECV),
    };
    let mut message = request(
        SOCK_DIAG_BY_FAMILY,
        REQUEST | DUMP,
        kind,
        states,
        &[0; SOCKET_ID],
    );
    // A nest of one: the descriptor of the map.
    message.extend(attribute_head(12, REQ_SK_BPF_STORAGES | NESTED));
    message.extend(attribute_head(8, STORAGE_REQ_MAP_FD));
    message.extend(records.to_ne_bytes());
    with_length(message)
}

/// Asks to end one socket. The cookie within makes sure that it is still the same.
pub(super) fn destroy(id: &SocketId) -> Vec<u8> {
    with_length(request(SOCK_DESTROY, REQUEST | ACK, id.kind, !0, &id.raw))
}

/// `nlmsghdr` and `inet_diag_req_v2`; the length is still open.
fn request(what: u16, flags: u16, kind: Kind, states: u32, id: &[u8; SOCKET_ID]) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(what.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence and port: one question at a time, on a socket of its own.
    message.extend([0; 8]);
    message.extend([kind.family, kind.protocol, 0, 0]);
    message.extend(states.to_ne_bytes());
    message.extend(id);
    message
}

fn attribute_head(length: u16, kind: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (length.to_ne_bytes(), kind.to_ne_bytes());
    [a, b, c, d]
}

fn with_length(mut message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// The messages of one datagram of the kernel's, which answers a question about `protocol`.
pub(super) fn messages(
    mut bytes: &[u8],
    protocol: u8,
) -> impl Iterator<Item = Result<Message, Malformed>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some((kind, payload, rest)) = message(bytes) else {
            bytes = &[];
            return Some(Err(Malformed));
        };
        bytes = rest;
        let read = match kind {
            NLMSG_DONE | NLMSG_ERROR => {
                // A DONE without a number comes from old kernels.
                let error = u32_at(payload, 0).map_or(0, u32::cast_signed);
                Some(Message::End(error.saturating_neg()))
            }
            SOCK_DIAG_BY_FAMILY => socket(payload, protocol),
            _ => Some(Message::Other),
        };
        Some(read.ok_or(Malformed))
    })
}

/// Kind and payload of the first message, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let payload = bytes.get(MESSAGE_HEAD..length)?;
    let rest = bytes.get(aligned(length)..).unwrap_or_default();
    Some((kind, payload, rest))
}

/// `inet_diag_msg` and what follows it.
fn socket(bytes: &[u8], protocol: u8) -> Option<Message> {
    let head = bytes.get(..DIAG_MESSAGE)?;
    let origin = origin_in(&bytes[DIAG_MESSAGE..])?;
    if origin.is_none() && protocol != UDP {
        return Some(Message::Other);
    }
    let kind = Kind {
        family: head[0],
        protocol,
    };
    let raw: [u8; SOCKET_ID] = head.get(4..4 + SOCKET_ID)?.try_into().ok()?;
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes([raw[port], raw[port + 1]]);
        let bytes: [u8; 16] = raw[address..address + 16].try_into().ok()?;
        let address = match kind.family {
            AF_INET => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            // An IPv6 socket that talks IPv4 does so by addresses like ::ffff:10.0.0.1.
            _ => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
        };
        Some(SocketAddr::new(address, port))
    };
    let socket = Socket {
        id: SocketId { kind, raw },
        state: head[1],
        uid: u32_at(head, 64)?,
        inode: u32_at(head, 68)?,
        local: end(0, 4)?,
        peer: end(2, 20)?,
    };
    Some(match origin {
        Some(origin) => Message::Found(Found { socket, origin }),
        None => Message::Untold(socket),
    })
}

/// What the record among a socket's attributes says, if there is one whose flow is not over.
fn origin_in(attributes: &[u8]) -> Option<Option<Origin>> {
    // Only one map is asked for, so the first value is the record.
    let Some(storages) = attribute(attributes, DIAG_SK_BPF_STORAGES)? else {
        return Some(None);
    };
    let Some(storage) = attribute(storages, DIAG_BPF_STORAGE)? else {
        return Some(None);
    };
    let Some(value) = attribute(storage, STORAGE_MAP_VALUE)? else {
        return Some(None);
    };
    origin(value)
}

/// The value of the first attribute of `kind`; the outer `None` if they are cut short.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<Option<&[u8]>> {
    while !bytes.is_empty() {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..length)?;
        if u16_at(bytes, 2)? & !NESTED == kind {
            return Some(Some(value));
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Some(None)
}

/// A [`Record`] as the kernel copied it, unless its flow is over; the outer `None` if it is cut short.
pub(super) fn origin(record: &[u8]) -> Option<Option<Origin>> {
    let record = record.get(..size_of::<Record>())?;
    let four = |at: usize| <[u8; 4]>::try_from(record.get(at..at + 4)?).ok();
    let long = |at: usize| {
        let bytes: [u8; 8] = record.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_ne_bytes(bytes))
    };
    let port = |at: usize| Some(u16::from_be_bytes([*record.get(at)?, *record.get(at + 1)?]));
    let low = four(offset_of!(Record, address))?;
    let high: [u8; 12] = record.get(HIGH..HIGH + 12)?.try_into().ok()?;
    // Not by the first bytes of the address: those of ::1 are zero as well.
    let address = if four(offset_of!(Record, form))? == (Form::V4 as u32).to_ne_bytes() {
        IpAddr::from(low)
    } else {
        let mut all = [0; 16];
        all[..12].copy_from_slice(&high);
        all[12..].copy_from_slice(&low);
        IpAddr::from(all).to_canonical()
    };
    let origin = Origin {
        backend: BackendId::from_bits(long(offset_of!(Record, backend))?),
        start_ns: long(offset_of!(Record, start_ns))?,
        vip: Ipv4Addr::from(four(offset_of!(Record, vip))?),
        vip_port: port(offset_of!(Record, vip_port))?,
        address: SocketAddr::new(address, port(offset_of!(Record, port))?),
    };
    Some((origin.backend != BackendId::default()).then_some(origin))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Where in a record the first twelve bytes of an IPv6 socket's peer are.
const HIGH: usize = 44;
const _: () = assert!(HIGH + 12 == size_of::<Record>());

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

// States, for TCP and UDP alike (`net/tcp_states.h`).
pub(super) const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;
const NEW_SYN_RECV: u8 = 12;

/// Sizes of `nlmsghdr`, `inet_diag_sockid` and `inet_diag_msg`.
const MESSAGE_HEAD: usize = 16;
const SOCKET_ID: usize = 48;
const DIAG_MESSAGE: usize = 72;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

const NESTED: u16 = 0x8000;
const REQ_SK_BPF_STORAGES: u16 = 2;
const STORAGE_REQ_MAP_FD: u16 = 1;
const DIAG_SK_BPF_STORAGES: u16 = 20;
const DIAG_BPF_STORAGE: u16 = 1;
const STORAGE_MAP_VALUE: u16 = 3;

#[cfg(test)]
pub(super) mod tests;
