//! Packets of backends to their clients.

use lb_common::packet::Fate;

use super::At;
use crate::kit::{ACK, FIN, Frame, Pass, RST, Row, SYN, pool_port};

pub(super) fn rows(at: At) -> Vec<Row> {
    let of = |says: &str| at.outwards(says);
    let (syn, datagram) = (at.syn(), at.datagram());
    let known = |says: &str| at.known(of(says), &syn);
    let answers = |row: Row, frame: &Frame| {
        row.takes(frame)
            .becomes(Pass, &at.answered(frame), Fate::Answered)
    };
    let said = at
        .to_client(Frame::udp((at.backend(), 8080), (at.client(), 1000)))
        .payload(b"answer");
    vec![
        answers(
            known("the answer to a SYN is from the VIP"),
            &at.answer(SYN | ACK),
        ),
        answers(
            known("data of a backend is from the VIP"),
            &at.answer(ACK).payload(b"HTTP/1.1 200 OK"),
        ),
        answers(
            known("a FIN of a backend is from the VIP"),
            &at.answer(FIN | ACK),
        ),
        answers(
            known("a RST of a backend is from the VIP"),
            &at.answer(RST | ACK),
        ),
        answers(
            known("an answer in a VLAN stays in it"),
            &at.answer(SYN | ACK).tag(7),
        ),
        at.known(of("the answer to a datagram is from the VIP"), &datagram)
            .takes(&said)
            .becomes(Pass, &said.clone().from(at.vip(), 53), Fate::Answered),
        {
            let (_, other) = at.vips();
            let too = syn.clone().to(at.family.vip(other), 80);
            let port = pool_port(&too, other, 1);
            let answer = at.answer(SYN | ACK).to(at.client(), port);
            at.known(
                known("an answer to another port than the client's comes to the client's, and from the VIP that it called"),
                &too,
            )
            .takes(&answer)
            .becomes(
                Pass,
                &answer.clone().from(at.family.vip(other), 80).to(at.client(), 1000),
                Fate::Answered,
            )
        },
        of("a packet of a backend that answers nothing is none of ours")
            .takes(&at.answer(SYN | ACK))
            .is_not_ours(),
        known("a packet of a backend to another port of the client is none of ours")
            .takes(&at.answer(ACK).to(at.client(), 1001))
            .is_not_ours(),
        known("a packet of another port of the backend is none of ours")
            .takes(&at.answer(ACK).from(at.backend(), 8081))
            .is_not_ours(),
        known("a datagram of a backend is no answer of TCP")
            .takes(&said)
            .is_not_ours(),
        at.known(
            of("the first part of an answer is dropped: what follows could not be told"),
            &datagram,
        )
        .takes(
            &said
                .clone()
                .change(|frame| frame.ip.fragment = Some((0, true))),
        )
        .is_dropped(Fate::Fragment),
        of("the first part of a packet that answers nothing is none of ours")
            .takes(
                &said
                    .clone()
                    .change(|frame| frame.ip.fragment = Some((0, true))),
            )
            .is_not_ours(),
        known("a later part of a packet of a backend is none of ours")
            .takes(
                &at.answer(ACK)
                    .change(|frame| frame.ip.fragment = Some((9, false))),
            )
            .is_not_ours(),
    ]
}
