//! What packets leave in the maps, as `lb_packet` tells it.

use std::net::SocketAddr;

use lb_common::packet::{Fate, Way, seen};
use lb_packet::{Filter, FlowEntry};

use crate::kit::{
    ACK, CARD, CLIENT, CLIENT_DEVICE, FIN, Family, Frame, Pass, RST, Row, SYN, Tx, World,
    neighbour, pool_port, row, vip,
};

/// The flows that are written down.
fn flows(world: &mut World) -> Vec<FlowEntry> {
    let told = world.flows.list(&world.publisher, &Filter::default(), 10);
    told.unwrap().0
}

/// What was seen of both sides of the only one.
fn sides(world: &mut World) -> (Option<u8>, Option<u8>) {
    let flows = flows(world);
    let [flow] = &flows[..] else {
        panic!("one flow, not {flows:?}")
    };
    let seen = |side: Option<lb_packet::Sight>| side.map(|it| it.seen);
    (seen(flow.from_client), seen(flow.from_backend))
}

pub(crate) fn rows(family: Family) -> Vec<Row> {
    let client = family.ip("10.77.0.2");
    let backend = family.ip("10.1.0.10");
    let to = family.vip(vip::FULL);
    let syn = Frame::tcp((client, 1000), (to, 80)).macs(CLIENT_DEVICE, CLIENT);
    let sent = |frame: &Frame| frame.clone().to(backend, 8080);
    let answer = |flags| {
        let answer = Frame::tcp((backend, 8080), (client, 1000)).flags(flags);
        answer.macs(CLIENT, CLIENT_DEVICE)
    };
    let of = |says: &str| row("tc_client_in", family, says);
    let with = |says: &str, frame: Frame| {
        of(says)
            .takes(&frame)
            .becomes(Pass, &sent(&frame), Fate::Destination)
    };
    let mut rows = vec![
        with(
            "a SYN is written down for both sides, with the client's own port",
            syn.clone(),
        )
        .then(move |world| {
            let flows = flows(world);
            assert_eq!(flows.len(), 1);
            let flow = &flows[0];
            assert_eq!(flow.client, SocketAddr::new(client, 1000));
            assert_eq!(flow.vip, SocketAddr::new(to, 80));
            assert_eq!(flow.backend, Some(SocketAddr::new(backend, 8080)));
            assert_eq!((flow.way, flow.local_port), (Some(Way::Destination), 1000));
            assert_eq!(sides(world), (Some(seen::SYN), Some(0)));
        }),
        with(
            "an ACK after an answer is a handshake",
            syn.clone().flags(ACK),
        )
        .after(&syn)
        .after_by("tc_client_out", &answer(SYN | ACK))
        .then(|world| assert_eq!(sides(world), (Some(seen::SYN | seen::ACK), Some(seen::SYN)))),
        with(
            "a FIN of the client is seen of its side alone",
            syn.clone().flags(FIN | ACK),
        )
        .after(&syn)
        .after_by("tc_client_out", &answer(SYN | ACK))
        .after(&syn.clone().flags(ACK))
        .then(|world| {
            let up = seen::SYN | seen::ACK;
            assert_eq!(sides(world), (Some(up | seen::FIN), Some(seen::SYN)));
        }),
        of("a RST in the midst of an unknown flow goes by the table and is not written down")
            .takes(&syn.clone().flags(RST))
            .becomes(Pass, &sent(&syn.clone().flags(RST)), Fate::Unknown)
            .then(|world| {
                assert!(
                    flows(world).iter().all(|flow| flow.from_client.is_none()),
                    "{:?}",
                    flows(world)
                );
            }),
    ];
    let far = Frame::tcp((family.client(), 1000), (to, 80));
    let port = pool_port(&far, vip::FULL, 0);
    let out = far.clone().from(family.own(), port).to(backend, 8080);
    let out = out.hops(63).macs(neighbour(40), CARD);
    rows.push(
        row(
            "xdp_card",
            family,
            "a SYN of another host is written down with a port of the pool",
        )
        .takes(&far)
        .becomes(Tx, &out, Fate::Full)
        .then(move |world| {
            let flows = flows(world);
            assert_eq!(flows.len(), 1);
            assert_eq!((flows[0].way, flows[0].local_port), (Some(Way::Full), port));
            assert_eq!(sides(world), (Some(seen::SYN), Some(0)));
        }),
    );
    rows
}
