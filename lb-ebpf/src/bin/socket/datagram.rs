//! UDP without a connection: each datagram is sent to a backend, and each answer is shown to come from the VIP.

use aya_ebpf::{bindings::bpf_sock_addr, helpers::generated::bpf_get_socket_cookie};
use lb_common::{Be16, Form, Peer, PeerKey};

use crate::{
    choose::{Choice, Wish},
    count::count,
    flow::{called, called6, flow},
    maps::PEERS,
};

/// The cookie of the socket.
#[inline(always)]
pub(crate) fn socket_cookie(sa: *mut bpf_sock_addr) -> u64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { bpf_get_socket_cookie(sa.cast()) }
}

/// Remembers what the application calls the backend, so that its answers bear that name.
#[inline(always)]
pub(crate) fn remember(socket: u64, wish: &Wish, choice: &Choice) {
    let key = PeerKey::new(socket, choice.backend.address, choice.backend.port);
    let peer = Peer {
        vip: wish.vip,
        port: wish.port,
        form: wish.form as u16,
    };
    // SAFETY: the value is copied out at once; one aligned word of eight bytes.
    let known = unsafe { PEERS.get(key) }.copied();
    if known == Some(peer) {
        return;
    }
    // A full map gives up whom it has not seen for longest.
    let _ = PEERS.insert(key, peer, 0);
    if known.is_none() {
        count(choice.service.table);
    }
}

/// What the application called the sender of a datagram. With it, whether it wrote the IPv6 VIP.
#[inline(always)]
pub(crate) fn called_sender(
    sa: *mut bpf_sock_addr,
    address: [u32; 4],
    port: Be16,
) -> Option<(u32, Be16, bool)> {
    let key = PeerKey::new(socket_cookie(sa), address, port);
    // SAFETY: as in `remember`.
    if let Some(peer) = unsafe { PEERS.get(key) }.copied() {
        return Some((peer.vip.raw(), peer.port, peer.form == Form::V6 as u16));
    }
    // A connected socket has a record.
    // SAFETY: the kernel passes a valid context.
    let record = flow(unsafe { (*sa).__bindgen_anon_1.sk }.cast())?;
    // SAFETY: storage of a live socket.
    if unsafe { (*record).form } == Form::V4 as u32 {
        let (vip, port) = called(record, address[3], port)?;
        Some((vip, port, false))
    } else {
        called6(record, address, port)
    }
}
