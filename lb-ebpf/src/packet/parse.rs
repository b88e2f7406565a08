//! Reading the heads of a packet.

use lb_common::{Be16, Be32, PROTO_TCP, PROTO_UDP, packet::Fate};

use super::bytes::{Bytes, raw16, raw32, raw128};

/// Length of the link's head without a tag.
pub const ETHERNET: usize = 14;
/// Length of an IPv4 head without options.
pub const IPV4_HEAD: usize = 20;
/// Length of the fixed IPv6 head.
pub const IPV6_HEAD: usize = 40;

/// EtherType of IPv4, as it lies in a frame.
pub const IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6, as it lies in a frame.
pub const IPV6: u16 = 0x86dd_u16.to_be();
const VLAN: u16 = 0x8100_u16.to_be();
const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();

/// IANA protocol number of ICMP.
pub const PROTO_ICMP: u8 = 1;
/// IANA protocol number of IPv4 in a tunnel.
pub const PROTO_IPV4: u8 = 4;
/// IANA protocol number of IPv6 in a tunnel.
pub const PROTO_IPV6: u8 = 41;
/// IANA protocol number of ICMPv6.
pub const PROTO_ICMP6: u8 = 58;

const PROTO_HOP_BY_HOP: u8 = 0;
const PROTO_ROUTING: u8 = 43;
const PROTO_FRAGMENT: u8 = 44;
const PROTO_DESTINATION_OPTIONS: u8 = 60;

/// Most extension headers that are read. RFC 8200, section 4.1, has each but one at most once, and nobody sends so many.
const EXTENSIONS: usize = 4;
/// Most bytes of them.
const EXTENSION_BYTES: usize = 511;

/// Flags of a TCP head.
pub mod tcp_flag {
    /// The sender is done.
    pub const FIN: u8 = 1;
    /// The flow begins.
    pub const SYN: u8 = 2;
    /// The flow is over at once.
    pub const RST: u8 = 4;
    /// The acknowledgement is valid.
    pub const ACK: u8 = 16;
}

/// What the link's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// EtherType of what is inside, as it lies in the frame: [`IPV4`], [`IPV6`] or another.
    pub kind: u16,
    /// Where that begins.
    pub network: usize,
}

/// What the link's head says, behind up to two VLAN tags.
#[inline(always)]
pub fn link(bytes: &(impl Bytes + ?Sized)) -> Option<Link> {
    let head = bytes.window::<ETHERNET>(0)?;
    let kind = raw16::<12, ETHERNET>(head);
    if !is_tag(kind) {
        return Some(Link {
            kind,
            network: ETHERNET,
        });
    }
    let tag = bytes.window::<4>(ETHERNET)?;
    let kind = raw16::<2, 4>(tag);
    if kind != VLAN {
        return Some(Link {
            kind,
            network: ETHERNET + 4,
        });
    }
    let tag = bytes.window::<4>(ETHERNET + 4)?;
    Some(Link {
        kind: raw16::<2, 4>(tag),
        network: ETHERNET + 8,
    })
}

/// Whether an EtherType says that a VLAN tag follows.
#[inline(always)]
pub const fn is_tag(kind: u16) -> bool {
    kind == VLAN || kind == SERVICE_VLAN
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first of several, which has the ports.
    First,
    /// Another one.
    Later,
}

/// What an IPv4 head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Who sent it.
    pub source: Be32,
    /// To whom.
    pub destination: Be32,
    /// What is inside.
    pub proto: u8,
    /// Time to live.
    pub hops: u8,
    /// Length of the packet by its head.
    pub total: u16,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// Whether nobody may fragment it.
    pub whole_only: bool,
    /// Whether there are options.
    pub options: bool,
    /// Where what is inside begins.
    pub transport: usize,
}

/// What the IPv4 head at `network` says.
///
/// # Errors
/// [`Fate::Malformed`]: it is cut off, or it is none.
#[inline(always)]
pub fn ipv4(bytes: &(impl Bytes + ?Sized), network: usize) -> Result<Ipv4, Fate> {
    let head = bytes.window::<IPV4_HEAD>(network).ok_or(Fate::Malformed)?;
    let size = usize::from(head[0] & 0x0f) * 4;
    if head[0] >> 4 != 4 || size < IPV4_HEAD {
        return Err(Fate::Malformed);
    }
    let total = u16::from_be(raw16::<2, IPV4_HEAD>(head));
    let cut = u16::from_be(raw16::<6, IPV4_HEAD>(head));
    Ok(Ipv4 {
        source: Be32::from_raw(raw32::<12, IPV4_HEAD>(head)),
        destination: Be32::from_raw(raw32::<16, IPV4_HEAD>(head)),
        proto: head[9],
        hops: head[8],
        total,
        fragment: fragment(cut & 0x1fff != 0, cut & 0x2000 != 0),
        whole_only: cut & 0x4000 != 0,
        options: size != IPV4_HEAD,
        transport: network + size,
    })
}

#[inline(always)]
const fn fragment(later: bool, more: bool) -> Fragment {
    match (later, more) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::Whole,
    }
}

/// What an IPv6 head says, with its extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Who sent it, as raw integers in network order.
    pub source: [u32; 4],
    /// To whom.
    pub destination: [u32; 4],
    /// What is inside, behind the extension headers.
    pub proto: u8,
    /// Hop limit.
    pub hops: u8,
    /// Length of the packet by its head.
    pub total: usize,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// Whether there are extension headers.
    pub options: bool,
    /// Where what is inside begins.
    pub transport: usize,
}

/// What the IPv6 head at `network` says. After a fragment header of a later fragment nothing is read, nor from a header on that
/// nobody between both ends may change the packet under: an authentication header, or a route that it has not come to the end of.
/// What is inside is that header then.
///
/// # Errors
/// [`Fate::Malformed`]: it is cut off, it is none, or it has more extension headers than anybody sends.
#[inline(always)]
pub fn ipv6(bytes: &(impl Bytes + ?Sized), network: usize) -> Result<Ipv6, Fate> {
    let head = bytes.window::<IPV6_HEAD>(network).ok_or(Fate::Malformed)?;
    if head[0] >> 4 != 6 {
        return Err(Fate::Malformed);
    }
    let mut proto = head[6];
    let mut ip = Ipv6 {
        source: raw128::<8, IPV6_HEAD>(head),
        destination: raw128::<24, IPV6_HEAD>(head),
        proto,
        hops: head[7],
        total: IPV6_HEAD + usize::from(u16::from_be(raw16::<4, IPV6_HEAD>(head))),
        fragment: Fragment::Whole,
        options: false,
        transport: network + IPV6_HEAD,
    };
    // Of what comes before the fixed head's end nothing is variable.
    let mut more = 0_usize;
    let mut routed = false;
    for _ in 0..EXTENSIONS {
        let units = match proto {
            PROTO_HOP_BY_HOP | PROTO_ROUTING | PROTO_DESTINATION_OPTIONS => 8,
            PROTO_FRAGMENT => 0,
            _ => break,
        };
        let extension = bytes
            .window::<8>(network + IPV6_HEAD + more)
            .ok_or(Fate::Malformed)?;
        // The segments that are left.
        if proto == PROTO_ROUTING && extension[3] != 0 {
            routed = true;
            break;
        }
        let length = usize::from(extension[1]);
        proto = extension[0];
        more += match units {
            // Eight bytes without those of the length.
            8 => (length + 1) * 8,
            _ => {
                let cut = u16::from_be(raw16::<2, 8>(extension));
                ip.fragment = fragment(cut & 0xfff8 != 0, cut & 1 != 0);
                8
            }
        };
        if more > EXTENSION_BYTES {
            return Err(Fate::Malformed);
        }
        if matches!(ip.fragment, Fragment::Later) {
            break;
        }
    }
    if more != 0 {
        if !routed && !matches!(ip.fragment, Fragment::Later) && extends(proto) {
            return Err(Fate::Malformed);
        }
        ip.options = true;
        ip.proto = proto;
        ip.transport = network + IPV6_HEAD + (more & EXTENSION_BYTES);
    }
    Ok(ip)
}

/// Whether another extension header follows.
#[inline(always)]
const fn extends(proto: u8) -> bool {
    matches!(
        proto,
        PROTO_HOP_BY_HOP | PROTO_ROUTING | PROTO_FRAGMENT | PROTO_DESTINATION_OPTIONS
    )
}

/// What the head of TCP or UDP says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The sender's port.
    pub source: Be16,
    /// The receiver's port.
    pub destination: Be16,
    /// [`tcp_flag`]s; 0 for UDP.
    pub flags: u8,
}

/// What the head of TCP or UDP at `transport` says.
///
/// # Errors
/// [`Fate::Malformed`]: it is cut off; [`Fate::Protocol`]: it is neither.
#[inline(always)]
pub fn transport(
    bytes: &(impl Bytes + ?Sized),
    transport: usize,
    proto: u8,
) -> Result<Transport, Fate> {
    match proto {
        PROTO_TCP => tcp(bytes, transport),
        PROTO_UDP => {
            let head = bytes.window::<8>(transport).ok_or(Fate::Malformed)?;
            Ok(Transport {
                source: Be16::from_raw(raw16::<0, 8>(head)),
                destination: Be16::from_raw(raw16::<2, 8>(head)),
                flags: 0,
            })
        }
        _ => Err(Fate::Protocol),
    }
}

/// What the head of TCP at `transport` says.
///
/// # Errors
/// [`Fate::Malformed`]: it is cut off, or says that it is shorter than it can be.
#[inline(always)]
pub fn tcp(bytes: &(impl Bytes + ?Sized), transport: usize) -> Result<Transport, Fate> {
    let head = bytes.window::<20>(transport).ok_or(Fate::Malformed)?;
    if head[12] >> 4 < 5 {
        return Err(Fate::Malformed);
    }
    Ok(Transport {
        source: Be16::from_raw(raw16::<0, 20>(head)),
        destination: Be16::from_raw(raw16::<2, 20>(head)),
        flags: head[13],
    })
}

#[cfg(test)]
mod tests;
