//! Other names, for which other resolvers are asked.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, ResponseCode},
    rr::{Name, RData, RecordType, rdata::A},
};
use lb_agent::dns::Config;
use tokio::{
    net::UdpSocket,
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    kit::{Agent, addresses, code, config, question, receive, same_port, snapshot, within},
    upstream::{ELSEWHERE, Transport, Upstream, denied, empty, with_address, with_text},
};

#[tokio::test]
async fn other_names_are_forwarded_once_and_remembered() {
    let upstream = Upstream::start(|asked, _| with_address(asked, 60)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    for name in ["www.example.com.", "WWW.example.COM."] {
        let asked = question(name, RecordType::A);
        for answer in [agent.udp(&asked).await, agent.tcp(&asked).await] {
            assert_eq!(answer.metadata.id, asked.metadata.id);
            assert!(answer.queries[0].name().eq_case(asked.queries[0].name()));
            assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
            assert_eq!(addresses(&answer), [ELSEWHERE]);
        }
    }
    assert_eq!(upstream.asked(), 1);
    agent.end().await;
}

#[tokio::test]
async fn a_denied_name_is_remembered_as_its_zone_says() {
    let upstream = Upstream::start(|asked, _| denied(asked)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    for _ in 0..3 {
        let answer = agent
            .udp(&question("nobody.example.com.", RecordType::A))
            .await;
        assert_eq!(code(&answer), ResponseCode::NXDomain);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
    assert_eq!(upstream.asked(), 1);
    agent.end().await;
}

#[tokio::test]
async fn equal_questions_at_once_are_one_question() {
    let release = Arc::new(Notify::new());
    let upstream = Upstream::held(&release, |asked, _| with_address(asked, 60)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    let mut askers = Vec::new();
    for _ in 0..20 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let asked = question("many.example.com.", RecordType::A)
            .to_vec()
            .unwrap();
        socket.send_to(&asked, agent.address).await.unwrap();
        askers.push(socket);
    }
    // It stands behind the twenty, so once it is answered they all have been taken.
    agent.udp(&question("www_hello.", RecordType::A)).await;
    release.notify_one();
    for socket in askers {
        assert_eq!(addresses(&receive(&socket).await), [ELSEWHERE]);
    }
    assert_eq!(upstream.asked(), 1);
    agent.end().await;
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_fetched_by_tcp() {
    let upstream = Upstream::start(|asked, transport| match transport {
        Transport::Udp => with_address(asked, 60).truncate(),
        Transport::Tcp => with_text(asked, 3000),
    })
    .await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    let mut asked = question("long.example.com.", RecordType::TXT);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    for edns in [None, Some(edns)] {
        asked.edns = edns;
        let short = agent.udp(&asked).await;
        assert!(short.metadata.truncation && short.answers.is_empty());
        assert_eq!(short.edns.is_some(), asked.edns.is_some());
        let whole = agent.tcp(&asked).await;
        assert!(!whole.metadata.truncation);
        assert!(whole.to_vec().unwrap().len() > 3000);
    }
    agent.end().await;
}

#[tokio::test]
async fn a_forged_answer_is_passed_over() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let agent = Agent::start(vec![address], None, Some(snapshot(true))).await;
    let upstream = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        let (bytes, agent) = socket.recv_from(&mut buffer).await.unwrap();
        let asked = Message::from_vec(&buffer[..bytes]).unwrap();
        let forged = |change: fn(&mut Message)| {
            let mut answer = with_address(&asked, 60);
            answer.answers[0].data = RData::A(A::new(203, 0, 113, 66));
            change(&mut answer);
            answer.to_vec().unwrap()
        };
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        stranger.send_to(&forged(|_| {}), agent).await.unwrap();
        let packets = [
            b"garbage".to_vec(),
            forged(|answer| answer.metadata.id ^= 1),
            forged(|answer| {
                answer.queries[0].set_name(Name::from_ascii("other.example.com.").unwrap());
            }),
            with_address(&asked, 60).to_vec().unwrap(),
        ];
        for packet in packets {
            socket.send_to(&packet, agent).await.unwrap();
        }
    });
    let answer = agent
        .udp(&question("www.example.com.", RecordType::A))
        .await;
    assert_eq!(addresses(&answer), [ELSEWHERE]);
    within(upstream).await.unwrap();
    agent.end().await;
}

#[tokio::test]
async fn the_next_upstream_is_asked_if_one_is_gone_or_refuses() {
    let gone = same_port().await.1.local_addr().unwrap();
    let refusing = Upstream::start(|asked, _| empty(asked, ResponseCode::Refused)).await;
    let good = Upstream::start(|asked, _| with_address(asked, 60)).await;
    let servers = vec![gone, refusing.address, good.address];
    let agent = Agent::start(servers, None, Some(snapshot(true))).await;
    for name in ["a.example.com.", "b.example.com."] {
        let answer = agent.udp(&question(name, RecordType::A)).await;
        assert_eq!(addresses(&answer), [ELSEWHERE]);
    }
    // From then on the one that answered is asked first.
    assert_eq!((refusing.asked(), good.asked()), (1, 2));
    agent.end().await;
}

// Time is virtual, as below.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_was_slow_once_is_the_first_again_after_a_while() {
    let release = Arc::new(Notify::new());
    let first = Upstream::held(&release, |asked, _| with_address(asked, 60)).await;
    let second = Upstream::start(|asked, _| denied(asked)).await;
    let servers = vec![first.address, second.address];
    let agent = Agent::start(servers, None, Some(snapshot(true))).await;
    let ask = async |name| code(&agent.udp(&question(name, RecordType::A)).await);
    assert_eq!(ask("a.example.com.").await, ResponseCode::NXDomain);
    release.notify_one();
    // For a moment the one that answered is asked first.
    assert_eq!(ask("b.example.com.").await, ResponseCode::NXDomain);
    assert_eq!(first.asked(), 1);
    tokio::time::advance(Duration::from_secs(30)).await;
    for name in ["c.example.com.", "d.example.com."] {
        assert_eq!(ask(name).await, ResponseCode::NoError);
    }
    assert_eq!((first.asked(), second.asked()), (3, 2));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_question_at_a_time_looks_whether_the_first_upstream_is_back() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let good = Upstream::start(|asked, _| with_address(asked, 60)).await;
    let servers = vec![silent.local_addr().unwrap(), good.address];
    let agent = Agent::start(servers, None, Some(snapshot(true))).await;
    let slow = async |name| {
        let started = Instant::now();
        let answer = agent.udp(&question(name, RecordType::A)).await;
        assert_eq!(addresses(&answer), [ELSEWHERE]);
        started.elapsed() > Duration::from_secs(1)
    };
    assert!(slow("a.example.com.").await);
    assert!(!slow("b.example.com.").await);
    tokio::time::advance(Duration::from_secs(30)).await;
    let (one, other) = tokio::join!(slow("c.example.com."), slow("d.example.com."));
    assert!(one != other);
    assert!(!slow("e.example.com.").await);
    agent.end().await;
}

#[tokio::test]
async fn if_every_upstream_refuses_the_asker_learns_it() {
    let upstream = Upstream::start(|asked, _| empty(asked, ResponseCode::Refused)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    let answer = agent.udp(&question("a.example.com.", RecordType::A)).await;
    assert_eq!(code(&answer), ResponseCode::Refused);
    agent.end().await;
}

// Time is virtual: it jumps to the next limit when there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_a_server_failure_before_the_asker_gives_up() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let servers = vec![silent.local_addr().unwrap()];
    let agent = Agent::start(servers, None, Some(snapshot(true))).await;
    let started = Instant::now();
    let answer = agent.udp(&question("a.example.com.", RecordType::A)).await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert!(started.elapsed() < Duration::from_secs(5));
    agent.end().await;
}

#[tokio::test]
async fn without_an_upstream_other_names_fail_at_once() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    let answer = agent
        .udp(&question("www.example.com.", RecordType::A))
        .await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    agent.end().await;
}

#[tokio::test]
async fn new_upstreams_are_asked_at_once_and_what_is_under_way_is_answered_by_the_old() {
    let release = Arc::new(Notify::new());
    let old = Upstream::held(&release, |asked, _| with_address(asked, 60)).await;
    let new = Upstream::start(|asked, _| denied(asked)).await;
    let (renew, upstreams) = watch::channel(vec![old.address]);
    let config = Config {
        upstreams,
        ..config(vec![], None)
    };
    let agent = Agent::start_with(same_port().await, config, Some(snapshot(true)));
    let asked = question("a.example.com.", RecordType::A);
    let under_way = agent.udp(&asked);
    let renewed = async {
        within(async {
            while old.asked() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        renew.send_replace(vec![new.address]);
        // Until the resolver has heard of it.
        for number in 0.. {
            let name = format!("b{number}.example.com.");
            let answer = agent.udp(&question(&name, RecordType::A)).await;
            if code(&answer) == ResponseCode::NXDomain {
                break;
            }
        }
        // What the old ones say of it is no answer of the new ones.
        assert_eq!(code(&agent.udp(&asked).await), ResponseCode::NXDomain);
        release.notify_one();
    };
    let (answer, ()) = tokio::join!(under_way, renewed);
    assert_eq!(addresses(&answer), [ELSEWHERE]);
    assert_eq!(code(&agent.udp(&asked).await), ResponseCode::NXDomain);
    agent.end().await;
}

#[tokio::test]
async fn an_upstream_that_is_the_resolver_itself_is_left_out() {
    let sockets = same_port().await;
    let itself = sockets.1.local_addr().unwrap();
    let agent = Agent::start_at(sockets, vec![itself], None, Some(snapshot(true)));
    let started = Instant::now();
    let answer = agent
        .udp(&question("www.example.com.", RecordType::A))
        .await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    // To ask itself takes all the time that an upstream has.
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(agent.metrics.queries("A", "SERVFAIL"), 1);
    agent.end().await;
}

#[tokio::test]
async fn names_of_consul_go_to_consul_and_nowhere_else() {
    let consul = Upstream::start(|asked, _| with_address(asked, 0)).await;
    let upstream = Upstream::start(|asked, _| denied(asked)).await;
    let servers = vec![upstream.address];
    let agent = Agent::start(servers, Some(consul.address), Some(snapshot(true))).await;
    for times in 1..=2 {
        let answer = agent
            .udp(&question("db.service.consul.", RecordType::A))
            .await;
        assert_eq!(addresses(&answer), [ELSEWHERE]);
        // Consul's answers live for no time at all, so each question reaches it.
        assert_eq!(consul.asked(), times);
    }
    assert_eq!(upstream.asked(), 0);
    agent.end().await;
}
