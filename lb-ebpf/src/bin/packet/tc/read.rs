//! Reading the heads of a packet of the stack, whose first bytes may lie in parts.

use aya_ebpf::{helpers::generated::bpf_skb_pull_data, programs::TcContext};
use lb_common::{Be16, Be32, PROTO_TCP, PROTO_UDP, packet::Fate};
use lb_ebpf::packet::{
    Bytes as _, Fragment, IPV4_HEAD, IPV6_HEAD, Message, PROTO_ICMP, PROTO_ICMP6, ipv4, ipv6,
    is_solicitation, message4, message6, quoted4, quoted6, raw16, raw32, raw128, transport,
};

use super::write::Both;
use crate::{
    family::{Family, Peer as _, V4, V6},
    memory::Memory,
};

/// Most bytes of heads that are asked to lie in one part.
const HEADS: u32 = 640;

/// What the heads of a packet say.
pub(super) struct Seen<F: Family> {
    pub(super) source: F::Address,
    pub(super) destination: F::Address,
    pub(super) source_port: Be16,
    pub(super) destination_port: Be16,
    /// TCP, UDP or ICMP of the family.
    pub(super) proto: u8,
    /// Flags of TCP.
    pub(super) flags: u8,
    /// Whether there are options or extension headers.
    pub(super) options: bool,
    /// Whether it is the first part of a packet that has ports.
    pub(super) first: bool,
    /// Where the head of IP begins.
    pub(super) network: usize,
    /// Where what is inside begins.
    pub(super) transport: usize,
}

impl<F: Read> Seen<F> {
    /// Nothing yet of a packet whose head of IP begins at `network`.
    #[inline(always)]
    pub(super) fn new(network: usize) -> Self {
        Self {
            source: F::NOBODY,
            destination: F::NOBODY,
            source_port: Be16::from_raw(0),
            destination_port: Be16::from_raw(0),
            proto: 0,
            flags: 0,
            options: false,
            first: false,
            network,
            transport: 0,
        }
    }

    /// Where its heads are.
    #[inline(always)]
    pub(super) fn heads(&self) -> Heads {
        Heads {
            network: self.network,
            transport: self.transport,
            proto: self.proto,
        }
    }

    /// Its ends.
    #[inline(always)]
    pub(super) fn both(&self) -> Both<'_, F> {
        Both {
            source: &self.source,
            destination: &self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
        }
    }

    /// The flow that it belongs to if it is an answer.
    #[inline(always)]
    pub(super) fn answers(&self) -> F::Peer {
        F::Peer::new(
            self.source,
            self.source_port,
            self.destination,
            self.destination_port,
            self.proto,
        )
    }
}

/// Where the heads of a packet are.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// Where the head of IP begins.
    pub(super) network: usize,
    /// Where what is inside begins.
    pub(super) transport: usize,
    /// What that is.
    pub(super) proto: u8,
}

/// How a family is read.
pub(super) trait Read: Family {
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// Type of an echo request.
    const ECHO: u8;
    /// Type of its answer.
    const ECHO_ANSWER: u8;
    /// No address.
    const NOBODY: Self::Address;
    /// Where the sender's address is in its head.
    const SOURCE_AT: usize;
    /// Where the receiver's is.
    const DESTINATION_AT: usize;

    /// The receiver of the packet whose head begins at `network`.
    fn destination(memory: &Memory, network: usize) -> Option<Self::Address>;
    /// Both, the sender first.
    fn addresses(memory: &Memory, network: usize) -> Option<(Self::Address, Self::Address)>;
    /// A TCP or UDP packet as nearly all are: whole, without options or extension headers. No is no verdict.
    fn plain(memory: &Memory, seen: &mut Seen<Self>) -> bool;
    /// Whether what is inside of the head at `network` is ICMP.
    fn is_message(memory: &Memory, network: usize) -> bool;
    /// Where a whole message begins.
    fn message_at(memory: &Memory, network: usize) -> Result<usize, Fate>;
    /// What a message is.
    fn message(memory: &Memory, icmp: usize) -> Option<Message>;
    /// Whether a message is of a neighbour that asks for a link address.
    fn is_solicitation(memory: &Memory, seen: &Seen<Self>) -> bool;
    /// A packet that an error quotes, whose head begins at the `network` of `seen`.
    fn quoted(memory: &Memory, seen: &mut Seen<Self>) -> Result<(), Fate>;
    /// Any packet. Its addresses are there even if it is none that has a way.
    fn any(memory: &Memory, seen: &mut Seen<Self>) -> Result<(), Fate>;
}

impl Read for V4 {
    const ICMP: u8 = PROTO_ICMP;
    const ECHO: u8 = 8;
    const ECHO_ANSWER: u8 = 0;
    const NOBODY: Be32 = Be32::from_raw(0);
    const SOURCE_AT: usize = 12;
    const DESTINATION_AT: usize = 16;

    #[inline(always)]
    fn destination(memory: &Memory, network: usize) -> Option<Be32> {
        Some(Be32::from_raw(raw32::<16, IPV4_HEAD>(
            memory.window(network)?,
        )))
    }

    #[inline(always)]
    fn addresses(memory: &Memory, network: usize) -> Option<(Be32, Be32)> {
        let head = memory.window::<IPV4_HEAD>(network)?;
        let address = Be32::from_raw;
        Some((
            address(raw32::<12, IPV4_HEAD>(head)),
            address(raw32::<16, IPV4_HEAD>(head)),
        ))
    }

    #[inline(always)]
    fn plain(memory: &Memory, seen: &mut Seen<Self>) -> bool {
        let Some(head) = memory.window::<IPV4_HEAD>(seen.network) else {
            return false;
        };
        seen.source = Be32::from_raw(raw32::<12, IPV4_HEAD>(head));
        seen.destination = Be32::from_raw(raw32::<16, IPV4_HEAD>(head));
        seen.proto = head[9];
        seen.transport = seen.network + IPV4_HEAD;
        // The version and the size in one; then neither an offset nor more fragments.
        head[0] == 0x45
            && raw16::<6, IPV4_HEAD>(head) & 0x3fff_u16.to_be() == 0
            && plain(memory, seen)
    }

    #[inline(always)]
    fn is_message(memory: &Memory, network: usize) -> bool {
        memory
            .window::<IPV4_HEAD>(network)
            .is_some_and(|head| head[9] == PROTO_ICMP)
    }

    #[inline(always)]
    fn message_at(memory: &Memory, network: usize) -> Result<usize, Fate> {
        let ip = ipv4(memory, network)?;
        if matches!(ip.fragment, Fragment::Whole) {
            Ok(ip.transport)
        } else {
            Err(Fate::Fragment)
        }
    }

    #[inline(always)]
    fn message(memory: &Memory, icmp: usize) -> Option<Message> {
        message4(memory, icmp)
    }

    #[inline(always)]
    fn is_solicitation(_: &Memory, _: &Seen<Self>) -> bool {
        false
    }

    #[inline(always)]
    fn quoted(memory: &Memory, seen: &mut Seen<Self>) -> Result<(), Fate> {
        let quoted = quoted4(memory, seen.network)?;
        seen.source = quoted.ends.source;
        seen.destination = quoted.ends.destination;
        seen.source_port = quoted.ends.source_port;
        seen.destination_port = quoted.ends.destination_port;
        seen.proto = quoted.places.proto;
        seen.transport = quoted.places.transport;
        Ok(())
    }

    #[inline(always)]
    fn any(memory: &Memory, seen: &mut Seen<Self>) -> Result<(), Fate> {
        seen.destination = Self::destination(memory, seen.network).ok_or(Fate::Malformed)?;
        let ip = ipv4(memory, seen.network)?;
        seen.source = ip.source;
        seen.proto = ip.proto;
        seen.options = ip.options;
        seen.transport = ip.transport;
        inside(memory, ip.fragment, seen)
    }
}

impl Read for V6 {
    const ICMP: u8 = PROTO_ICMP6;
    const ECHO: u8 = 128;
    const ECHO_ANSWER: u8 = 129;
    const NOBODY: [u32; 4] = [0; 4];
    const SOURCE_AT: usize = 8;
    const DESTINATION_AT: usize = 24;

    #[inline(always)]
    fn destination(memory: &Memory, network: usize) -> Option<[u32; 4]> {
        Some(raw128::<24, IPV6_HEAD>(memory.window(network)?))
    }

    #[inline(always)]
    fn addresses(memory: &Memory, network: usize) -> Option<([u32; 4], [u32; 4])> {
        let head = memory.window::<IPV6_HEAD>(network)?;
        Some((raw128::<8, IPV6_HEAD>(head), raw128::<24, IPV6_HEAD>(head)))
    }

    #[inline(always)]
    fn plain(memory: &Memory, seen: &mut Seen<Self>) -> bool {
        let Some(head) = memory.window::<IPV6_HEAD>(seen.network) else {
            return false;
        };
        seen.source = raw128::<8, IPV6_HEAD>(head);
        seen.destination = raw128::<24, IPV6_HEAD>(head);
        seen.proto = head[6];
        seen.transport = seen.network + IPV6_HEAD;
        head[0] >> 4 == 6 && plain(memory, seen)
    }

    #[inline(always)]
    fn is_message(memory: &Memory, network: usize) -> bool {
        memory
            .window::<IPV6_HEAD>(network)
            .is_some_and(|head| head[6] == PROTO_ICMP6)
    }

    #[inline(always)]
    fn message_at(_: &Memory, network: usize) -> Result<usize, Fate> {
        Ok(network + IPV6_HEAD)
    }

    #[inline(always)]
    fn message(memory: &Memory, icmp: usize) -> Option<Message> {
        message6(memory, icmp)
    }

    #[inline(always)]
    fn is_solicitation(memory: &Memory, seen: &Seen<Self>) -> bool {
        is_solicitation(memory, seen.network, seen.transport)
    }

    #[inline(always)]
    fn quoted(memory: &Memory, seen: &mut Seen<Self>) -> Result<(), Fate> {
        let quoted = quoted6(memory, seen.network)?;
        seen.source = quoted.ends.source;
        seen.destination = quoted.ends.destination;
        seen.source_port = quoted.ends.source_port;
        seen.destination_port = quoted.ends.destination_port;
        seen.proto = quoted.places.proto;
        seen.transport = quoted.places.transport;
        Ok(())
    }

    #[inline(always)]
    fn any(memory: &Memory, seen: &mut Seen<Self>) -> Result<(), Fate> {
        seen.destination = Self::destination(memory, seen.network).ok_or(Fate::Malformed)?;
        let ip = ipv6(memory, seen.network)?;
        seen.source = ip.source;
        seen.proto = ip.proto;
        seen.options = ip.options;
        seen.transport = ip.transport;
        inside(memory, ip.fragment, seen)
    }
}

#[inline(always)]
fn plain<F: Read>(memory: &Memory, seen: &mut Seen<F>) -> bool {
    matches!(seen.proto, PROTO_TCP | PROTO_UDP) && ports(memory, seen).is_ok()
}

/// Reads on behind the head of IP.
#[inline(always)]
fn inside<F: Read>(memory: &Memory, fragment: Fragment, seen: &mut Seen<F>) -> Result<(), Fate> {
    if !matches!(fragment, Fragment::Whole) {
        seen.first = matches!(fragment, Fragment::First)
            && (seen.proto == PROTO_TCP || seen.proto == PROTO_UDP);
        return Err(Fate::Fragment);
    }
    if seen.proto == F::ICMP {
        return Ok(());
    }
    ports(memory, seen)
}

#[inline(always)]
fn ports<F: Read>(memory: &Memory, seen: &mut Seen<F>) -> Result<(), Fate> {
    let head = transport(memory, seen.transport, seen.proto)?;
    seen.source_port = head.source;
    seen.destination_port = head.destination;
    seen.flags = head.flags;
    Ok(())
}

/// The packet's memory.
#[inline(always)]
pub(super) fn memory(ctx: &TcContext) -> Memory {
    Memory::new(ctx.data(), ctx.data_end())
}

/// The same, after the heads were put into one part.
#[inline(always)]
pub(super) fn pulled(ctx: &TcContext) -> Memory {
    pull(ctx);
    memory(ctx)
}

#[inline(never)]
fn pull(ctx: &TcContext) {
    // It fails for want of memory only; then the packet ends where its first part does.
    // SAFETY: the kernel passes a valid context.
    let _ = unsafe { bpf_skb_pull_data(ctx.skb.skb, ctx.len().min(HEADS)) };
}
