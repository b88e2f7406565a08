//! Any packet, and one of each kind.

use lb_common::{Be16, PROTO_TCP, PROTO_UDP};
use proptest::prelude::*;

use super::Sent;

/// Any TCP or UDP packet.
pub(crate) fn any_sent() -> impl Strategy<Value = Sent> {
    let family = prop_oneof![Just(Sent::tcp4()), Just(Sent::tcp6())];
    let tags = prop::sample::select(vec![vec![], vec![], vec![0x8100], vec![0x88a8, 0x8100]]);
    let extension = (
        prop::sample::select(vec![0_u8, 43, 60]),
        prop::sample::select(vec![7_usize, 15]),
    )
        .prop_map(|(which, size)| {
            let mut rest = vec![0; size];
            rest[0] = u8::from(size == 15);
            (which, rest)
        });
    (
        family,
        tags,
        any::<([u32; 4], [u32; 4], u16, u16)>(),
        prop::sample::select(vec![PROTO_TCP, PROTO_UDP]),
        any::<u8>(),
        1..=u8::MAX,
        0..=3_usize,
        prop::collection::vec(extension, 0..3),
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(
            |(mut sent, tags, ends, proto, flags, hops, options, extensions, payload)| {
                if sent.v6() {
                    (sent.source, sent.destination) = (ends.0, ends.1);
                    // Nobody's mapped address.
                    sent.source[0] |= 1;
                    sent.destination[0] |= 1;
                    sent.extensions = extensions;
                } else {
                    (sent.source[3], sent.destination[3]) = (ends.0[3], ends.1[3]);
                    // No operation, the end of the list, and padding.
                    sent.options = [1, 1, 0, 0].repeat(options);
                }
                sent.source_port = Be16::from_raw(ends.2);
                sent.destination_port = Be16::from_raw(ends.3);
                sent.tags = tags;
                sent.proto = proto;
                sent.flags = if proto == PROTO_TCP { flags } else { 0 };
                sent.hops = hops;
                sent.payload = payload;
                sent
            },
        )
}

/// A frame of each kind, for fuzzing to begin with.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let enclosed = |outer: &[u8], inner: Sent| {
        let mut frame = inner.frame();
        frame.splice(14..14, outer.iter().copied());
        frame
    };
    let mut syn = Sent::tcp4();
    syn.tcp_options = vec![2, 4, 5, 0xb4, 1, 1, 4, 2];
    let mut long = Sent::udp4();
    long.payload = vec![7; 200];
    let mut options = Sent::tcp4();
    options.options = vec![1, 1, 1, 0];
    // A router's words about a packet that came from it: time exceeded, and too big.
    let mut error4 = vec![
        0x45, 0, 0, 77, 0, 1, 0, 0, 60, 1, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1,
    ];
    error4.extend([3, 4, 0, 0, 0, 0, 5, 0]);
    let mut error6 = vec![0x60, 0, 0, 0, 0, 73, 58, 60];
    error6.extend([7; 32]);
    error6.extend([2, 0, 0, 0, 0, 0, 5, 0]);
    let mut tunnel = vec![
        0x45, 0, 0, 69, 0, 1, 0, 0, 60, 4, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1,
    ];
    let of_tunnel = [error4.clone(), tunnel.clone()].concat();
    tunnel[8] = 1;
    let mut echo = Sent::udp4().frame();
    echo[23] = 1;
    echo.splice(34..42, [8, 0, 0, 0, 0, 1, 0, 2]);
    let mut solicitation = Sent::udp6().frame();
    (solicitation[20], solicitation[21]) = (58, 255);
    solicitation.truncate(54);
    solicitation.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    solicitation.extend([0xfd; 16]);
    solicitation.extend([1, 1, 2, 0, 0, 0, 0, 9]);
    let mut arp = vec![2; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([9; 20]);
    vec![
        ("arp", arp),
        ("echo4", echo),
        ("error4", enclosed(&error4, Sent::udp4())),
        ("error6", enclosed(&error6, Sent::tcp6())),
        ("error_of_tunnel4", enclosed(&of_tunnel, Sent::tcp4())),
        ("long4", long.frame()),
        ("options4", options.frame()),
        ("solicitation6", solicitation),
        ("syn4", syn.frame()),
        ("tagged6", Sent::udp6().tagged(&[0x88a8, 0x8100]).frame()),
        ("tcp6", Sent::tcp6().extended(60, &[0; 7]).frame()),
        ("tunnel4", enclosed(&tunnel, Sent::tcp4())),
        ("udp4", Sent::udp4().frame()),
    ]
}
