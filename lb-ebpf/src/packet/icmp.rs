//! ICMP, RFC 792, and ICMPv6, RFC 4443: echoes, and errors about packets of a flow, which quote them.

use lb_common::{Be16, Be32, PROTO_TCP, packet::Fate};

use super::{
    bytes::{Bytes, raw16, raw32, set16, set32, set128},
    checksum::Delta,
    heads::{HOPS, short},
    parse::{Fragment, IPV4_HEAD, IPV6_HEAD, Ipv4, Ipv6, PROTO_IPV4, PROTO_IPV6, ipv4, ipv6},
    rewrite::{Ends4, Ends6, Places},
};

/// Length of the head of a message, behind which an error quotes.
pub const ICMP_HEAD: usize = 8;

const ECHO_ANSWER: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
/// Code of [`UNREACHABLE`]: too big for a link, and nobody may fragment it.
const TOO_BIG: u8 = 4;

const UNREACHABLE6: u8 = 1;
const TOO_BIG6: u8 = 2;
const PARAMETER_PROBLEM6: u8 = 4;
const ECHO6: u8 = 128;
const ECHO_ANSWER6: u8 = 129;
const SOLICITATION: u8 = 135;
/// Of messages between neighbours: nobody routed it (RFC 4861, section 7.1.1).
const ON_LINK_HOPS: u8 = 255;

/// What an ICMP message is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks whether an address is there.
    Echo,
    /// Something happened to a packet.
    Error,
    /// Anything else.
    Other,
}

/// What the ICMP message at `icmp` is.
#[inline(always)]
pub fn message4(bytes: &(impl Bytes + ?Sized), icmp: usize) -> Option<Message> {
    Some(match *bytes.window::<ICMP_HEAD>(icmp)? {
        [ECHO, 0, ..] => Message::Echo,
        [UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM, ..] => Message::Error,
        _ => Message::Other,
    })
}

/// What the ICMPv6 message at `icmp` is.
#[inline(always)]
pub fn message6(bytes: &(impl Bytes + ?Sized), icmp: usize) -> Option<Message> {
    Some(match *bytes.window::<ICMP_HEAD>(icmp)? {
        [ECHO6, 0, ..] => Message::Echo,
        [UNREACHABLE6..=PARAMETER_PROBLEM6, ..] => Message::Error,
        _ => Message::Other,
    })
}

/// Whether the ICMPv6 message at `icmp`, of a packet whose head is at `network`, is of a neighbour that asks for a link address.
#[inline(always)]
pub fn is_solicitation(bytes: &(impl Bytes + ?Sized), network: usize, icmp: usize) -> bool {
    bytes
        .window::<IPV6_HEAD>(network)
        .is_some_and(|head| head[7] == ON_LINK_HOPS)
        && bytes
            .window::<ICMP_HEAD>(icmp)
            .is_some_and(|head| head[0] == SOLICITATION && head[1] == 0)
}

/// Makes the answer of the echo request at `icmp`, which is inside of the IPv4 packet at `network`.
#[inline(always)]
pub fn answer_echo4(bytes: &mut (impl Bytes + ?Sized), network: usize, icmp: usize) -> Option<()> {
    answer_echo(bytes, icmp, ECHO_ANSWER)?;
    let head = bytes.window_mut::<IPV4_HEAD>(network)?;
    let (source, destination) = (raw32::<12, IPV4_HEAD>(head), raw32::<16, IPV4_HEAD>(head));
    let before = raw16::<8, IPV4_HEAD>(head);
    head[8] = HOPS;
    let delta = Delta::new().replace16(before, raw16::<8, IPV4_HEAD>(head));
    let check = delta.apply(raw16::<10, IPV4_HEAD>(head));
    set16::<10, IPV4_HEAD>(head, check);
    set32::<12, IPV4_HEAD>(head, destination);
    set32::<16, IPV4_HEAD>(head, source);
    Some(())
}

/// The same for ICMPv6. `ip` is what the heads of the request say.
#[inline(always)]
pub fn answer_echo6(bytes: &mut (impl Bytes + ?Sized), network: usize, ip: &Ipv6) -> Option<()> {
    answer_echo(bytes, ip.transport, ECHO_ANSWER6)?;
    let head = bytes.window_mut::<IPV6_HEAD>(network)?;
    head[7] = HOPS;
    set128::<8, IPV6_HEAD>(head, ip.destination);
    set128::<24, IPV6_HEAD>(head, ip.source);
    Some(())
}

#[inline(always)]
fn answer_echo(bytes: &mut (impl Bytes + ?Sized), icmp: usize, kind: u8) -> Option<()> {
    let message = bytes.window_mut::<ICMP_HEAD>(icmp)?;
    let before = raw16::<0, ICMP_HEAD>(message);
    message[0] = kind;
    let delta = Delta::new().replace16(before, raw16::<0, ICMP_HEAD>(message));
    let check = delta.apply(raw16::<2, ICMP_HEAD>(message));
    set16::<2, ICMP_HEAD>(message, check);
    Some(())
}

/// An IPv4 packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted4 {
    /// Its ends.
    pub ends: Ends4,
    /// Where its heads are.
    pub places: Places,
}

/// The packet whose IPv4 head is quoted at `at`.
///
/// # Errors
/// [`Fate::Malformed`]: it is cut off before the ports; [`Fate::Fragment`]: it has none; [`Fate::Protocol`]: neither TCP nor UDP.
#[inline(always)]
pub fn quoted4(bytes: &(impl Bytes + ?Sized), at: usize) -> Result<Quoted4, Fate> {
    let ip = ipv4(bytes, at)?;
    let (source_port, destination_port) = ports(bytes, ip.proto, ip.fragment, ip.transport)?;
    Ok(Quoted4 {
        ends: Ends4 {
            source: ip.source,
            destination: ip.destination,
            source_port,
            destination_port,
        },
        places: Places {
            network: at,
            transport: ip.transport,
            proto: ip.proto,
        },
    })
}

/// An IPv6 packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted6 {
    /// Its ends.
    pub ends: Ends6,
    /// Where its heads are.
    pub places: Places,
}

/// The packet whose IPv6 head is quoted at `at`.
///
/// # Errors
/// As for [`quoted4`].
#[inline(always)]
pub fn quoted6(bytes: &(impl Bytes + ?Sized), at: usize) -> Result<Quoted6, Fate> {
    let ip = ipv6(bytes, at)?;
    let (source_port, destination_port) = ports(bytes, ip.proto, ip.fragment, ip.transport)?;
    Ok(Quoted6 {
        ends: Ends6 {
            source: ip.source,
            destination: ip.destination,
            source_port,
            destination_port,
        },
        places: Places {
            network: at,
            transport: ip.transport,
            proto: ip.proto,
        },
    })
}

#[inline(always)]
fn ports(
    bytes: &(impl Bytes + ?Sized),
    proto: u8,
    fragment: Fragment,
    transport: usize,
) -> Result<(Be16, Be16), Fate> {
    if proto != PROTO_TCP && proto != lb_common::PROTO_UDP {
        return Err(Fate::Protocol);
    }
    if matches!(fragment, Fragment::Later) {
        return Err(Fate::Fragment);
    }
    // An error quotes at least so many bytes.
    let head = bytes.window::<8>(transport).ok_or(Fate::Malformed)?;
    Ok((
        Be16::from_raw(raw16::<0, 8>(head)),
        Be16::from_raw(raw16::<2, 8>(head)),
    ))
}

/// An ICMP error about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Told4 {
    /// Who tells.
    pub source: Be32,
    /// Who is told.
    pub destination: Be32,
    /// The ends of the packet that is quoted.
    pub quoted: Ends4,
}

/// An ICMPv6 error about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Told6 {
    /// Who tells.
    pub source: [u32; 4],
    /// Who is told.
    pub destination: [u32; 4],
    /// The ends of the packet that is quoted.
    pub quoted: Ends6,
}

/// Makes the error at `icmp`, inside of the IPv4 packet at `network`, which is `old`, the error that is `new`, and takes `hops` from
/// its time to live. `quoted` is where the heads of the quoted packet are. None, and nothing was written: the packet has
/// no room for its heads.
#[inline(always)]
pub fn rewrite_error4(
    bytes: &mut (impl Bytes + ?Sized),
    network: usize,
    icmp: usize,
    quoted: Places,
    old: &Told4,
    new: &Told4,
    hops: u8,
) -> Option<()> {
    bytes.window::<IPV4_HEAD>(network)?;
    bytes.window::<ICMP_HEAD>(icmp)?;
    bytes.window::<IPV4_HEAD>(quoted.network)?;
    let addresses = old.quoted.addresses(&new.quoted);
    let inside = addresses.and(
        Delta::new()
            .replace16(old.quoted.source_port.raw(), new.quoted.source_port.raw())
            .replace16(
                old.quoted.destination_port.raw(),
                new.quoted.destination_port.raw(),
            ),
    );
    // The message's checksum covers all that is quoted, and so the checksums in it.
    let mut message = inside.and(rewrite_quoted_ports(
        bytes,
        quoted,
        new.quoted.source_port,
        new.quoted.destination_port,
        inside,
    )?);
    let head = bytes.window_mut::<IPV4_HEAD>(quoted.network)?;
    let before = raw16::<10, IPV4_HEAD>(head);
    let check = addresses.apply(before);
    set16::<10, IPV4_HEAD>(head, check);
    set32::<12, IPV4_HEAD>(head, new.quoted.source.raw());
    set32::<16, IPV4_HEAD>(head, new.quoted.destination.raw());
    message = message.replace16(before, check);
    mend(bytes, icmp, message)?;
    let head = bytes.window_mut::<IPV4_HEAD>(network)?;
    let life = raw16::<8, IPV4_HEAD>(head);
    head[8] = head[8].wrapping_sub(hops);
    let delta = Delta::new()
        .replace32(old.source.raw(), new.source.raw())
        .replace32(old.destination.raw(), new.destination.raw())
        .replace16(life, raw16::<8, IPV4_HEAD>(head));
    let check = delta.apply(raw16::<10, IPV4_HEAD>(head));
    set16::<10, IPV4_HEAD>(head, check);
    set32::<12, IPV4_HEAD>(head, new.source.raw());
    set32::<16, IPV4_HEAD>(head, new.destination.raw());
    Some(())
}

/// The same for ICMPv6.
#[inline(always)]
pub fn rewrite_error6(
    bytes: &mut (impl Bytes + ?Sized),
    network: usize,
    icmp: usize,
    quoted: Places,
    old: &Told6,
    new: &Told6,
    hops: u8,
) -> Option<()> {
    bytes.window::<IPV6_HEAD>(network)?;
    bytes.window::<ICMP_HEAD>(icmp)?;
    bytes.window::<IPV6_HEAD>(quoted.network)?;
    let inside = old
        .quoted
        .addresses(&new.quoted)
        .replace16(old.quoted.source_port.raw(), new.quoted.source_port.raw())
        .replace16(
            old.quoted.destination_port.raw(),
            new.quoted.destination_port.raw(),
        );
    let message = inside
        .and(rewrite_quoted_ports(
            bytes,
            quoted,
            new.quoted.source_port,
            new.quoted.destination_port,
            inside,
        )?)
        // Its own ends are in its pseudo head.
        .replace128(old.source, new.source)
        .replace128(old.destination, new.destination);
    let head = bytes.window_mut::<IPV6_HEAD>(quoted.network)?;
    set128::<8, IPV6_HEAD>(head, new.quoted.source);
    set128::<24, IPV6_HEAD>(head, new.quoted.destination);
    mend(bytes, icmp, message)?;
    let head = bytes.window_mut::<IPV6_HEAD>(network)?;
    head[7] = head[7].wrapping_sub(hops);
    set128::<8, IPV6_HEAD>(head, new.source);
    set128::<24, IPV6_HEAD>(head, new.destination);
    Some(())
}

#[inline(always)]
fn mend(bytes: &mut (impl Bytes + ?Sized), icmp: usize, delta: Delta) -> Option<()> {
    let message = bytes.window_mut::<ICMP_HEAD>(icmp)?;
    let check = delta.apply(raw16::<2, ICMP_HEAD>(message));
    set16::<2, ICMP_HEAD>(message, check);
    Some(())
}

/// Writes the ports of a quoted packet, and the checksum where it is quoted too; answers what of that changes another checksum
/// that covers it, besides the ports.
#[inline(always)]
fn rewrite_quoted_ports(
    bytes: &mut (impl Bytes + ?Sized),
    quoted: Places,
    source: Be16,
    destination: Be16,
    delta: Delta,
) -> Option<Delta> {
    let tcp = quoted.proto == PROTO_TCP;
    let head = bytes.window_mut::<8>(quoted.transport)?;
    set16::<0, 8>(head, source.raw());
    set16::<2, 8>(head, destination.raw());
    if !tcp {
        let before = raw16::<6, 8>(head);
        let after = delta.apply_udp(before);
        set16::<6, 8>(head, after);
        return Some(Delta::new().replace16(before, after));
    }
    // Only eight bytes are sure to be there.
    let Some(head) = bytes.window_mut::<18>(quoted.transport) else {
        return Some(Delta::new());
    };
    let before = raw16::<16, 18>(head);
    let after = delta.apply(before);
    set16::<16, 18>(head, after);
    Some(Delta::new().replace16(before, after))
}

/// A packet in a tunnel of this host that was too big for a link, as somebody on the way tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelTooBig {
    /// Where the packet in the tunnel is quoted.
    pub inner: usize,
    /// The greatest packet that the tunnel takes.
    pub mtu: u16,
}

/// What the ICMP error at `icmp`, inside of `ip`, says of a tunnel, if it says that.
#[inline(always)]
pub fn tunnel_too_big4(bytes: &(impl Bytes + ?Sized), ip: &Ipv4) -> Option<TunnelTooBig> {
    let message = bytes.window::<ICMP_HEAD>(ip.transport)?;
    if message[0] != UNREACHABLE || message[1] != TOO_BIG || ip.options {
        return None;
    }
    let mtu = u16::from_be(raw16::<6, ICMP_HEAD>(message));
    let outer = ipv4(bytes, ip.transport + ICMP_HEAD).ok()?;
    if outer.proto != PROTO_IPV4 || outer.options {
        return None;
    }
    Some(TunnelTooBig {
        inner: outer.transport,
        mtu: mtu.checked_sub(short(IPV4_HEAD))?,
    })
}

/// The same for ICMPv6.
#[inline(always)]
pub fn tunnel_too_big6(bytes: &(impl Bytes + ?Sized), ip: &Ipv6) -> Option<TunnelTooBig> {
    let message = bytes.window::<ICMP_HEAD>(ip.transport)?;
    if message[0] != TOO_BIG6 || ip.options {
        return None;
    }
    let mtu = u32::from_be(raw32::<4, ICMP_HEAD>(message));
    let outer = ipv6(bytes, ip.transport + ICMP_HEAD).ok()?;
    if outer.proto != PROTO_IPV6 || outer.options {
        return None;
    }
    Some(TunnelTooBig {
        inner: outer.transport,
        mtu: u16::try_from(mtu).ok()?.checked_sub(short(IPV6_HEAD))?,
    })
}

#[cfg(test)]
mod tests;
