//! IPv6.

use core::ptr;

use lb_common::packet::Fate;
use lb_ebpf::packet::{
    Bytes as _, Ends6, IPV6_HEAD, Ipv6, Message, PROTO_ICMP6, PROTO_IPV6, Places, ROOM6, Reset,
    Told6, TunnelTooBig, answer_echo6, enclose6, ipv6, is_solicitation, message6, open6, plain6,
    quoted6, raw128, rewrite_error6, rewrite6, tell_too_big6, tunnel_too_big6,
};

use super::{Both, Known, Seen, Told, Wire, inside};
use crate::{family::V6, memory::Memory};

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
