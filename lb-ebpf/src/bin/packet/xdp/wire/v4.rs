//! IPv4.

use core::ptr;

use lb_common::{Be32, packet::Fate};
use lb_ebpf::packet::{
    Bytes as _, Ends4, IPV4_HEAD, Message, PROTO_ICMP, PROTO_IPV4, Places, ROOM4, Reset, Told4,
    TunnelTooBig, answer_echo4, enclose4, ipv4, message4, open4, plain4, quoted4, raw32,
    rewrite_error4, rewrite4, tell_too_big4, tunnel_too_big4,
};

use super::{Both, Known, Seen, Told, Wire, inside};
use crate::{
    family::{Family as _, V4},
    memory::Memory,
};

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
