//! The greatest segment, where a tunnel leads to the backend.

use lb_common::packet::Fate;

use super::{At, Place};
use crate::kit::{ACK, Desired, Family, Frame, Pass, Row, SYN, V4};

pub(super) fn rows(family: Family) -> Vec<Row> {
    let at = At {
        place: Place::Card,
        family,
    };
    let tunnel = |desired: &mut Desired| {
        for wanted in desired.endpoints.values_mut() {
            wanted.tunnel = true;
        }
    };
    let says = |bytes: u16| {
        let [high, low] = bytes.to_be_bytes();
        at.answer(SYN | ACK)
            .tcp_options(&[1, 1, 2, 4, high, low, 1, 1])
    };
    let odd = |bytes: u16| {
        let [high, low] = bytes.to_be_bytes();
        at.answer(SYN | ACK)
            .tcp_options(&[1, 2, 4, high, low, 1, 1, 1])
    };
    // Of 1500 bytes, without the heads of IP, TCP and the tunnel.
    let most = if family == V4 { 1440 } else { 1400 };
    let of = |says: &str| at.known(at.outwards(says).desired(tunnel), &at.syn());
    let row = |row: Row, frame: &Frame, out: &Frame| {
        row.takes(frame)
            .becomes(Pass, &at.answered(out), Fate::Answered)
    };
    vec![
        row(
            of("an answer to what came by a tunnel asks for segments that fit it"),
            &says(1460),
            &says(most),
        ),
        row(
            of("what it asks for may lie at an odd place"),
            &odd(1460),
            &odd(most),
        ),
        row(
            of("an answer that asks for less is let alone"),
            &says(536),
            &says(536),
        ),
        row(
            of("an answer that asks for nothing is let alone"),
            &at.answer(SYN | ACK),
            &at.answer(SYN | ACK),
        ),
        row(
            at.known(
                at.outwards("without a tunnel it asks for what it wants"),
                &at.syn(),
            ),
            &says(1460),
            &says(1460),
        ),
    ]
}
