//! How packets of IPv4 and IPv6 are read and written, so that the rules stand once.

mod seen;
mod v4;
mod v6;

use lb_common::packet::Fate;
use lb_ebpf::packet::{Fragment, Message, Places, TunnelTooBig, transport};

use crate::{hop::Routed, memory::Memory};
pub(super) use seen::{Both, Known, Seen, Told};

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
