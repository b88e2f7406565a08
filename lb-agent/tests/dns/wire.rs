//! Datagrams and connections of askers, whatever is asked.

use std::{net::Ipv4Addr, sync::Arc};

use hickory_proto::rr::RecordType;
use lb_agent::dns::{self, Metrics};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    kit::{Agent, addresses, config, frame, question, read_frame, snapshot, within},
    upstream::{ELSEWHERE, Upstream, with_address},
};

#[tokio::test]
async fn a_malformed_datagram_is_answered_with_its_id() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    // A header that announces a question, and no question.
    let packet = [0xab, 0xcd, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    socket.send_to(&packet, agent.address).await.unwrap();
    let mut buffer = [0; 512];
    let bytes = within(socket.recv(&mut buffer)).await.unwrap();
    // QR and RD are set, RCODE is 1, and there are no sections.
    assert_eq!(
        buffer[..bytes],
        [0xab, 0xcd, 0x81, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    agent.end().await;
}

#[tokio::test]
async fn questions_on_a_connection_do_not_wait_for_each_other() {
    let release = Arc::new(Notify::new());
    let upstream = Upstream::held(&release, |asked, _| with_address(asked, 60)).await;
    let agent = Agent::start(vec![upstream.address], None, Some(snapshot(true))).await;
    let slow = question("slow.example.com.", RecordType::A);
    let fast = question("www_hello.", RecordType::A);
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let both = [frame(&slow), frame(&fast)].concat();
    // In two pieces that respect no frame.
    stream.write_all(&both[..3]).await.unwrap();
    stream.write_all(&both[3..]).await.unwrap();
    assert_eq!(read_frame(&mut stream).await.metadata.id, fast.metadata.id);
    // The client says no more, and still gets what it asked for.
    stream.shutdown().await.unwrap();
    release.notify_one();
    let answer = read_frame(&mut stream).await;
    assert_eq!(answer.metadata.id, slow.metadata.id);
    assert_eq!(addresses(&answer), [ELSEWHERE]);
    assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0);
    agent.end().await;
}

// Time is virtual: it jumps to the next limit when there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let agent = Agent::start(vec![], None, Some(snapshot(true))).await;
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    // Half of a length: whoever never says the rest holds nothing for long.
    stream.write_all(&[0]).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0);
    agent.end().await;
}

#[tokio::test]
async fn a_resolver_without_a_socket_says_so() {
    let (_sender, snapshots) = watch::channel(None);
    let metrics = Arc::new(Metrics::default());
    let stop = CancellationToken::new();
    let ended = dns::run(
        config(vec![], None),
        vec![],
        vec![],
        snapshots,
        metrics,
        watch::channel(Vec::new()).0,
        stop,
    )
    .await;
    assert!(matches!(ended, Err(dns::Error::NoSocket)));
}
