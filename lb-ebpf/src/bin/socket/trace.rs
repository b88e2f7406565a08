//! Tells each decision for a service that somebody follows.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
};
use lb_common::{Refusal, Service, Trace, flag};

use crate::{
    choose::{Choice, Wish, cookie},
    count::untold,
    datagram::socket_cookie,
    kernel::now,
    maps::{KNOWS_PROCESS, TRACES},
};

/// Tells that the wish was granted.
#[inline(always)]
pub(crate) fn granted(sa: *mut bpf_sock_addr, wish: &Wish, choice: &Choice) {
    if choice.service.flags & flag::TRACE != 0 {
        tell(
            sa,
            wish,
            choice.service.table,
            choice.index,
            choice.backend.generation,
        );
    }
}

/// Tells that it was not.
#[inline(always)]
pub(crate) fn refused(sa: *mut bpf_sock_addr, wish: &Wish, service: &Service, reason: Refusal) {
    if service.flags & flag::TRACE != 0 {
        tell(sa, wish, service.table, 0, reason as u32);
    }
}

/// Not part of the callers: it is rare, and its value would take their registers.
#[inline(never)]
fn tell(sa: *mut bpf_sock_addr, wish: &Wish, table: u32, backend: u32, detail: u32) {
    let mut trace = Trace {
        time_ns: now(),
        client: cookie(sa),
        socket: socket_cookie(sa),
        process: 0,
        command: [0; 16],
        vip: wish.vip,
        port: wish.port,
        proto: wish.proto,
        form: wish.form as u8,
        table,
        backend,
        detail,
        spare: 0,
    };
    if KNOWS_PROCESS.load() != 0 {
        trace.process = bpf_get_current_pid_tgid();
        trace.command = bpf_get_current_comm().unwrap_or_default();
    }
    // Whoever reads too slowly misses some, and is told how many.
    if TRACES.output(trace, 0).is_err() {
        untold(table);
    }
}
