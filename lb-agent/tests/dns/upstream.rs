//! Another resolver, which answers by a script.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, SOA, TXT},
    },
};
use tokio::{io::AsyncWriteExt as _, sync::Notify, task::JoinSet};

use crate::kit::{frame, read_frame, same_port};

pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

#[derive(Clone, Copy)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

type Script = fn(&Message, Transport) -> Message;

/// A resolver that answers by a script, and counts what it is asked by UDP.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(crate) async fn start(script: Script) -> Self {
        let release = Arc::new(Notify::new());
        release.notify_one();
        Self::held(&release, script).await
    }

    /// Holds its first answer back until `release` is notified.
    pub(crate) async fn held(release: &Arc<Notify>, script: Script) -> Self {
        let (tcp, udp) = same_port().await;
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let (count, mut held) = (Arc::clone(&asked), Some(Arc::clone(release)));
        tasks.spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (bytes, client) = udp.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                if let Some(release) = held.take() {
                    release.notified().await;
                }
                let asked = Message::from_vec(&buffer[..bytes]).unwrap();
                let answer = script(&asked, Transport::Udp).to_vec().unwrap();
                udp.send_to(&answer, client).await.unwrap();
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let answer = script(&read_frame(&mut stream).await, Transport::Tcp);
                stream.write_all(&frame(&answer)).await.unwrap();
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub(crate) fn empty(asked: &Message, code: ResponseCode) -> Message {
    let mut answer = asked.clone().into_response();
    answer.metadata.response_code = code;
    answer
}

pub(crate) fn with_address(asked: &Message, ttl: u32) -> Message {
    let mut answer = empty(asked, ResponseCode::NoError);
    let name = asked.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(name, ttl, RData::A(A(ELSEWHERE))));
    answer
}

pub(crate) fn with_text(asked: &Message, bytes: usize) -> Message {
    let mut answer = empty(asked, ResponseCode::NoError);
    let name = asked.queries[0].name().clone();
    let text = TXT::new(vec!["x".repeat(250); bytes.div_ceil(250)]);
    answer.add_answer(Record::from_rdata(name, 60, RData::TXT(text)));
    answer
}

pub(crate) fn denied(asked: &Message) -> Message {
    let mut answer = empty(asked, ResponseCode::NXDomain);
    let zone = Name::from_ascii("com.").unwrap();
    let soa = SOA::new(zone.clone(), Name::root(), 1, 2, 3, 4, 60);
    answer.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
    answer
}
