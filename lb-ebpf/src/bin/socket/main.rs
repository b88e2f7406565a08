//! The socket path: flows to a VIP are balanced inside `connect()`, and datagrams inside `sendmsg()`.
//!
//! `connect4` and `connect6` choose and rewrite, `getpeername4` and `getpeername6` answer the VIP, `sock_release` and
//! `sock_ops` keep the count of open flows exact, and `sock_ops` sees a connect fail. `sendmsg` and `recvmsg` do for
//! unconnected UDP what connect and getpeername do. A destination outside the pool costs a mask and a compare.
#![no_std]
#![no_main]
// The entry points are found by section, and their macros lose the doc comments.
#![allow(missing_docs, unreachable_pub)]
// Atomics that answer the old value: core's atomic types have no such methods for BPF targets.
#![feature(core_intrinsics)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the fields of one context or record are read and written together, under one promise"
)]
#![expect(internal_features, reason = "see above")]

mod choose;
mod count;
mod datagram;
mod flow;
#[path = "../../kernel/mod.rs"]
#[expect(dead_code, reason = "shared with the objects that use all of it")]
mod kernel;
mod maps;
mod trace;

use core::hint::cold_path;

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT, bpf_sock_addr,
    },
    helpers::generated::bpf_set_retval,
    macros::{cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext},
};
use lb_common::{Be16, Be32, EventKind, Form, PROTO_TCP, PROTO_UDP};
use lb_ebpf::MAPPED_HIGH;

use crate::{
    choose::{Choice, Denial, Wish, choose, choose_for_datagram},
    datagram::{called_sender, remember, socket_cookie},
    flow::{called, called6, closed, connected, connecting, failed, flow, leave, record, release},
    maps::{OWN_ADDRESS, pools},
};

/// What a cgroup hook answers to let the call go on.
const PROCEED: i32 = 1;
/// What it answers to refuse it, with the error that was set before.
const REFUSE: i32 = 0;
/// `-ECONNREFUSED`.
const CONNECTION_REFUSED: i32 = -111;
/// `-EADDRNOTAVAIL`.
const ADDRESS_NOT_AVAILABLE: i32 = -99;

/// `connect()` of an IPv4 socket, before routing.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier checks each field access.
    let address = unsafe { (*ctx.sock_addr).user_ip4 };
    // The pool test comes first, before any other field is read: it is all that a bystander pays.
    if !pools().holds(address) {
        return elsewhere(ctx.sock_addr);
    }
    connect_v4(ctx.sock_addr)
}

/// A connect to what is not ours. A UDP socket may have been connected to a VIP before.
#[inline(always)]
fn elsewhere(sa: *mut bpf_sock_addr) -> i32 {
    // SAFETY: the kernel passes a valid context.
    if unsafe { (*sa).protocol } == u32::from(PROTO_UDP) {
        leave(sa);
    }
    PROCEED
}

/// The same for a destination in the pool. Not part of the entry, so that a bystander's few instructions lie
/// together and save no registers.
#[inline(never)]
fn connect_v4(sa: *mut bpf_sock_addr) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier checks each field access.
    let address = unsafe { (*sa).user_ip4 };
    match connect(sa, address, Form::V4) {
        Verdict::Pass => PROCEED,
        Verdict::Refuse => refuse_connect(),
        Verdict::To(choice) => {
            rewrite_v4(sa, &choice);
            PROCEED
        }
    }
}

/// `connect()` of an IPv6 socket, which may mean an IPv4 address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    if !may_be_ours(ctx.sock_addr) {
        return elsewhere(ctx.sock_addr);
    }
    connect_v6(ctx.sock_addr)
}

#[inline(never)]
fn connect_v6(sa: *mut bpf_sock_addr) -> i32 {
    let address = address_v6(sa);
    let Some((vip, form)) = pools().stands_for(address) else {
        // An address of the pool that no IPv4 one corresponds to is nobody's.
        return if pools().holds_v6(address) {
            refuse_connect()
        } else {
            elsewhere(sa)
        };
    };
    match connect(sa, vip, form) {
        Verdict::Pass => PROCEED,
        Verdict::Refuse => refuse_connect(),
        Verdict::To(choice) => {
            rewrite_v6(sa, &choice);
            PROCEED
        }
    }
}

/// What is to become of a connect or a datagram.
enum Verdict {
    /// It is none of ours.
    Pass,
    Refuse,
    To(Choice),
}

/// A connect to the VIP `address`.
#[inline(always)]
fn connect(sa: *mut bpf_sock_addr, address: u32, form: Form) -> Verdict {
    // SAFETY: the kernel passes a valid context; the verifier checks each field access.
    let (port, protocol) = unsafe { ((*sa).user_port, (*sa).protocol) };
    if address == OWN_ADDRESS.load() {
        elsewhere(sa);
        return Verdict::Pass;
    }
    // What else passes meets the route of the pool, which refuses it: a UDP socket then stays where it was connected.
    let port = port_of(port);
    let proto = if protocol == u32::from(PROTO_TCP) {
        PROTO_TCP
    } else if protocol == u32::from(PROTO_UDP) && port.raw() != 0 {
        PROTO_UDP
    } else {
        // glibc's resolver connects UDP sockets to port 0 of an address to learn how it would be reached.
        return Verdict::Pass;
    };
    let wish = Wish {
        vip: Be32::from_raw(address),
        port,
        proto,
        form,
    };
    match choose(sa, &wish) {
        Ok(choice) => {
            record(sa, &wish, &choice);
            trace::granted(sa, &wish, &choice);
            Verdict::To(choice)
        }
        // An address that no UDP service has: whether there is a way there is all that a resolver asks.
        Err(Denial::Unknown) if proto == PROTO_UDP => Verdict::Pass,
        Err(denial) => {
            cold_path();
            if let Denial::Refused(reason, service) = denial {
                trace::refused(sa, &wish, &service, reason);
            }
            Verdict::Refuse
        }
    }
}

/// `getpeername()` and `accept()`: a client that connected to a VIP is answered the VIP.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    let Some(record) = flow(sk.cast()) else {
        return PROCEED;
    };
    // SAFETY: the context is valid.
    let (address, port) = unsafe { ((*sa).user_ip4, (*sa).user_port) };
    if let Some((vip, vip_port)) = called(record, address, port_of(port)) {
        show_v4(sa, vip, vip_port);
    }
    PROCEED
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    let Some(record) = flow(sk.cast()) else {
        return PROCEED;
    };
    // SAFETY: the context is valid.
    let port = unsafe { (*sa).user_port };
    if let Some((vip, vip_port, v6)) = called6(record, address_v6(sa), port_of(port)) {
        show_v6(sa, vip, vip_port, v6);
    }
    PROCEED
}

/// `bind()`: an application that listened on a VIP would shadow the service.
#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let address = unsafe { (*ctx.sock_addr).user_ip4 };
    if pools().holds(address) && address != OWN_ADDRESS.load() {
        return refuse_with(ADDRESS_NOT_AVAILABLE);
    }
    PROCEED
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    if !may_be_ours(ctx.sock_addr) {
        return PROCEED;
    }
    let address = address_v6(ctx.sock_addr);
    match pools().stands_for(address) {
        Some((vip, _)) if vip == OWN_ADDRESS.load() => PROCEED,
        None if !pools().holds_v6(address) => PROCEED,
        _ => refuse_with(ADDRESS_NOT_AVAILABLE),
    }
}

/// A datagram of an unconnected IPv4 socket. Attached only while there is a UDP service: it runs for each datagram of
/// every process.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let address = unsafe { (*ctx.sock_addr).user_ip4 };
    if !pools().holds(address) {
        return PROCEED;
    }
    send_v4(ctx.sock_addr)
}

#[inline(never)]
fn send_v4(sa: *mut bpf_sock_addr) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let address = unsafe { (*sa).user_ip4 };
    match send(sa, address, Form::V4) {
        Verdict::Pass => PROCEED,
        Verdict::Refuse => refuse_connect(),
        Verdict::To(choice) => {
            rewrite_v4(sa, &choice);
            PROCEED
        }
    }
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    if !may_be_ours(ctx.sock_addr) {
        return PROCEED;
    }
    send_v6(ctx.sock_addr)
}

#[inline(never)]
fn send_v6(sa: *mut bpf_sock_addr) -> i32 {
    let Some((vip, form)) = pools().stands_for(address_v6(sa)) else {
        return PROCEED;
    };
    match send(sa, vip, form) {
        Verdict::Pass => PROCEED,
        Verdict::Refuse => refuse_connect(),
        Verdict::To(choice) => {
            rewrite_v6(sa, &choice);
            PROCEED
        }
    }
}

/// A datagram for the VIP `address`.
#[inline(always)]
fn send(sa: *mut bpf_sock_addr, address: u32, form: Form) -> Verdict {
    // SAFETY: the kernel passes a valid context.
    let port = port_of(unsafe { (*sa).user_port });
    if address == OWN_ADDRESS.load() || port.raw() == 0 {
        return Verdict::Pass;
    }
    let wish = Wish {
        vip: Be32::from_raw(address),
        port,
        proto: PROTO_UDP,
        form,
    };
    let socket = socket_cookie(sa);
    match choose_for_datagram(sa, &wish, socket) {
        Ok(choice) => {
            remember(socket, &wish, &choice);
            trace::granted(sa, &wish, &choice);
            Verdict::To(choice)
        }
        // The route of the pool refuses it.
        Err(Denial::Unknown) => Verdict::Pass,
        Err(Denial::Refused(reason, service)) => {
            trace::refused(sa, &wish, &service, reason);
            Verdict::Refuse
        }
    }
}

/// A datagram is received, of which the application asks who sent it.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context.
    let (address, port) = unsafe { ((*sa).user_ip4, (*sa).user_port) };
    let [first, second, third] = MAPPED_HIGH;
    if let Some((vip, vip_port, _)) =
        called_sender(sa, [first, second, third, address], port_of(port))
    {
        show_v4(sa, vip, vip_port);
    }
    PROCEED
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context.
    let port = unsafe { (*sa).user_port };
    if let Some((vip, vip_port, v6)) = called_sender(sa, address_v6(sa), port_of(port)) {
        show_v6(sa, vip, vip_port, v6);
    }
    PROCEED
}

/// The last descriptor of a socket was closed.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    if let Some(record) = flow(ctx.sock.cast()) {
        release(record);
    }
    PROCEED
}

/// TCP events. Runs about nine times for every loopback connection of the host, so it returns at once
/// unless the event can concern a flow.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        connecting(&ctx);
    } else if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        connected(&ctx);
    } else if op == BPF_SOCK_OPS_STATE_CB {
        if ctx.arg(1) != BPF_TCP_CLOSE {
        } else if ctx.arg(0) == BPF_TCP_SYN_SENT {
            failed(&ctx, EventKind::Refused);
        } else {
            closed(&ctx);
        }
    } else if op == BPF_SOCK_OPS_RTO_CB {
        // `arg(0)` counts the retransmissions before this one, so the second one has 1.
        // SAFETY: the kernel passes a valid context.
        if unsafe { (*ctx.ops).state } == BPF_TCP_SYN_SENT && ctx.arg(0) == 1 {
            failed(&ctx, EventKind::Unanswered);
        }
    }
    1
}

/// The port of a context's field: network order, in the low 16 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the high bits are empty")]
pub(crate) const fn port_of(field: u32) -> Be16 {
    Be16::from_raw(field as u16)
}

/// Whether an IPv6 context's first word is that of an IPv6 VIP or of an IPv4 address: all that a bystander pays.
#[inline(always)]
fn may_be_ours(sa: *mut bpf_sock_addr) -> bool {
    // SAFETY: the kernel passes a valid context.
    let first = unsafe { (*sa).user_ip6[0] };
    first == pools().high[0] || first == 0
}

#[inline(always)]
fn address_v6(sa: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: the kernel passes a valid context. Word by word: the kernel takes no wider read of it.
    unsafe {
        let words = (&raw const (*sa).user_ip6).cast::<u32>();
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}

#[inline(always)]
fn rewrite_v4(sa: *mut bpf_sock_addr, choice: &Choice) {
    show_v4(sa, choice.backend.address[3], choice.backend.port);
}

#[inline(always)]
fn rewrite_v6(sa: *mut bpf_sock_addr, choice: &Choice) {
    write_v6(sa, choice.backend.address, choice.backend.port);
}

#[inline(always)]
fn show_v4(sa: *mut bpf_sock_addr, address: u32, port: Be16) {
    // SAFETY: the kernel passes a valid context; both fields are writable in these hooks.
    unsafe {
        (*sa).user_ip4 = address;
        (*sa).user_port = u32::from(port.raw());
    }
}

#[inline(always)]
fn show_v6(sa: *mut bpf_sock_addr, vip: u32, port: Be16, v6: bool) {
    write_v6(sa, pools().written(vip, v6), port);
}

#[inline(always)]
fn write_v6(sa: *mut bpf_sock_addr, address: [u32; 4], port: Be16) {
    // SAFETY: as in `show_v4`; word by word, as in `address_v6`.
    unsafe {
        let words = (&raw mut (*sa).user_ip6).cast::<u32>();
        words.write_volatile(address[0]);
        words.add(1).write_volatile(address[1]);
        words.add(2).write_volatile(address[2]);
        words.add(3).write_volatile(address[3]);
        (*sa).user_port = u32::from(port.raw());
    }
}

#[inline(always)]
fn refuse_connect() -> i32 {
    refuse_with(CONNECTION_REFUSED)
}

#[inline(always)]
fn refuse_with(error: i32) -> i32 {
    // SAFETY: a plain helper call. Without it the application would see EPERM.
    unsafe { bpf_set_retval(error) };
    REFUSE
}
