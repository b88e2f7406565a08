//! Requests and answers: the wire format on one side, meanings on the other. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR, SOA, SRV},
    },
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::names::Ports;

/// What a packet turned out to be.
pub(super) enum Packet {
    /// A request to decide.
    Request(Request),
    /// A request that cannot be used, and the answer that says so.
    Unusable(Reply),
    /// No request. It gets no answer: an answer to an answer could go round for ever.
    Noise,
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

impl Packet {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else {
            return Self::Noise;
        };
        if header.metadata.message_type == MessageType::Response {
            return Self::Noise;
        }
        let unusable = |code| Self::Unusable(Reply::bare(&header.metadata, code));
        if header.metadata.op_code != OpCode::Query {
            return unusable(ResponseCode::NotImp);
        }
        // Looked at before the rest is read, because the reader makes room for as many as are announced.
        if header.counts.queries != 1 {
            return unusable(ResponseCode::FormErr);
        }
        let Ok(message) = Message::from_vec(bytes) else {
            return unusable(ResponseCode::FormErr);
        };
        let Some(query) = message.queries.into_iter().next() else {
            return unusable(ResponseCode::FormErr);
        };
        let request = Request {
            metadata: message.metadata,
            query,
            edns: message.edns,
        };
        if request.query.query_class() == DNSClass::IN {
            Self::Request(request)
        } else {
            Self::Unusable(request.reply(ResponseCode::Refused))
        }
    }
}

impl Request {
    /// Whether the asker wants others to be asked.
    pub(super) fn recursion_desired(&self) -> bool {
        self.metadata.recursion_desired
    }

    /// The version of EDNS that the asker speaks; 0 also if it speaks none.
    pub(super) fn edns_version(&self) -> u8 {
        self.edns.as_ref().map_or(0, Edns::version)
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

    /// The answer for a name of ours with these addresses.
    pub(super) fn addresses(&self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Reply {
        let v4 = v4.map(|v4| RData::A(A(v4)));
        let v6 = v6.map(|v6| RData::AAAA(AAAA(v6)));
        self.own(match self.query.query_type() {
            RecordType::A => v4,
            RecordType::AAAA => v6,
            // One kind of record is enough of an answer to ANY (RFC 8482 section 4.1).
            RecordType::ANY => v4.or(v6),
            _ => None,
        })
    }

    /// The answer for a name of ours that has this data.
    fn own(&self, data: impl IntoIterator<Item = RData>) -> Reply {
        let mut reply = self.reply(ResponseCode::NoError);
        let name = self.query.name();
        reply.message.metadata.authoritative = true;
        let data = data.into_iter();
        let records = data.map(|data| Record::from_rdata(name.clone(), OWN_TTL_SECONDS, data));
        reply.message.add_answers(records);
        if reply.message.answers.is_empty() {
            // "No such data" is not "no such name": after NXDOMAIN for AAAA, libc would not use the A.
            reply.message.add_authority(soa(name.clone()));
        }
        reply
    }

    /// The answer for an address of ours that belongs to the service called `service`.
    pub(super) fn pointer(&self, service: &str) -> Reply {
        let wanted = matches!(self.query.query_type(), RecordType::PTR | RecordType::ANY);
        let target = host(service).filter(|_| wanted);
        self.own(target.map(|target| RData::PTR(PTR(target))))
    }

    /// The answer for the ports of a service, with the addresses that the asker will want next.
    pub(super) fn ports(&self, service: &Ports<'_>) -> Reply {
        let Some(target) = host(&service.target) else {
            return self.own(None);
        };
        let record = |&port| RData::SRV(SRV::new(1, 1, port, target.clone()));
        let mut reply = self.own(service.ports.iter().map(record));
        if !reply.message.answers.is_empty() {
            let v4 = RData::A(A(service.v4));
            let v6 = service.v6.map(|v6| RData::AAAA(AAAA(v6)));
            let more = [Some(v4), v6].into_iter().flatten();
            let more = more.map(|data| Record::from_rdata(target.clone(), OWN_TTL_SECONDS, data));
            reply.message.add_additionals(more);
        }
        reply
    }

    /// "No such name", said for the zone of the name's last `labels` labels.
    pub(super) fn absent(&self, labels: usize) -> Reply {
        let mut reply = self.reply(ResponseCode::NXDomain);
        reply.message.metadata.authoritative = true;
        reply
            .message
            .add_authority(soa(self.query.name().trim_to(labels)));
        reply
    }
}

impl Reply {
    /// An answer to a request of which only the header could be used.
    fn bare(request: &Metadata, code: ResponseCode) -> Self {
        let mut message = Message::error_msg(request.id, request.op_code, code);
        message.metadata.recursion_desired = request.recursion_desired;
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

/// A service's name as a name of DNS; `None` if it is too long for one.
fn host(name: &str) -> Option<Name> {
    Name::from_labels(name.split('.').map(str::as_bytes)).ok()
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
