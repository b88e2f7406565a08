//! How packets of IPv4 and IPv6 are read and written, so that the rules stand once.

use core::ptr;

use lb_common::{
    Be16, Be32, PROTO_TCP, PROTO_UDP,
    packet::{Fate, Hop},
};
use lb_ebpf::packet::{
    Bytes as _, Ends4, Ends6, Fragment, IPV4_HEAD, IPV6_HEAD, Ipv6, Message, PLAIN_NETWORK,
    PROTO_ICMP, PROTO_ICMP6, PROTO_IPV4, PROTO_IPV6, Places, Plain, ROOM4, ROOM6, Reset, Told4,
    Told6, TunnelTooBig, answer_echo4, answer_echo6, enclose4, enclose6, ipv4, ipv6,
    is_solicitation, message4, message6, open4, open6, plain4, plain6, quoted4, quoted6, raw32,
    raw128, rewrite_error4, rewrite_error6, rewrite4, rewrite6, tell_too_big4, tell_too_big6,
    transport, tunnel_too_big4, tunnel_too_big6,
};

use crate::{
    family::{Family, V4, V6},
    hop::Routed,
    maps::KNOWN,
    memory::Memory,
};

/// What the heads of a packet say.
pub(super) struct Seen<F: Family> {
    pub(super) ends: Both<F>,
    pub(super) proto: u8,
    /// Flags of TCP.
    pub(super) flags: u8,
    /// Time to live.
    pub(super) hops: u8,
    pub(super) fragment: Fragment,
    /// Whether there are options or extension headers.
    pub(super) options: bool,
    /// Length of the packet by its head.
    pub(super) total: u32,
    /// Where the head of IP begins.
    pub(super) network: usize,
    /// Where what is inside begins.
    pub(super) transport: usize,
}

/// Both ends of a packet, as the pure functions have them.
#[repr(C)]
pub(super) struct Both<F: Family> {
    pub(super) source: F::Address,
    pub(super) destination: F::Address,
    pub(super) source_port: Be16,
    pub(super) destination_port: Be16,
}

impl<F: Family> Clone for Both<F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Family> Copy for Both<F> {}

impl<F: Wire> Seen<F> {
    /// A packet as nearly all are.
    #[inline(always)]
    fn plain(plain: &Plain<F::Address>) -> Self {
        Self {
            ends: Both {
                source: plain.source,
                destination: plain.destination,
                source_port: plain.source_port,
                destination_port: plain.destination_port,
            },
            proto: plain.proto,
            flags: plain.flags,
            hops: plain.hops,
            fragment: Fragment::Whole,
            options: false,
            total: plain.total,
            network: PLAIN_NETWORK,
            transport: PLAIN_NETWORK + F::HEAD,
        }
    }

    /// Nothing yet of a packet whose head of IP begins at `network`.
    #[inline(always)]
    pub(super) fn new(network: usize) -> Self {
        Self {
            ends: Both {
                source: F::NOBODY,
                destination: F::NOBODY,
                source_port: Be16::from_raw(0),
                destination_port: Be16::from_raw(0),
            },
            proto: 0,
            flags: 0,
            hops: 0,
            fragment: Fragment::Whole,
            options: false,
            total: 0,
            network,
            transport: 0,
        }
    }

    /// Whether its protocol has ports.
    #[inline(always)]
    pub(super) fn has_ports(&self) -> bool {
        self.proto == PROTO_TCP || self.proto == PROTO_UDP
    }

    /// Whether it came in a VLAN.
    #[inline(always)]
    pub(super) fn is_tagged(&self) -> bool {
        self.network != lb_ebpf::packet::ETHERNET
    }

    /// Where its head begins, for the verifier, too.
    #[inline(always)]
    pub(super) fn network(&self) -> usize {
        self.network & 31
    }

    /// Where what is inside begins, for the verifier, too.
    #[inline(always)]
    pub(super) fn transport(&self) -> usize {
        self.transport & 1023
    }

    #[inline(always)]
    pub(super) fn places(&self) -> Places {
        Places {
            network: self.network(),
            transport: self.transport(),
            proto: self.proto,
        }
    }
}

/// An error about a packet, as the pure functions have it.
#[repr(C)]
pub(super) struct Told<F: Family> {
    /// Who tells.
    pub(super) source: F::Address,
    /// Who is told.
    pub(super) destination: F::Address,
    /// The ends of the packet that is quoted.
    pub(super) quoted: Both<F>,
}

/// What is known of a packet that is not as nearly all are, in a value of `KNOWN`.
pub(super) struct Known<F: Family> {
    pub(super) seen: Seen<F>,
    /// The packet that is quoted, and where.
    pub(super) quoted: Both<F>,
    pub(super) places: Places,
    /// The error, as it came and as it is to be.
    pub(super) old: Told<F>,
    pub(super) new: Told<F>,
    /// How frames get to whom nothing is written down of.
    pub(super) hop: Hop,
}

const _: () = assert!(size_of::<Known<V6>>() <= 384 && align_of::<Known<V6>>() <= 8);

impl<F: Family> Known<F> {
    /// That of this CPU. To be asked for once for each packet.
    #[inline(always)]
    pub(super) fn here() -> Option<&'static mut Self>
    where
        F: 'static,
    {
        let known = KNOWN.get_ptr_mut(0)?;
        // SAFETY: it has room for it and is as aligned; nobody else on this CPU has it, and what is read was written before.
        Some(unsafe { &mut *known.cast() })
    }
}

/// How a family lies in packets.
pub(super) trait Wire: Routed + 'static {
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// Protocol number of a packet of it in a tunnel.
    const TUNNEL: u8;
    /// Length of its head.
    const HEAD: usize;
    /// Room before a frame for the message that it is too big.
    const ROOM: usize;
    /// Length of a reset.
    const RESET: usize;
    /// No address.
    const NOBODY: Self::Address;

    /// Reads a packet as nearly all are. None is no verdict.
    fn plain(memory: &Memory) -> Option<Seen<Self>>;
    fn destination(memory: &Memory, network: usize) -> Option<Self::Address>;
    /// Reads the heads; ports of a whole packet of TCP and UDP only.
    fn read(memory: &Memory, seen: &mut Seen<Self>) -> Result<(), Fate>;
    fn rewrite(memory: &mut Memory, seen: &Seen<Self>, new: &Both<Self>, hops: u8) -> Option<()>;
    fn enclose(
        memory: &mut Memory,
        seen: &Seen<Self>,
        source: Self::Address,
        destination: Self::Address,
        label: u32,
    ) -> Option<()>;
    fn open(memory: &mut Memory, network: usize, outer: usize) -> Result<(), Fate>;
    fn reset(memory: &mut Memory, seen: &Seen<Self>) -> Option<()>;
    fn tell_too_big(
        memory: &mut Memory,
        network: usize,
        source: Self::Address,
        asker: Self::Address,
        mtu: u16,
    ) -> Option<()>;
    fn message(memory: &Memory, icmp: usize) -> Option<Message>;
    fn echo(memory: &mut Memory, seen: &Seen<Self>) -> Option<()>;
    /// Reads the packet that is quoted at `at`: its ends and places.
    fn quoted(memory: &Memory, at: usize, known: &mut Known<Self>) -> Option<()>;
    fn retell(
        memory: &mut Memory,
        seen: &Seen<Self>,
        quoted: Places,
        old: &Told<Self>,
        new: &Told<Self>,
    ) -> Option<()>;
    fn tunnel_too_big(memory: &Memory, seen: &Seen<Self>) -> Option<TunnelTooBig>;
    /// Whether a neighbour asks for a link address.
    fn is_solicitation(memory: &Memory, seen: &Seen<Self>) -> bool;
    /// The host of a target, if it is known.
    fn host(host: &[u32; 4]) -> Option<&Self::Address>;
}

/// Reads the ports of a whole packet.
#[inline(always)]
fn inside<F: Wire>(memory: &Memory, seen: &mut Seen<F>) -> Result<(), Fate> {
    if !matches!(seen.fragment, Fragment::Whole) || !seen.has_ports() {
        return Ok(());
    }
    let head = transport(memory, seen.transport(), seen.proto)?;
    seen.ends.source_port = head.source;
    seen.ends.destination_port = head.destination;
    seen.flags = head.flags;
    Ok(())
}

const _: () = assert!(size_of::<Both<V4>>() == size_of::<Ends4>());
const _: () = assert!(size_of::<Told<V4>>() == size_of::<Told4>());

#[inline(always)]
fn ends4(both: &Both<V4>) -> &Ends4 {
    // SAFETY: the same fields in the same order.
    unsafe { &*ptr::from_ref(both).cast() }
}

#[inline(always)]
fn told4(told: &Told<V4>) -> &Told4 {
    // SAFETY: the same fields in the same order.
    unsafe { &*ptr::from_ref(told).cast() }
}

impl Wire for V4 {
    const ICMP: u8 = PROTO_ICMP;
    const TUNNEL: u8 = PROTO_IPV4;
    const HEAD: usize = IPV4_HEAD;
    const ROOM: usize = ROOM4;
    const RESET: usize = Reset::END4;
    const NOBODY: Be32 = Be32::from_raw(0);

    #[inline(always)]
    fn plain(memory: &Memory) -> Option<Seen<Self>> {
        Some(Seen::plain(&plain4(memory)?))
    }

    #[inline(always)]
    fn destination(memory: &Memory, network: usize) -> Option<Be32> {
        let head = memory.window(network)?;
        Some(Be32::from_raw(raw32::<16, IPV4_HEAD>(head)))
    }

    #[inline(always)]
    fn read(memory: &Memory, seen: &mut Seen<Self>) -> Result<(), Fate> {
        let ip = ipv4(memory, seen.network())?;
        seen.ends.source = ip.source;
        seen.ends.destination = ip.destination;
        seen.proto = ip.proto;
        seen.hops = ip.hops;
        seen.fragment = ip.fragment;
        seen.options = ip.options;
        seen.total = ip.total.into();
        seen.transport = ip.transport;
        if seen.network() + usize::from(ip.total) > memory.length() {
            return Err(Fate::Malformed);
        }
        inside(memory, seen)
    }

    #[inline(always)]
    fn rewrite(memory: &mut Memory, seen: &Seen<Self>, new: &Both<Self>, hops: u8) -> Option<()> {
        rewrite4(memory, seen.places(), ends4(&seen.ends), ends4(new), hops)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits in its head")]
    fn enclose(
        memory: &mut Memory,
        seen: &Seen<Self>,
        source: Be32,
        destination: Be32,
        _: u32,
    ) -> Option<()> {
        enclose4(
            memory,
            seen.network(),
            seen.total as u16,
            source,
            destination,
            1,
        )
    }

    #[inline(always)]
    fn open(memory: &mut Memory, network: usize, outer: usize) -> Result<(), Fate> {
        open4(memory, network, outer)
    }

    #[inline(always)]
    fn reset(memory: &mut Memory, seen: &Seen<Self>) -> Option<()> {
        let reset = Reset::answering(memory, seen.places(), seen.total as usize)?;
        reset.write4(memory, seen.network(), ends4(&seen.ends))
    }

    #[inline(always)]
    fn tell_too_big(
        memory: &mut Memory,
        network: usize,
        source: Be32,
        asker: Be32,
        mtu: u16,
    ) -> Option<()> {
        tell_too_big4(memory, network, source, asker, mtu)
    }

    #[inline(always)]
    fn message(memory: &Memory, icmp: usize) -> Option<Message> {
        message4(memory, icmp)
    }

    #[inline(always)]
    fn echo(memory: &mut Memory, seen: &Seen<Self>) -> Option<()> {
        answer_echo4(memory, seen.network(), seen.transport())
    }

    #[inline(always)]
    fn quoted(memory: &Memory, at: usize, known: &mut Known<Self>) -> Option<()> {
        let quoted = quoted4(memory, at).ok()?;
        known.places = quoted.places;
        known.quoted = Both {
            source: quoted.ends.source,
            destination: quoted.ends.destination,
            source_port: quoted.ends.source_port,
            destination_port: quoted.ends.destination_port,
        };
        Some(())
    }

    #[inline(always)]
    fn retell(
        memory: &mut Memory,
        seen: &Seen<Self>,
        quoted: Places,
        old: &Told<Self>,
        new: &Told<Self>,
    ) -> Option<()> {
        let (old, new) = (told4(old), told4(new));
        rewrite_error4(
            memory,
            seen.network(),
            seen.transport(),
            quoted,
            old,
            new,
            1,
        )
    }

    #[inline(always)]
    fn tunnel_too_big(memory: &Memory, seen: &Seen<Self>) -> Option<TunnelTooBig> {
        tunnel_too_big4(memory, &ipv4(memory, seen.network()).ok()?)
    }

    #[inline(always)]
    fn is_solicitation(_: &Memory, _: &Seen<Self>) -> bool {
        false
    }

    #[inline(always)]
    fn host(host: &[u32; 4]) -> Option<&Be32> {
        (host[3] != 0).then(|| Self::narrow(host))
    }
}

const _: () = assert!(size_of::<Both<V6>>() == size_of::<Ends6>());
const _: () = assert!(size_of::<Told<V6>>() == size_of::<Told6>());

#[inline(always)]
fn ends6(both: &Both<V6>) -> &Ends6 {
    // SAFETY: the same fields in the same order.
    unsafe { &*ptr::from_ref(both).cast() }
}

#[inline(always)]
fn told6(told: &Told<V6>) -> &Told6 {
    // SAFETY: the same fields in the same order.
    unsafe { &*ptr::from_ref(told).cast() }
}

/// What the heads said, as the pure functions have it.
#[inline(always)]
fn ip6(seen: &Seen<V6>) -> Ipv6 {
    Ipv6 {
        source: seen.ends.source,
        destination: seen.ends.destination,
        proto: seen.proto,
        hops: seen.hops,
        total: seen.total as usize,
        fragment: seen.fragment,
        options: seen.options,
        transport: seen.transport(),
    }
}

impl Wire for V6 {
    const ICMP: u8 = PROTO_ICMP6;
    const TUNNEL: u8 = PROTO_IPV6;
    const HEAD: usize = IPV6_HEAD;
    const ROOM: usize = ROOM6;
    const RESET: usize = Reset::END6;
    const NOBODY: [u32; 4] = [0; 4];

    #[inline(always)]
    fn plain(memory: &Memory) -> Option<Seen<Self>> {
        Some(Seen::plain(&plain6(memory)?))
    }

    #[inline(always)]
    fn destination(memory: &Memory, network: usize) -> Option<[u32; 4]> {
        Some(raw128::<24, IPV6_HEAD>(memory.window(network)?))
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "little more than 16 bits")]
    fn read(memory: &Memory, seen: &mut Seen<Self>) -> Result<(), Fate> {
        let ip = ipv6(memory, seen.network())?;
        seen.ends.source = ip.source;
        seen.ends.destination = ip.destination;
        seen.proto = ip.proto;
        seen.hops = ip.hops;
        seen.fragment = ip.fragment;
        seen.options = ip.options;
        seen.total = ip.total as u32;
        seen.transport = ip.transport;
        if seen.network() + ip.total > memory.length() {
            return Err(Fate::Malformed);
        }
        inside(memory, seen)
    }

    #[inline(always)]
    fn rewrite(memory: &mut Memory, seen: &Seen<Self>, new: &Both<Self>, hops: u8) -> Option<()> {
        rewrite6(memory, seen.places(), ends6(&seen.ends), ends6(new), hops)
    }

    #[inline(always)]
    fn enclose(
        memory: &mut Memory,
        seen: &Seen<Self>,
        source: [u32; 4],
        destination: [u32; 4],
        label: u32,
    ) -> Option<()> {
        let length = u16::try_from(seen.total).ok()?;
        enclose6(
            memory,
            seen.network(),
            length,
            source,
            destination,
            label,
            1,
        )
    }

    #[inline(always)]
    fn open(memory: &mut Memory, network: usize, outer: usize) -> Result<(), Fate> {
        open6(memory, network, outer)
    }

    #[inline(always)]
    fn reset(memory: &mut Memory, seen: &Seen<Self>) -> Option<()> {
        let reset = Reset::answering(memory, seen.places(), seen.total as usize)?;
        reset.write6(memory, seen.network(), ends6(&seen.ends))
    }

    #[inline(always)]
    fn tell_too_big(
        memory: &mut Memory,
        network: usize,
        source: [u32; 4],
        asker: [u32; 4],
        mtu: u16,
    ) -> Option<()> {
        tell_too_big6(memory, network, source, asker, mtu)
    }

    #[inline(always)]
    fn message(memory: &Memory, icmp: usize) -> Option<Message> {
        message6(memory, icmp)
    }

    #[inline(always)]
    fn echo(memory: &mut Memory, seen: &Seen<Self>) -> Option<()> {
        answer_echo6(memory, seen.network(), &ip6(seen))
    }

    #[inline(always)]
    fn quoted(memory: &Memory, at: usize, known: &mut Known<Self>) -> Option<()> {
        let quoted = quoted6(memory, at).ok()?;
        known.places = quoted.places;
        known.quoted = Both {
            source: quoted.ends.source,
            destination: quoted.ends.destination,
            source_port: quoted.ends.source_port,
            destination_port: quoted.ends.destination_port,
        };
        Some(())
    }

    #[inline(always)]
    fn retell(
        memory: &mut Memory,
        seen: &Seen<Self>,
        quoted: Places,
        old: &Told<Self>,
        new: &Told<Self>,
    ) -> Option<()> {
        let (old, new) = (told6(old), told6(new));
        rewrite_error6(
            memory,
            seen.network(),
            seen.transport(),
            quoted,
            old,
            new,
            1,
        )
    }

    #[inline(always)]
    fn tunnel_too_big(memory: &Memory, seen: &Seen<Self>) -> Option<TunnelTooBig> {
        tunnel_too_big6(memory, &ip6(seen))
    }

    #[inline(always)]
    fn is_solicitation(memory: &Memory, seen: &Seen<Self>) -> bool {
        is_solicitation(memory, seen.network(), seen.transport())
    }

    #[inline(always)]
    fn host(host: &[u32; 4]) -> Option<&[u32; 4]> {
        let [first, second, third] = lb_ebpf::MAPPED_HIGH;
        let v4 = host[0] == first && host[1] == second && host[2] == third;
        (!v4 && *host != [0; 4]).then_some(host)
    }
}
