//! Flows that stay where they are, whatever the table says by now, and those that cannot.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lb_common::packet::Fate;
use lb_packet::{Answer, Explainer, Question};

use super::{answer, datagram, forwarded, forwarded_to, of, syn};
use crate::kit::{
    ACK, CARD, Desired, FIN, Family, Frame, Pass, RST, Row, SYN, Tx, V4, World, neighbour,
    pool_port, row, scene, vip,
};

pub(super) fn rows(family: Family) -> Vec<Row> {
    [
        local(family),
        moved(family),
        lost(family),
        ports(family),
        strangers(family),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Another backend serves a VIP, and the one that did drains.
fn serve_elsewhere(number: u8, before: &'static str) -> impl Fn(&mut Desired) {
    move |desired| {
        scene::serve(desired, number, &["10.1.0.33"]);
        for family in [V4, Family::V6] {
            let kept = SocketAddr::new(family.ip(before), 8080);
            desired.kept.insert(kept);
        }
    }
}

/// Flows of backends of this host.
fn local(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let (syn, asked) = (syn(family, vip::LOCAL), datagram(family, vip::LOCAL));
    let ack = syn.clone().flags(ACK);
    let open = |row: Row| {
        row.after_by("tc_card_in", &syn)
            .after_by("tc_card_in", &ack)
    };
    let elsewhere = || serve_elsewhere(vip::LOCAL, "10.77.0.20");
    vec![
        of("the next datagram to a backend of this host that drains is left to the stack")
            .after_by("tc_card_in", &asked)
            .desired(elsewhere())
            .takes(&asked)
            .is_passed(Fate::Local),
        open(of(
            "a SYN in the midst of a flow of this host's backend that drains is left to the stack",
        ))
        .desired(elsewhere())
        .takes(&syn)
        .is_passed(Fate::Local),
        open(of(
            "a SYN after the end of a flow of this host's backend that drains goes by the table",
        ))
        .after_by("tc_card_in", &syn.clone().flags(FIN | ACK))
        .desired(elsewhere())
        .takes(&syn)
        .becomes(
            Tx,
            &forwarded_to(&syn, vip::LOCAL, "10.1.0.33", 0),
            Fate::Full,
        ),
        row(
            "tc_card_in",
            family,
            "a flow is at the backend that the table of all gives it, if that is on this host",
        )
        .given(move |world| agree(world, family))
        .takes(&syn)
        .becomes(
            Pass,
            &syn.clone().to(family.ip("10.77.0.20"), 8080),
            Fate::Destination,
        ),
    ]
}

/// Whether both tables of a service with two backends here and one elsewhere mean the same backend for a flow.
fn agree(world: &mut World, family: Family) {
    world.apply(|desired| {
        scene::serve(
            desired,
            vip::LOCAL,
            &["10.77.0.20", "10.77.0.21", "10.1.0.31"],
        );
    });
    // Tables agree for nearly all flows anyway.
    let explainer = Explainer::open(&mut world.programs).unwrap();
    let mut here = 0;
    for port in 2000..6000 {
        let syn = Frame::tcp((family.client(), port), (family.vip(vip::LOCAL), 80));
        let question = Question {
            proto: 6,
            client: SocketAddr::new(family.client(), port),
            vip: scene::vip4(vip::LOCAL),
            vip_port: 80,
            local: false,
        };
        let answer = explainer.explain(&world.flows, &question).unwrap();
        let Answer::Table { backend, local, .. } = answer else {
            panic!("a new flow goes by the table, not {answer:?}")
        };
        if local {
            here += 1;
            let sent = syn.clone().to(backend.ip(), 8080).bytes();
            assert_eq!(world.run("tc_card_in", &syn.bytes()).packet, sent, "{port}");
            if here % 1000 == 0 {
                world.forget_answers();
            }
        }
    }
    assert!(here > 2000, "{here} of 4000");
    world.apply(|desired| {
        *desired = Desired {
            settings: desired.settings,
            ..scene::desired()
        };
    });
    world.forget_flows();
    world.forget_answers();
}

/// Flows whose backend drains, or turns out to be elsewhere.
fn moved(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let syn = syn(family, vip::FULL);
    let (ack, rst) = (syn.clone().flags(ACK), syn.clone().flags(RST));
    let accepts = answer(&syn).flags(SYN | ACK);
    let elsewhere = || serve_elsewhere(vip::FULL, "10.1.0.10");
    let open = |says: &str| of(says).after(&syn).after(&accepts).after(&ack);
    let stays =
        |row: Row, frame: &Frame| row.takes(frame).becomes(Tx, &forwarded(frame), Fate::Full);
    let becomes_local = |desired: &mut Desired| {
        for place in desired.places.values_mut() {
            place.local = true;
        }
    };
    vec![
        stays(
            of("a SYN whose answer is under way goes to the backend that gave it")
                .after(&syn)
                .after(&accepts)
                .desired(elsewhere()),
            &syn,
        ),
        of("a SYN that nobody has answered goes by the table")
            .after(&syn)
            .desired(elsewhere())
            .takes(&syn)
            .becomes(
                Tx,
                &forwarded_to(&syn, vip::FULL, "10.1.0.33", 0),
                Fate::Full,
            ),
        stays(
            open("a flow that goes on after a RST is not moved by a SYN")
                .after(&rst)
                .after(&ack)
                .desired(elsewhere()),
            &syn,
        ),
        open("a flow that a RST has ended is moved by a SYN")
            .after(&rst)
            .desired(elsewhere())
            .takes(&syn)
            .becomes(
                Tx,
                &forwarded_to(&syn, vip::FULL, "10.1.0.33", 0),
                Fate::Full,
            ),
        stays(
            open("a flow whose backend turns out to be on this host goes on as it did")
                .desired(becomes_local),
            &ack,
        ),
    ]
}

/// Flows that have lost one of their entries.
fn lost(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let syn = syn(family, vip::FULL);
    let ack = syn.clone().flags(ACK);
    let accepts = answer(&syn).flags(SYN | ACK);
    let said = answer(&syn).flags(ACK).payload(b"answer");
    let told = said
        .clone()
        .from(family.vip(vip::FULL), 80)
        .to(family.client(), 1000)
        .hops(63)
        .macs(neighbour(254), CARD);
    let again = ack.bytes();
    let (first, second) = (
        syn_here(family, vip::FULL).flags(SYN),
        syn_here(family, vip::FULL_TOO),
    );
    let midst = second.clone().flags(ACK);
    let port = pool_port(&second, vip::FULL_TOO, 1);
    let backend = family.ip("10.1.0.10");
    vec![
        of("answers whose entry was taken out of a flow that goes on find their client again")
            .after(&syn)
            .after(&accepts)
            .after(&ack)
            .given(move |world| {
                assert_eq!(world.forget_answers(), 1);
                // At most once a second it is looked for.
                let limit = Instant::now() + Duration::from_secs(10);
                while world.answers() == 0 {
                    assert!(Instant::now() < limit, "it stays away");
                    world.run("xdp_card", &again);
                }
            })
            .takes(&said)
            .becomes(Tx, &told, Fate::Answered),
        row(
            "tc_client_in",
            family,
            "a flow with another port than its own goes on by it when its entry was evicted",
        )
        .after(&first)
        .after(&second)
        .given(World::forget_flows)
        .takes(&midst)
        .becomes(
            Pass,
            &midst.clone().from(midst.ip.source, port).to(backend, 8080),
            Fate::Unknown,
        ),
    ]
}

/// A SYN of the client behind the device.
fn syn_here(family: Family, number: u8) -> Frame {
    let client = family.ip("10.77.0.2");
    let syn = Frame::tcp((client, 1000), (family.vip(number), 80));
    syn.macs(crate::kit::CLIENT_DEVICE, crate::kit::CLIENT)
}

/// Ports that are given back, and to whom.
fn ports(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let syn = syn(family, vip::FULL);
    let wanted = pool_port(&syn, vip::FULL, 0);
    let rival = (2000..u16::MAX)
        .map(|port| syn.clone().from(family.client(), port))
        .find(|frame| pool_port(frame, vip::FULL, 0) == wanted)
        .unwrap();
    let rival_port = match &rival.ip.body {
        crate::kit::Body::Tcp { source, .. } => *source,
        _ => unreachable!("it is a SYN"),
    };
    let accepts = answer(&rival).flags(SYN | ACK);
    let told = accepts
        .clone()
        .from(family.vip(vip::FULL), 80)
        .to(family.client(), rival_port)
        .hops(63)
        .macs(neighbour(254), CARD);
    let gone = |desired: &mut Desired| {
        for number in [vip::FULL, vip::FULL_TOO] {
            scene::serve(desired, number, &["10.1.0.15"]);
        }
    };
    let back = |desired: &mut Desired| *desired = scene::desired();
    vec![
        of("a flow that begins again with another port leaves the one that it had")
            .after(&rival)
            .after(&syn)
            .after(&rival.clone().flags(RST))
            .takes(&syn)
            .becomes(Tx, &forwarded(&syn), Fate::Full)
            .then(|world| assert_eq!(world.answers(), 1)),
        of("a flow that ends does not take out the answers of who has its port by now")
            .after(&syn)
            .given(|world| assert_eq!(world.forget_answers(), 1))
            .after(&rival)
            .after(&syn.clone().flags(RST))
            .takes(&accepts)
            .becomes(Tx, &told, Fate::Answered),
        of("the port of a flow whose backend is gone is another flow's")
            .after(&rival)
            .desired(gone)
            .settled()
            .desired(back)
            .takes(&syn)
            .becomes(Tx, &forwarded(&syn), Fate::Full),
    ]
}

/// Senders that nobody can answer, and packets that nobody may change.
fn strangers(family: Family) -> Vec<Row> {
    let syn = syn(family, vip::FULL);
    let nobody: &[&str] = match family {
        V4 => &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"],
        Family::V6 => &["::", "::1", "fe80::7", "ff02::1"],
    };
    let parsed = nobody.iter().map(|text| text.parse::<IpAddr>().unwrap());
    let all = parsed.chain([family.own(), family.vip(vip::FULL), family.vip(vip::NONE)]);
    let mut rows: Vec<Row> = all
        .map(|address| {
            of(family, &format!("no flow begins at {address}"))
                .takes(&syn.clone().from(address, 0))
                .is_dropped(Fate::Malformed)
        })
        .collect();
    for (program, number) in [("xdp_card", vip::FULL), ("tc_card_in", vip::LOCAL)] {
        let syn = super::syn(family, number);
        for (whose, to) in [("all", [0xff; 6]), ("a group", [1, 0, 0x5e, 0, 0, 1])] {
            rows.push(
                row(
                    program,
                    family,
                    format!("no flow begins with a frame for {whose}"),
                )
                .takes(&syn.clone().macs(to, neighbour(254)))
                .is_not_ours(),
            );
        }
    }
    let unanswered = super::syn(family, vip::NOBODYS_ADDRESS);
    let sent = forwarded_to(&unanswered, vip::NOBODYS_ADDRESS, "10.6.0.23", 0);
    rows.push(
        of(
            family,
            "a packet to a router whose address is none is the stack's to send",
        )
        .takes(&unanswered)
        .is_handed_over("card", &sent.macs(CARD, neighbour(254))),
    );
    if family == Family::V6 {
        let with = |which: u8, rest: &[u8]| {
            let extension = (which, rest.to_vec());
            syn.clone()
                .change(|frame| frame.ip.extensions = vec![extension])
        };
        rows.push(
            of(
                family,
                "a packet that has not come to its last stop is dropped",
            )
            .takes(&with(43, &[0, 4, 1, 0, 0, 0, 0]))
            .is_dropped(Fate::Protocol),
        );
        rows.push(
            of(family, "a packet that nobody may change is dropped")
                .takes(&with(51, &[2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]))
                .is_dropped(Fate::Protocol),
        );
    }
    rows
}
