//! From backends back to clients.

use lb_common::packet::Fate;

use super::{answer, backend, datagram, of, syn};
use crate::kit::{ACK, CARD, FIN, Family, Frame, RST, Row, SYN, Tx, V4, neighbour, pool_port, vip};

pub(super) fn rows(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let syn = syn(family, vip::FULL);
    let datagram = datagram(family, vip::FULL);
    let accepts = answer(&syn).flags(SYN | ACK);
    // What the client is sent of an answer of TCP.
    let told = |answer: &Frame, port: u16| {
        let frame = answer.clone().from(family.vip(vip::FULL), port);
        let hops = answer.ip.hops - 1;
        let frame = frame.to(family.client(), 1000).hops(hops);
        frame.macs(neighbour(254), CARD)
    };
    let goes = |row: Row, answer: &Frame| {
        row.after(&syn)
            .takes(answer)
            .becomes(Tx, &told(answer, 80), Fate::Answered)
    };
    let established = |row: Row| row.after(&syn).after(&accepts);
    let said = answer(&datagram).payload(b"answer");
    let elsewhere = Frame::tcp((backend(family), 8080), (family.own(), 22)).flags(SYN | ACK);
    let longer = accepts.clone().change(|frame| {
        if family == V4 {
            frame.ip.options = vec![1, 1, 1, 0];
        } else {
            frame.ip.extensions = vec![(0, vec![0, 1, 4, 0, 0, 0, 0])];
        }
    });
    let tagged = accepts.clone().tag(7);
    vec![
        goes(
            of("the answer to a SYN comes to the client from the VIP"),
            &accepts,
        ),
        goes(
            of("the greatest segment of an answer is not changed, for no tunnel led here"),
            &accepts.clone().tcp_options(&[2, 4, 5, 0xb4]),
        ),
        goes(
            established(of("data of a backend comes to the client from the VIP")),
            &accepts.clone().flags(ACK).payload(b"HTTP/1.1 200 OK\r\n"),
        ),
        goes(
            established(of("the FIN of a backend comes to the client from the VIP")),
            &accepts.clone().flags(FIN | ACK),
        ),
        goes(
            of("the refusal of a backend comes to the client from the VIP"),
            &accepts.clone().flags(RST | ACK),
        ),
        of("the answer to a datagram comes to the client from the VIP")
            .after(&datagram)
            .takes(&said)
            .becomes(Tx, &told(&said, 53), Fate::Answered),
        goes(of("an answer with options of IP comes with them"), &longer),
        of("an answer in a VLAN is the stack's to send")
            .after(&syn)
            .takes(&tagged)
            .is_handed_over("card", &told(&tagged, 80).macs(CARD, neighbour(40))),
        of("an answer that has been under way for too long is dropped")
            .after(&syn)
            .takes(&accepts.clone().hops(1))
            .is_dropped(Fate::Expired),
        of("an answer that nobody waits for is the stack's")
            .takes(&accepts)
            .is_not_ours(),
        of("an answer from another port than the backend's is the stack's")
            .after(&syn)
            .takes(&accepts.clone().from(backend(family), 8081))
            .is_not_ours(),
        of("an answer of another host is the stack's")
            .after(&syn)
            .takes(&accepts.clone().from(family.ip("10.1.0.15"), 0))
            .is_not_ours(),
        of("a packet to this host at a port that is not of the pool is the stack's")
            .after(&syn)
            .takes(&elsewhere)
            .is_not_ours(),
        of("the first part of an answer is dropped: what follows could not be told")
            .after(&datagram)
            .takes(
                &said
                    .clone()
                    .change(|frame| frame.ip.fragment = Some((0, true))),
            )
            .is_dropped(Fate::Fragment),
        of("a later part of a packet to this host is the stack's")
            .after(&datagram)
            .takes(
                &said
                    .clone()
                    .change(|frame| frame.ip.fragment = Some((9, false))),
            )
            .is_not_ours(),
        of("the first part of a packet that nobody waits for is the stack's")
            .takes(
                &said
                    .clone()
                    .change(|frame| frame.ip.fragment = Some((0, true))),
            )
            .is_not_ours(),
        of("an answer to a port that was released is the stack's")
            .after(&syn)
            .after(&syn.clone().flags(RST))
            .takes(&accepts)
            .is_not_ours(),
        of("an answer by UDP to a flow of TCP is the stack's")
            .after(&syn)
            .takes(&Frame::udp(
                (backend(family), 8080),
                (family.own(), pool_port(&syn, vip::FULL, 0)),
            ))
            .is_not_ours(),
    ]
}
