//! To backends, with both ends replaced.

use lb_common::packet::Fate;

use super::{datagram, forwarded, forwarded_to, of, syn};
use crate::kit::{
    ACK, Body, CARD2, FIN, Family, Frame, RST, Redirect, Row, SYN, Tx, V4, neighbour, pool_port,
    scene, vip,
};

pub(super) fn rows(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let syn = syn(family, vip::FULL);
    let datagram = datagram(family, vip::FULL);
    let ack = syn.clone().flags(ACK);
    let goes =
        |row: Row, frame: &Frame| row.takes(frame).becomes(Tx, &forwarded(frame), Fate::Full);
    let mut rows = vec![
        goes(
            of("a SYN to a VIP goes to its backend from our address and a port of the pool"),
            &syn,
        ),
        goes(
            of("a datagram to a VIP goes to its backend from our address and a port of the pool"),
            &datagram,
        ),
        goes(
            of("the ACK of a known flow goes the same way").after(&syn),
            &ack,
        ),
        goes(
            of("data of an established flow goes the same way")
                .after(&syn)
                .after(&ack),
            &ack.clone().payload(b"GET / HTTP/1.1\r\n"),
        ),
        goes(
            of("data of an odd length goes the same way")
                .after(&syn)
                .after(&ack),
            &ack.clone().payload(b"odd"),
        ),
        goes(
            of("the FIN of an established flow goes the same way")
                .after(&syn)
                .after(&ack),
            &syn.clone().flags(FIN | ACK),
        ),
        goes(
            of("the RST of an established flow goes the same way")
                .after(&syn)
                .after(&ack),
            &syn.clone().flags(RST | ACK),
        ),
        goes(
            of("the RST of an opening flow goes the same way").after(&syn),
            &syn.clone().flags(RST),
        ),
        goes(
            of("a SYN that is sent once more goes the same way").after(&syn),
            &syn,
        ),
        goes(
            of("a SYN in the midst of an established flow goes the same way")
                .after(&syn)
                .after(&ack),
            &syn,
        ),
        goes(
            of("a SYN after the end of a flow opens another one")
                .after(&syn)
                .after(&ack)
                .after(&syn.clone().flags(FIN | ACK)),
            &syn,
        ),
        goes(
            of("an acknowledged SYN of a client opens nothing, but goes along in a known flow")
                .after(&syn),
            &syn.clone().flags(SYN | ACK),
        ),
        goes(
            of("the next datagram goes the same way").after(&datagram),
            &datagram.clone().payload(b"next"),
        ),
        goes(
            of("an empty datagram goes, too"),
            &datagram.clone().payload(b""),
        ),
        goes(
            of("a packet with two hops left goes with one"),
            &syn.clone().hops(2),
        ),
        goes(
            of("options of TCP stay as they are"),
            &syn.clone().tcp_options(&[2, 4, 5, 0xb4, 1, 3, 3, 7]),
        ),
        goes(
            of("the class of a packet stays as it is"),
            &syn.clone().change(|frame| frame.ip.class = 0xb9),
        ),
        goes(
            of("a client of this network is served as one beyond the gateway"),
            &syn.clone()
                .from(family.ip("192.0.2.100"), 0)
                .macs(crate::kit::CARD, neighbour(100)),
        ),
    ];
    let any_port = Frame::tcp((family.client(), 1000), (family.vip(vip::ANY_PORT), 1234));
    rows.push(
        of("a VIP may answer on every port")
            .takes(&any_port)
            .becomes(
                Tx,
                &forwarded_to(&any_port, vip::ANY_PORT, "10.1.0.15", 0),
                Fate::Full,
            ),
    );
    let second = super::syn(family, vip::SECOND_CARD);
    let sent = forwarded_to(&second, vip::SECOND_CARD, "10.2.0.17", 0);
    rows.push(
        of("a backend that is reached by another card is sent packets there")
            .takes(&second)
            .becomes(Redirect, &sent.macs(neighbour(40), CARD2), Fate::Full),
    );
    let three = super::syn(family, vip::THREE);
    let may = ["10.1.0.31", "10.1.0.32", "10.1.0.33"]
        .map(|backend| forwarded_to(&three, vip::THREE, backend, 0));
    rows.push(
        of("one of several backends is chosen")
            .takes(&three)
            .becomes_one_of(Tx, &may, Fate::Full),
    );
    let too = super::syn(family, vip::FULL_TOO);
    rows.push(
        of("the same client port to another VIP of the same backend is another flow")
            .after(&syn)
            .takes(&too)
            .becomes(
                Tx,
                &forwarded_to(&too, vip::FULL_TOO, "10.1.0.10", 0),
                Fate::Full,
            ),
    );
    rows.extend(stack(family));
    rows.extend(ports(family, &syn));
    rows.extend(options(family, &syn));
    if family == V4 {
        let bare = datagram.clone().change(|frame| {
            if let Body::Udp { checksum, .. } = &mut frame.ip.body {
                *checksum = false;
            }
        });
        rows.push(goes(
            of("a datagram without a checksum stays without"),
            &bare,
        ));
        let mut padded = datagram.clone().payload(b"").bytes();
        padded.resize(60, 0);
        let mut sent = forwarded(&datagram.clone().payload(b"")).bytes();
        sent.resize(60, 0);
        rows.push(
            of("what fills a short frame up stays where it is")
                .takes_bytes(padded)
                .becomes_bytes(Tx, sent, Fate::Full),
        );
    }
    rows
}

/// Packets that the stack has to send.
fn stack(family: Family) -> Vec<Row> {
    let (to, from) = (scene::CARD, neighbour(254));
    let unknown = syn(family, vip::NO_NEIGHBOUR);
    let sent = forwarded_to(&unknown, vip::NO_NEIGHBOUR, "10.3.0.18", 0).macs(to, from);
    let tagged = syn(family, vip::FULL).tag(7);
    let twice = tagged.clone().tag(8);
    vec![
        of(
            family,
            "a packet to a router that nobody has found is the stack's to send",
        )
        .takes(&unknown)
        .is_handed_over("card", &sent),
        of(family, "a packet in a VLAN is the stack's to send")
            .takes(&tagged)
            .is_handed_over("card", &forwarded(&tagged).macs(to, from)),
        of(
            family,
            "a packet in a VLAN in a VLAN is the stack's to send",
        )
        .takes(&twice)
        .is_handed_over("card", &forwarded(&twice).macs(to, from)),
    ]
}

/// Ports that another flow has.
fn ports(family: Family, syn: &Frame) -> Vec<Row> {
    // A client whose flow would have the port that `syn` is to have after so many others.
    let rival = |taken: u32| {
        let wanted = pool_port(syn, vip::FULL, taken);
        (2000..u16::MAX)
            .map(|port| syn.clone().from(family.client(), port))
            .find(|frame| pool_port(frame, vip::FULL, 0) == wanted)
            .unwrap()
    };
    let first = of(family, "a flow whose port is taken has another one")
        .after(&rival(0))
        .takes(syn)
        .becomes(
            Tx,
            &forwarded_to(syn, vip::FULL, "10.1.0.10", 1),
            Fate::Full,
        );
    let row = of(family, "a flow all of whose ports are taken is dropped");
    let all = (0..lb_ebpf::packet::PROBES).fold(row, |row, taken| row.after(&rival(taken)));
    vec![first, all.takes(syn).is_dropped(Fate::NoPort)]
}

/// Packets whose heads are longer than usual.
fn options(family: Family, syn: &Frame) -> Vec<Row> {
    let longer = |frame: &Frame| {
        frame.clone().change(|frame| {
            if family == V4 {
                frame.ip.options = vec![1, 1, 1, 1, 1, 1, 1, 0];
            } else {
                frame.ip.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0]), (43, vec![0; 7])];
            }
        })
    };
    let (syn, ack) = (
        longer(syn),
        longer(&syn.clone().flags(ACK).payload(b"data")),
    );
    vec![
        of(family, "a SYN with options of IP goes with them")
            .takes(&syn)
            .becomes(Tx, &forwarded(&syn), Fate::Full),
        of(family, "data with options of IP goes with them")
            .after(&syn)
            .takes(&ack)
            .becomes(Tx, &forwarded(&ack), Fate::Full),
    ]
}
