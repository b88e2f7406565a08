//! Packets that go to a backend.

use lb_common::packet::Fate;

use super::{At, Place};
use crate::kit::{ACK, Body, FIN, Frame, Pass, RST, Row, SYN, V4, V6, pool_port, vip};

pub(super) fn rows(at: At) -> Vec<Row> {
    let of = |says: &str| at.inwards(says);
    let (syn, datagram) = (at.syn(), at.datagram());
    let goes =
        |row: Row, frame: &Frame, fate| row.takes(frame).becomes(Pass, &at.sent(frame), fate);
    let known = |says: &str, frame: &Frame| goes(of(says).after(&syn), frame, Fate::Destination);
    let established = |row: Row| row.after(&syn).after(&syn.clone().flags(ACK));
    let data = syn.clone().flags(ACK).payload(b"GET / HTTP/1.1");
    let mut rows = vec![
        goes(
            of("a SYN to a VIP goes to its backend, and the client stays who it is"),
            &syn,
            Fate::Destination,
        ),
        goes(
            of("a datagram to a VIP goes to its backend"),
            &datagram,
            Fate::Destination,
        ),
        goes(
            of("a second datagram goes where the first one went").after(&datagram),
            &datagram.clone().payload(b"another question"),
            Fate::Destination,
        ),
        goes(
            of("a SYN with the bits of ECN goes to the backend"),
            &syn.clone().flags(SYN | 0xc0),
            Fate::Destination,
        ),
        goes(
            of("a SYN that is sent once more goes where the first one went").after(&syn),
            &syn,
            Fate::Destination,
        ),
        known(
            "the end of a handshake goes by its flow",
            &syn.clone().flags(ACK),
        ),
        known("data goes by its flow", &data),
        known("a FIN goes by its flow", &syn.clone().flags(FIN | ACK)),
        known("a RST goes by its flow", &syn.clone().flags(RST)),
        goes(
            established(of(
                "a SYN in the midst of a flow goes to the backend, which answers it",
            )),
            &syn,
            Fate::Destination,
        ),
        goes(
            established(of("a flow goes on after one side has ended its own"))
                .after(&syn.clone().flags(FIN | ACK)),
            &syn.clone().flags(ACK),
            Fate::Destination,
        ),
        goes(
            of("data of a flow that nobody has seen begin goes by the table alone"),
            &data,
            Fate::Unknown,
        ),
        goes(
            of("what follows data of an unknown flow goes by the flow").after(&data),
            &data,
            Fate::Destination,
        ),
        goes(
            of("a RST of an unknown flow goes by the table alone"),
            &syn.clone().flags(RST),
            Fate::Unknown,
        ),
        goes(
            of("a RST makes no flow").after(&syn.clone().flags(RST)),
            &data,
            Fate::Unknown,
        ),
        goes(
            of("a RST before the end of a handshake ends the flow")
                .after(&syn)
                .after(&syn.clone().flags(RST)),
            &data,
            Fate::Unknown,
        ),
        goes(
            of("a packet in a VLAN stays in it"),
            &syn.clone().tag(7),
            Fate::Destination,
        ),
        goes(
            of("a packet in a VLAN of a VLAN stays in both"),
            &syn.clone().tag(7).tag(8),
            Fate::Destination,
        ),
        goes(
            of("a packet with a type of service keeps it"),
            &syn.clone().change(|frame| frame.ip.class = 0xb8),
            Fate::Destination,
        ),
        goes(
            of("options of TCP stay as they are"),
            &syn.clone().tcp_options(&[2, 4, 5, 0xb4, 1, 3, 3, 7]),
            Fate::Destination,
        ),
        goes(
            of("a datagram of nothing goes to the backend"),
            &datagram.clone().payload(b""),
            Fate::Destination,
        ),
        {
            let (_, other) = at.vips();
            let too = syn.clone().to(at.family.vip(other), 80);
            let port = pool_port(&too, other, 1);
            of("a second VIP of the same backend is called from another port, if the client's is taken")
                .after(&syn)
                .takes(&too)
                .becomes(Pass, &at.sent(&too).from(at.client(), port), Fate::Destination)
        },
    ];
    rows.extend(heads(at, &syn, &datagram, goes));
    if at.place == Place::Client {
        let any = syn.clone().to(at.family.vip(vip::ANY_PORT), 4444);
        let to = any.clone().to(at.family.ip("10.1.0.15"), 8080);
        rows.push(
            of("a VIP on every port takes a SYN to any")
                .takes(&any)
                .becomes(Pass, &to, Fate::Destination),
        );
        let local = syn.clone().to(at.family.vip(vip::LOCAL), 80);
        let to = local.clone().to(at.family.ip("10.77.0.20"), 8080);
        rows.push(
            of("a SYN to a VIP of a backend on this host goes there")
                .takes(&local)
                .becomes(Pass, &to, Fate::Destination),
        );
        let three = syn.clone().to(at.family.vip(vip::THREE), 80);
        let to = ["10.1.0.31", "10.1.0.32", "10.1.0.33"]
            .map(|backend| three.clone().to(at.family.ip(backend), 8080));
        rows.push(
            of("a SYN to a VIP of three backends goes to one of them")
                .takes(&three)
                .becomes_one_of(Pass, &to, Fate::Destination),
        );
    }
    rows
}

/// Heads that only one of the families has.
fn heads(
    at: At,
    syn: &Frame,
    datagram: &Frame,
    goes: impl Fn(Row, &Frame, Fate) -> Row,
) -> Vec<Row> {
    let of = |says: &str| at.inwards(says);
    match at.family {
        V4 => {
            let unsummed = datagram.clone().change(|frame| {
                if let Body::Udp { checksum, .. } = &mut frame.ip.body {
                    *checksum = false;
                }
            });
            vec![
                goes(
                    of("a datagram without a checksum is given none"),
                    &unsummed,
                    Fate::Destination,
                ),
                goes(
                    of("a packet with options goes to the backend with them"),
                    &syn.clone()
                        .change(|frame| frame.ip.options = vec![0x94, 4, 0, 0]),
                    Fate::Destination,
                ),
                goes(
                    of("a packet with as many options as there can be goes to the backend"),
                    &syn.clone().change(|frame| frame.ip.options = vec![1; 40]),
                    Fate::Destination,
                ),
            ]
        }
        V6 => vec![
            goes(
                of("a packet with options goes to the backend with them"),
                &syn.clone()
                    .change(|frame| frame.ip.extensions = vec![(0, vec![0, 1, 4, 0, 0, 0, 0])]),
                Fate::Destination,
            ),
            goes(
                of("a datagram with options for its receiver goes to the backend with them"),
                &datagram
                    .clone()
                    .change(|frame| frame.ip.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0])]),
                Fate::Destination,
            ),
            goes(
                of("a packet that is all of its fragments goes to the backend"),
                &syn.clone()
                    .change(|frame| frame.ip.fragment = Some((0, false))),
                Fate::Destination,
            ),
        ],
    }
}
