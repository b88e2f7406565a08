//! One question to one resolver: by UDP, and by TCP where the answer does not fit.
//!
//! An answer counts only if it comes from the address that was asked, to the port that asked, with the id
//! and the question that were sent. Every exchange has a socket of its own, so that its port, which the
//! kernel draws, is as hard to guess as its id (RFC 5452).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use hickory_proto::{
    ProtoError,
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::message::{DATAGRAM_BYTES, Request};

/// What is asked; two equal questions have the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Name, type and class.
    pub(super) query: Query,
    /// Whether to speak EDNS. Left to the first asker, who knows what to do where it is not understood.
    pub(super) edns: bool,
    /// The DO bit.
    pub(super) dnssec_ok: bool,
    /// The CD bit.
    pub(super) checking_disabled: bool,
}

/// Why a resolver gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot write the question")]
    Encode(#[from] ProtoError),
    #[error("no answer")]
    Io(#[from] io::Error),
    #[error("the answer by TCP does not belong to the question")]
    Foreign,
}

/// Asks `server`; gives the answer and its size on the wire. Waits without end: the caller sets the limit.
pub(super) async fn exchange(
    server: SocketAddr,
    question: &Question,
) -> Result<(Message, usize), Error> {
    let message = question.message();
    let packet = message.to_vec()?;
    let (answer, bytes) = by_udp(server, &message, &packet).await?;
    if answer.metadata.truncation {
        return by_tcp(server, &message, &packet).await;
    }
    Ok((answer, bytes))
}

impl Question {
    /// What others are asked for `request`.
    pub(super) fn of(request: &Request) -> Self {
        let mut query = request.query.clone();
        // Askers that spell a name in random case still share one answer.
        query.set_name(query.name().to_lowercase());
        Self {
            query,
            edns: request.has_edns(),
            dnssec_ok: request.dnssec_ok(),
            checking_disabled: request.checking_disabled(),
        }
    }

    /// The question as a message with an id of its own.
    pub(super) fn message(&self) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(self.query.clone());
        if self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM_BYTES);
            edns.set_dnssec_ok(self.dnssec_ok);
            message.set_edns(edns);
        }
        message
    }
}

async fn by_udp(
    server: SocketAddr,
    message: &Message,
    packet: &[u8],
) -> Result<(Message, usize), Error> {
    let any = match server.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // A connected socket takes datagrams from that address only, and learns when nobody listens there.
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = [0; RECEIVE_BYTES];
    loop {
        let bytes = socket.recv(&mut buffer).await?;
        let answer = Message::from_vec(&buffer[..bytes]).ok();
        // What does not belong here is not an error: the true answer may still come.
        if let Some(answer) = answer.filter(|answer| belongs(message, answer)) {
            return Ok((answer, bytes));
        }
    }
}

async fn by_tcp(
    server: SocketAddr,
    message: &Message,
    packet: &[u8],
) -> Result<(Message, usize), Error> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(packet)).await?;
    let bytes = usize::from(stream.read_u16().await?);
    let mut buffer = vec![0; bytes];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).ok();
    answer
        .filter(|answer| belongs(message, answer))
        .map(|answer| (answer, bytes))
        .ok_or(Error::Foreign)
}

/// A message as it goes over a stream, with its length before it (RFC 1035 section 4.2.2). In one piece,
/// or it would leave in two segments.
pub(super) fn framed(packet: &[u8]) -> Vec<u8> {
    // No message is longer: the length of the encoder's buffer is limited to the same 16 bits.
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(2 + usize::from(length));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&packet[..usize::from(length)]);
    frame
}

/// Whether `answer` belongs to `asked`.
pub(super) fn belongs(asked: &Message, answer: &Message) -> bool {
    let metadata = &answer.metadata;
    // Some servers leave out the question when they refuse. That does not make an answer of it, so
    // nothing is gained by forging it.
    let refusal = answer.queries.is_empty()
        && !matches!(
            metadata.response_code,
            ResponseCode::NoError | ResponseCode::NXDomain
        );
    metadata.id == asked.metadata.id
        && metadata.message_type == MessageType::Response
        && metadata.op_code == OpCode::Query
        && (refusal || answer.queries == asked.queries)
}

/// Larger than what we ask for, for servers that do not care.
const RECEIVE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    fn question(name: &str) -> Message {
        let query = Query::query(Name::from_ascii(name).unwrap(), RecordType::A);
        let question = Question {
            query,
            edns: true,
            dnssec_ok: true,
            checking_disabled: false,
        };
        question.message()
    }

    fn answer(asked: &Message) -> Message {
        let mut answer = asked.clone().into_response();
        answer.metadata.response_code = ResponseCode::NoError;
        answer
    }

    #[test]
    fn an_answer_needs_the_id_and_the_question() {
        let asked = question("a.example.");
        assert!(belongs(&asked, &answer(&asked)));
        assert!(!belongs(&asked, &asked));
        let mut other = answer(&asked);
        other.metadata.id ^= 1;
        assert!(!belongs(&asked, &other));
        let mut other = answer(&question("b.example."));
        other.metadata.id = asked.metadata.id;
        assert!(!belongs(&asked, &other));
    }

    #[test]
    fn only_a_refusal_may_leave_out_the_question() {
        let asked = question("a.example.");
        let mut bare = answer(&asked);
        bare.queries.clear();
        assert!(!belongs(&asked, &bare));
        bare.metadata.response_code = ResponseCode::NXDomain;
        assert!(!belongs(&asked, &bare));
        bare.metadata.response_code = ResponseCode::FormErr;
        assert!(belongs(&asked, &bare));
    }

    #[test]
    fn ids_differ_from_question_to_question() {
        let ids: std::collections::HashSet<u16> = (0..64)
            .map(|_| question("a.example.").metadata.id)
            .collect();
        assert!(ids.len() > 32);
    }
}
