//! What is done for each change, to count its instructions.

use std::{
    collections::BTreeMap,
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use lb_common::{Be16, Be32, PROTO_TCP, packet::EndpointKey};
use lb_testkit::hot_path;

use crate::{
    Desired, Limits, Wanted,
    book::Book,
    maglev::{self, Size},
    plan::plan,
};

#[test]
fn hot_path_of_maglevs_table() {
    let identities: Vec<[u8; 2]> = (0..100_u16).map(u16::to_be_bytes).collect();
    let members: Vec<_> = identities
        .iter()
        .map(|identity| maglev::Member {
            identity,
            weight: 1,
        })
        .collect();
    assert_eq!(
        maglev::table(&members, Size::Sockets).len(),
        Size::Sockets.slots()
    );
    hot_path(|| maglev::table(black_box(&members), Size::Sockets));
}

#[test]
fn hot_path_of_planning_two_endpoints() {
    let limits = Limits {
        services: 16,
        backends: 64,
        flows: 1,
    };
    let members: Arc<[crate::Member]> = (1..=10)
        .map(|last| crate::Member {
            address: SocketAddr::from(([10, 0, 0, last], 8080)),
            weight: 1,
        })
        .collect();
    let endpoints = (1..=2).map(|last| {
        let key = EndpointKey {
            vip: Be32::from_host(Ipv4Addr::new(198, 18, 0, last).into()),
            port: Be16::from_host(80),
            proto: PROTO_TCP,
            scope: 0,
        };
        let wanted = Wanted {
            members: members.clone(),
            tunnel: false,
            trace: false,
        };
        (key, wanted)
    });
    let desired = Desired {
        endpoints: endpoints.collect::<BTreeMap<_, _>>(),
        vips: (1..=2)
            .map(|last| Ipv4Addr::new(198, 18, 0, last))
            .collect(),
        ..Desired::default()
    };
    let (book, now) = (Book::empty(limits), Instant::now());
    let first = plan(&book, &desired, now);
    assert!(first.refused.is_empty() && first.steps.len() > 10);
    hot_path(|| plan(&book, black_box(&desired), now));
}
