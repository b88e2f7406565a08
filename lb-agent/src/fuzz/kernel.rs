//! What the kernel and its programs say: lists of sockets, sampled packets, decisions.

use std::net::IpAddr;

use lb_packet::{Packet, Pcap};

use crate::{
    maps,
    packet::Glance,
    sockets::fuzz::{Said, messages},
};

/// A datagram of `sock_diag`.
pub fn sock_diag(data: &[u8]) {
    let (tcp, udp) = (messages(data, 6), messages(data, 17));
    assert!(tcp.len() <= data.len() / 16 + 1 && tcp.len() == udp.len());
    for (tcp, udp) in tcp.iter().zip(&udp) {
        // The kernel tells what is stored at sockets of TCP alone.
        let agree = match (tcp, udp) {
            (Said::Found(_), Said::Found(_)) | (Said::Other, Said::Untold(_)) => true,
            (Said::Malformed, Said::Malformed | Said::Untold(_)) => true,
            (tcp, udp) => tcp == udp,
        };
        assert!(agree, "{tcp:?} {udp:?}");
    }
    // Two datagrams in one say what both say.
    if data.len().is_multiple_of(4) && !tcp.contains(&Said::Malformed) {
        let length = data.first_chunk().copied().map(u32::from_ne_bytes);
        if tcp.len() == 1 && length.map(|it| it as usize) == Some(data.len()) {
            let both = messages(&[data, data].concat(), 6);
            assert_eq!(both, [tcp.clone(), tcp].concat());
        }
    }
}

/// An item of the ring of sampled packets.
pub fn samples(data: &[u8]) {
    let Some(packet) = Packet::read(data) else {
        return;
    };
    assert!(
        data.windows(packet.bytes.len().max(1))
            .any(|it| it == packet.bytes)
            || packet.bytes.is_empty()
    );
    let written = Pcap::begin(Vec::new()).and_then(|mut file| {
        file.add(&packet)?;
        file.add(&packet)?;
        file.finish()
    });
    let Ok(file) = written else {
        panic!("memory cannot be written");
    };
    let word = |at: usize| {
        let word = file.get(at..).and_then(|it| it.first_chunk().copied());
        word.map(u32::from_le_bytes)
    };
    let kept = u32::try_from(packet.bytes.len()).ok();
    assert_eq!(word(0), Some(0xa1b2_3c4d));
    assert_eq!(file.len(), 24 + 2 * (16 + packet.bytes.len()));
    for record in [24, 40 + packet.bytes.len()] {
        assert!(word(record + 4).is_some_and(|nanos| nanos < 1_000_000_000));
        assert_eq!(word(record + 8), kept);
        assert!(word(record + 12) >= kept, "longer than it was");
        assert_eq!(file[record + 16..][..packet.bytes.len()], packet.bytes);
    }
    glance(&packet.bytes);
}

/// Nothing is told of a frame that is not in it.
fn glance(frame: &[u8]) {
    let glance = Glance::at(frame);
    let has = |bytes: &[u8]| frame.windows(bytes.len()).any(|it| it == bytes);
    for address in [glance.source, glance.destination].into_iter().flatten() {
        assert!(match address {
            IpAddr::V4(address) => has(&address.octets()),
            IpAddr::V6(address) => has(&address.octets()),
        });
    }
    for port in [glance.source_port, glance.destination_port] {
        assert!(port.is_none_or(|port| has(&port.to_be_bytes())));
    }
    let of_tcp = glance.protocol.as_deref() == Some("tcp");
    assert!(glance.flags.is_none() || of_tcp);
}

/// An item of the ring of decisions, or of that of events.
pub fn decisions(data: &[u8]) {
    assert_eq!(maps::told::event(data).is_some(), data.len() >= 16);
    let Some(trace) = maps::told::trace(data) else {
        assert!(data.len() < 72);
        return;
    };
    // Every byte of it is read, and each into its own place.
    let read = [
        &trace.time_ns.to_ne_bytes()[..],
        &trace.client.to_ne_bytes(),
        &trace.socket.to_ne_bytes(),
        &trace.process.to_ne_bytes(),
        &trace.command,
        &trace.vip.raw().to_ne_bytes(),
        &trace.port.raw().to_ne_bytes(),
        &[trace.proto, trace.form],
        &trace.table.to_ne_bytes(),
        &trace.backend.to_ne_bytes(),
        &trace.detail.to_ne_bytes(),
        &trace.spare.to_ne_bytes(),
    ];
    assert_eq!(read.concat(), data[..72]);
}
