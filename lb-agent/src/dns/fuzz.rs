//! The doors of the fuzz targets to what askers and other servers send.

use std::{io, net::SocketAddr, time::Duration};

use hickory_proto::op::{Message, ResponseCode};
use tokio::time::Instant;

use super::{
    cache::Stored,
    decide::{self, Decision},
    exchange::{self, Question},
    message::{Packet, Reply},
    names::Names,
    resolv_conf,
};
use crate::vip::Pools;

/// What becomes of a packet.
pub(crate) enum Outcome {
    Ignored,
    Answered(Written),
    /// What others are asked, and what the asker is told when none of them answers.
    Forwarded(Message, Written),
}

/// An answer; `None` if it cannot be written.
pub(crate) struct Written {
    pub(crate) stream: Option<Vec<u8>>,
    pub(crate) datagram: Option<Vec<u8>>,
}

impl From<Reply> for Written {
    fn from(reply: Reply) -> Self {
        Self {
            stream: reply.stream(),
            datagram: reply.datagram(),
        }
    }
}

/// Decides a packet as the server does.
pub(crate) fn decide(packet: &[u8], allowed: bool, names: &Names, consul: bool) -> Outcome {
    match decide::decide(packet, allowed, names, consul) {
        Decision::Ignore => Outcome::Ignored,
        Decision::Answer(reply) => Outcome::Answered(reply.into()),
        Decision::Forward(request, _) => {
            let nobody = request.reply(ResponseCode::ServFail).into();
            Outcome::Forwarded(Question::of(&request).message(), nobody)
        }
    }
}

/// What the asker of `question` is told when others said `answer`, at once and after `age`; `None` if that is no answer to
/// it. Whoever sent it has guessed the id.
pub(crate) fn told(question: &[u8], answer: &[u8], age: Duration) -> Option<[Written; 2]> {
    let Packet::Request(request) = Packet::read(question) else {
        return None;
    };
    let said = Message::from_vec(answer).ok()?;
    let mut asked = Question::of(&request).message();
    asked.metadata.id = said.metadata.id;
    let now = Instant::now();
    let stored = exchange::belongs(&asked, &said).then(|| Stored::new(said, answer.len(), now))?;
    assert!(stored.answers(now, now) && stored.weight() >= answer.len() as u64);
    Some([now, now + age].map(|it| stored.reply(&request, it).into()))
}

/// The resolvers that a `resolv.conf` names, without the agent of `pools`.
pub(crate) fn upstreams(pools: Pools, text: &str) -> io::Result<Vec<SocketAddr>> {
    resolv_conf::upstreams(pools, text, || Ok(String::new()))
}
