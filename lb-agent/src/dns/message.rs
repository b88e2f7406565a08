//! Requests and answers: the wire format on one side, meanings on the other. Pure.
//!
//! A request is decided here as far as the agent's own names go; what is left is a question for others.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA},
    },
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::names::{Found, Names};

/// What is to be done with a packet.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing: it is no request. An answer to an answer could go round for ever.
    Ignore,
    /// It is answered here and now.
    Answer(Reply),
    /// It has to be asked elsewhere.
    Forward(Request, Via),
}

/// Who is asked about a name that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Via {
    /// The resolvers that the host would use without us.
    Upstreams,
    /// Consul's own DNS.
    Consul,
}

/// A well-formed request with one question of class IN.
#[derive(Clone, Debug)]
pub(super) struct Request {
    metadata: Metadata,
    /// The question, in the asker's spelling.
    pub(super) query: Query,
    edns: Option<Edns>,
}

/// An answer, and how much of it the asker takes in one datagram.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) message: Message,
    datagram_bytes: usize,
}

/// Decides `packet` from an asker who may ask (`allowed`) or not.
pub(super) fn decide(packet: &[u8], allowed: bool, names: &Names, consul: bool) -> Decision {
    let request = match Request::parse(packet) {
        Ok(request) => request,
        Err(Some(message)) => return Decision::Answer(Reply::small(message)),
        Err(None) => return Decision::Ignore,
    };
    if !allowed {
        return request.refuse(ResponseCode::Refused);
    }
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return request.refuse(ResponseCode::BADVERS);
    }
    match request.query.query_type() {
        RecordType::AXFR | RecordType::IXFR => return request.refuse(ResponseCode::Refused),
        RecordType::OPT | RecordType::ZERO => return request.refuse(ResponseCode::FormErr),
        _ => {}
    }
    // A name with bytes that no service can have is none of ours.
    let found = plain(request.query.name()).map_or(Found::Elsewhere, |name| names.lookup(&name));
    match found {
        Found::Addresses { v4, v6 } => Decision::Answer(request.addresses(v4, v6)),
        Found::WithoutVip | Found::NotYet => request.refuse(ResponseCode::ServFail),
        Found::Consul if consul => request.forward(Via::Consul),
        // No root server knows `consul.`, so there is nobody to ask, and nobody else to be told.
        Found::Consul if names.complete() => Decision::Answer(request.absent()),
        Found::Consul => request.refuse(ResponseCode::ServFail),
        Found::Elsewhere => request.forward(Via::Upstreams),
    }
}

impl Request {
    /// Reads a packet. The error is the answer to what cannot be used, or `None` if it deserves none.
    fn parse(packet: &[u8]) -> Result<Self, Option<Message>> {
        let header = Header::read(&mut BinDecoder::new(packet)).map_err(|_| None)?;
        let Metadata {
            id,
            op_code,
            message_type,
            ..
        } = header.metadata;
        if message_type == MessageType::Response {
            return Err(None);
        }
        let reject = |code| {
            let mut message = Message::error_msg(id, op_code, code);
            message.metadata.recursion_desired = header.metadata.recursion_desired;
            Some(message)
        };
        if op_code != OpCode::Query {
            return Err(reject(ResponseCode::NotImp));
        }
        // Looked at before the rest is read, because the reader makes room for as many as are announced.
        if header.counts.queries != 1 {
            return Err(reject(ResponseCode::FormErr));
        }
        let message = Message::from_vec(packet).map_err(|_| reject(ResponseCode::FormErr))?;
        let Some(query) = message.queries.into_iter().next() else {
            return Err(reject(ResponseCode::FormErr));
        };
        let request = Self {
            metadata: message.metadata,
            query,
            edns: message.edns,
        };
        if request.query.query_class() != DNSClass::IN {
            return Err(Some(request.reply(ResponseCode::Refused).message));
        }
        Ok(request)
    }

    /// The request's DO bit: whether the asker wants signatures.
    pub(super) fn dnssec_ok(&self) -> bool {
        self.edns
            .as_ref()
            .is_some_and(|edns| edns.flags().dnssec_ok)
    }

    /// The request's CD bit: whether the asker checks signatures itself.
    pub(super) fn checking_disabled(&self) -> bool {
        self.metadata.checking_disabled
    }

    /// Whether the asker speaks EDNS.
    pub(super) fn has_edns(&self) -> bool {
        self.edns.is_some()
    }

    /// An answer without records.
    pub(super) fn reply(&self, code: ResponseCode) -> Reply {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM_BYTES);
            // The DO bit is copied (RFC 3225 section 3).
            edns.set_dnssec_ok(self.dnssec_ok());
            message.set_edns(edns);
        }
        let asked_for = self.edns.as_ref().map_or(0, Edns::max_payload);
        Reply {
            message,
            datagram_bytes: usize::from(asked_for.clamp(PLAIN_DATAGRAM_BYTES, DATAGRAM_BYTES)),
        }
    }

    fn refuse(&self, code: ResponseCode) -> Decision {
        Decision::Answer(self.reply(code))
    }

    fn forward(self, via: Via) -> Decision {
        if self.metadata.recursion_desired {
            Decision::Forward(self, via)
        } else {
            // The asker wants to know what we know ourselves, and that is nothing.
            self.refuse(ResponseCode::Refused)
        }
    }

    fn addresses(&self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Reply {
        let mut reply = self.reply(ResponseCode::NoError);
        let name = self.query.name();
        let record = |data| Record::from_rdata(name.clone(), OWN_TTL_SECONDS, data);
        let v4 = v4.map(|v4| record(RData::A(A(v4))));
        let v6 = v6.map(|v6| record(RData::AAAA(AAAA(v6))));
        reply.message.metadata.authoritative = true;
        let answers = match self.query.query_type() {
            RecordType::A => v4.into_iter().chain(None),
            RecordType::AAAA => v6.into_iter().chain(None),
            // One kind of record is enough of an answer to ANY (RFC 8482 section 4.1).
            RecordType::ANY => v4.or(v6).into_iter().chain(None),
            _ => None.into_iter().chain(None),
        };
        reply.message.add_answers(answers);
        if reply.message.answers.is_empty() {
            // "No such data" is not "no such name": after NXDOMAIN for AAAA, libc would not use the A.
            reply.message.add_authority(soa(name.clone()));
        }
        reply
    }

    /// "No such name" under `consul.`.
    fn absent(&self) -> Reply {
        let mut reply = self.reply(ResponseCode::NXDomain);
        reply.message.metadata.authoritative = true;
        reply
            .message
            .add_authority(soa(self.query.name().trim_to(1)));
        reply
    }
}

impl Reply {
    fn small(message: Message) -> Self {
        Self {
            message,
            datagram_bytes: usize::from(PLAIN_DATAGRAM_BYTES),
        }
    }

    /// The bytes for a stream. `None` if the message cannot be written at all.
    pub(super) fn stream(&self) -> Option<Vec<u8>> {
        self.message.to_vec().ok()
    }

    /// The bytes for a datagram: if they are more than the asker takes, none of the records and the TC
    /// bit, which makes it ask again by TCP.
    pub(super) fn datagram(&self) -> Option<Vec<u8>> {
        let whole = self.message.to_vec().ok()?;
        if whole.len() <= self.datagram_bytes {
            return Some(whole);
        }
        self.message.truncate().to_vec().ok()
    }
}

/// A name as the table has it: lower case, labels joined by dots, none at the end.
fn plain(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for (i, label) in name.iter().enumerate() {
        if i > 0 {
            text.push('.');
        }
        // A dot within a label would look like two labels.
        let label = std::str::from_utf8(label)
            .ok()
            .filter(|label| !label.contains('.'))?;
        text.push_str(label);
    }
    text.make_ascii_lowercase();
    Some(text)
}

/// The start of authority that lets a negative answer be kept for a moment (RFC 2308 section 5), in the form
/// that RFC 6303 section 3 has for zones served locally. Every name of ours is a zone of its own.
fn soa(zone: Name) -> Record {
    let responsible = Name::from_ascii("nobody.invalid.").unwrap_or_default();
    let data = SOA::new(
        zone.clone(),
        responsible,
        1,
        3600,
        1200,
        604_800,
        OWN_TTL_SECONDS,
    );
    Record::from_rdata(zone, OWN_TTL_SECONDS, RData::SOA(data))
}

/// How long others may keep our own answers. Short, since VIPs come and go; not zero, since many
/// libraries ask anew for every connection.
const OWN_TTL_SECONDS: u32 = 5;

/// What every asker takes in one datagram (RFC 1035 section 4.2.1).
const PLAIN_DATAGRAM_BYTES: u16 = 512;

/// The largest datagram we send or ask for: fits any sane path without fragments.
pub(super) const DATAGRAM_BYTES: u16 = 1232;
