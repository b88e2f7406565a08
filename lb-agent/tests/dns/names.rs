//! Names of services, which the resolver answers by itself.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        RData, RecordType,
        rdata::{AAAA, PTR},
    },
};
use lb_agent::snapshot::{ServiceName, Snapshot};

use crate::{
    kit::{
        Agent, OWN, VIP, addresses, code, config, question, reverse_name, same_port, snapshot,
        within,
    },
    upstream::{ELSEWHERE, Upstream, denied, with_address},
};

#[tokio::test]
async fn a_service_is_answered_by_udp_and_tcp() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    for name in ["www_hello.", "WWW.hello.", "www.hello.virtual.consul."] {
        let asked = question(name, RecordType::A);
        for answer in [agent.udp(&asked).await, agent.tcp(&asked).await] {
            assert_eq!(answer.metadata.id, asked.metadata.id);
            assert_eq!(answer.queries, asked.queries);
            assert!(answer.metadata.authoritative);
            assert_eq!(addresses(&answer), [VIP], "{name}");
        }
    }
    let route = question("www.hello.127.0.0.1.xip.io.", RecordType::A);
    assert_eq!(addresses(&agent.udp(&route).await), [OWN]);
    assert_eq!(agent.metrics.queries("A", "NOERROR"), 7);
    agent.end().await;
}

#[tokio::test]
async fn a_service_has_a_twin_a_port_and_a_name_for_its_address() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    let answer = agent.udp(&question("www_hello.", RecordType::AAAA)).await;
    let twin: Ipv6Addr = "fd62:6c62:76:1::707".parse().unwrap();
    assert_eq!(answer.answers[0].data, RData::AAAA(AAAA(twin)));
    let answer = agent
        .udp(&question("_http._tcp.www.hello.", RecordType::SRV))
        .await;
    let RData::SRV(srv) = &answer.answers[0].data else {
        panic!("{answer}")
    };
    assert_eq!(
        (srv.port, srv.target.to_ascii()),
        (8080, "www.hello.".to_owned())
    );
    assert_eq!(answer.additionals.len(), 2, "{answer}");
    for name in [reverse_name(VIP), reverse_name(twin)] {
        let answer = agent.udp(&question(&name, RecordType::PTR)).await;
        let RData::PTR(PTR(service)) = &answer.answers[0].data else {
            panic!("{answer}")
        };
        assert_eq!(service.to_ascii(), "www_hello.");
    }
    let nobody = Ipv4Addr::new(198, 18, 9, 9);
    let answer = agent
        .udp(&question(&reverse_name(nobody), RecordType::PTR))
        .await;
    assert_eq!(code(&answer), ResponseCode::NXDomain);
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(agent.metrics.queries("PTR", "NOERROR"), 2);
    agent.end().await;
}

#[tokio::test]
async fn without_a_data_plane_for_ipv6_the_other_family_is_no_data() {
    let mut config = config(vec![], None);
    config.pools.v6 = None;
    let agent = Agent::start_with(same_port().await, config, Some(snapshot(true)));
    let answer = agent.udp(&question("www_hello.", RecordType::AAAA)).await;
    assert_eq!(code(&answer), ResponseCode::NoError);
    assert!(answer.answers.is_empty());
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    agent.end().await;
}

#[tokio::test]
async fn names_follow_the_snapshot() {
    let agent = Agent::start(vec![], None, None).await;
    let asked = question("www_hello.", RecordType::A);
    assert_eq!(code(&agent.udp(&asked).await), ResponseCode::ServFail);
    agent.snapshots.send_replace(Some(snapshot(true)));
    agent
        .until(&asked, |answer| addresses(answer) == [VIP])
        .await;
    agent.snapshots.send_replace(Some(Arc::new(Snapshot {
        answered: true,
        complete: true,
        ..Snapshot::default()
    })));
    // It is nobody's now, and without an upstream there is nobody to ask.
    agent
        .until(&asked, |answer| code(answer) == ResponseCode::ServFail)
        .await;
    agent.end().await;
}

#[tokio::test]
async fn a_contested_name_is_told_and_no_longer_told_when_it_is_settled() {
    let mut agent = Agent::start(vec![], None, None).await;
    let mut contested = (*snapshot(true)).clone();
    let (_, service) = contested.services.iter().next().unwrap();
    let service = service.clone();
    let rival = ServiceName::part("www", "hello");
    contested.services.insert(rival, service);
    agent.snapshots.send_replace(Some(Arc::new(contested)));
    let told = agent.problems.wait_for(|told| !told.is_empty());
    let told = within(told).await.unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].subject, "name www.hello");
    agent.snapshots.send_replace(Some(snapshot(true)));
    within(agent.problems.wait_for(Vec::is_empty))
        .await
        .unwrap();
    agent.end().await;
}

#[tokio::test]
async fn no_name_is_denied_before_every_source_has_answered() {
    let upstream = Upstream::start(|asked, _| {
        if asked.queries[0].name().to_ascii() == "www.example.com." {
            with_address(asked, 60)
        } else {
            denied(asked)
        }
    })
    .await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(false))).await;
    let unknown = question("shop.test.", RecordType::A);
    assert_eq!(code(&agent.udp(&unknown).await), ResponseCode::ServFail);
    let known = question("www.example.com.", RecordType::A);
    assert_eq!(addresses(&agent.udp(&known).await), [ELSEWHERE]);
    // A source may be away for long: what does not look like ours is not held back for that.
    let stopgap = Snapshot {
        stopgap: true,
        ..Snapshot::clone(&snapshot(false))
    };
    agent.snapshots.send_replace(Some(Arc::new(stopgap)));
    agent
        .until(&unknown, |answer| code(answer) == ResponseCode::NXDomain)
        .await;
    let ours = question("shop.", RecordType::A);
    assert_eq!(code(&agent.udp(&ours).await), ResponseCode::ServFail);
    agent.snapshots.send_replace(Some(snapshot(true)));
    agent
        .until(&ours, |answer| code(answer) == ResponseCode::NXDomain)
        .await;
    agent.end().await;
}
