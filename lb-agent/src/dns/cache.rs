//! Answers of others, kept as long as they allow. Time comes in, decisions go out.

use std::time::Duration;

use hickory_proto::{
    op::{Message, Metadata, ResponseCode},
    rr::{RData, Record},
};
use tokio::time::Instant;

use super::message::{Reply, Request};

/// An answer of others, without what belonged to one exchange only (id, question, OPT).
#[derive(Debug)]
pub(super) struct Stored {
    code: ResponseCode,
    authentic_data: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
    bytes: u64,
    received: Instant,
    fresh_for: Duration,
}

impl Stored {
    /// What `message`, which had `bytes` on the wire, says at `now`.
    pub(super) fn new(message: Message, bytes: usize, now: Instant) -> Self {
        let Metadata {
            response_code,
            authentic_data,
            ..
        } = message.metadata;
        let fresh_for = fresh_for(&message);
        Self {
            code: response_code,
            authentic_data,
            answers: message.answers,
            authorities: message.authorities,
            additionals: message.additionals,
            bytes: bytes as u64,
            received: now,
            fresh_for,
        }
    }

    /// Nobody answered. That is kept too (RFC 9520), or every asker would wait for all the time-outs.
    pub(super) fn failure(now: Instant) -> Self {
        Self {
            code: ResponseCode::ServFail,
            authentic_data: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            bytes: 0,
            received: now,
            fresh_for: FAILURE_FRESH,
        }
    }

    pub(super) fn code(&self) -> ResponseCode {
        self.code
    }

    /// Whether this answers, at `now`, a question asked at `asked`. An answer that came after the
    /// question is good for it even if it may not be kept at all.
    pub(super) fn answers(&self, asked: Instant, now: Instant) -> bool {
        self.received >= asked || now.duration_since(self.received) < self.fresh_for
    }

    /// The memory it takes, roughly: records are larger in memory than on the wire.
    pub(super) fn weight(&self) -> u64 {
        let records = self.answers.len() + self.authorities.len() + self.additionals.len();
        ENTRY_BYTES + self.bytes + records as u64 * RECORD_BYTES
    }

    /// The answer to `request` at `now`; its records are as much older as they have been kept.
    pub(super) fn reply(&self, request: &Request, now: Instant) -> Reply {
        let age = now.duration_since(self.received).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        let aged = |record: &Record| {
            let mut record = record.clone();
            record.ttl = record.ttl.saturating_sub(age);
            record
        };
        let mut reply = request.reply(self.code);
        reply.message.metadata.authentic_data = self.authentic_data;
        reply.message.add_answers(self.answers.iter().map(aged));
        reply
            .message
            .add_authorities(self.authorities.iter().map(aged));
        reply
            .message
            .add_additionals(self.additionals.iter().map(aged));
        reply
    }
}

/// How long a message may be kept: as long as the shortest-lived of its records.
fn fresh_for(message: &Message) -> Duration {
    let shortest = message.all_sections().map(lifetime_seconds).min();
    let limit = match message.metadata.response_code {
        ResponseCode::NoError if !message.answers.is_empty() => POSITIVE_LIMIT_SECONDS,
        // A negative answer may be kept only if it says for how long (RFC 2308 section 5).
        ResponseCode::NoError | ResponseCode::NXDomain => {
            let has_soa = |record: &Record| matches!(record.data, RData::SOA(_));
            if message.authorities.iter().any(has_soa) {
                NEGATIVE_LIMIT_SECONDS
            } else {
                0
            }
        }
        _ => return FAILURE_FRESH,
    };
    Duration::from_secs(shortest.unwrap_or(0).min(limit).into())
}

fn lifetime_seconds(record: &Record) -> u32 {
    let seconds = match &record.data {
        // What its minimum says is how long a negative answer lasts (RFC 2308 section 4).
        RData::SOA(soa) => record.ttl.min(soa.minimum),
        _ => record.ttl,
    };
    // A TTL with its first bit set means zero (RFC 2181 section 8).
    if i32::try_from(seconds).is_ok() {
        seconds
    } else {
        0
    }
}

/// How long a failure is kept: enough for everybody who waits, too short to notice when it is over.
const FAILURE_FRESH: Duration = Duration::from_secs(1);

/// The longest that an answer is kept; whoever moves a name should not wait for a day.
const POSITIVE_LIMIT_SECONDS: u32 = 3600;

/// The longest that "no such name" is kept.
const NEGATIVE_LIMIT_SECONDS: u32 = 300;

const ENTRY_BYTES: u64 = 512;
const RECORD_BYTES: u64 = 320;

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{MessageType, OpCode, Query},
        rr::{
            Name, RecordType,
            rdata::{A, SOA},
        },
    };

    use super::{super::message::Packet, *};

    fn a(ttl: u32) -> Record {
        Record::from_rdata(Name::root(), ttl, RData::A(A::new(192, 0, 2, 1)))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let data = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, minimum);
        Record::from_rdata(Name::root(), ttl, RData::SOA(data))
    }

    fn message(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        message.answers = answers;
        message.authorities = authorities;
        message
    }

    #[track_caller]
    fn check(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>, seconds: u64) {
        let message = message(code, answers, authorities);
        assert_eq!(fresh_for(&message), Duration::from_secs(seconds));
    }

    #[test]
    fn an_answer_is_kept_as_long_as_its_shortest_record() {
        check(ResponseCode::NoError, vec![a(60), a(30)], vec![], 30);
        check(ResponseCode::NoError, vec![a(60)], vec![a(20)], 20);
        check(ResponseCode::NoError, vec![a(0)], vec![], 0);
        check(ResponseCode::NoError, vec![a(86_400)], vec![], 3600);
        check(ResponseCode::NoError, vec![a(0x8000_0000)], vec![], 0);
    }

    #[test]
    fn a_negative_answer_is_kept_as_its_start_of_authority_says() {
        for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
            check(code, vec![], vec![soa(60, 10)], 10);
            check(code, vec![], vec![soa(10, 60)], 10);
            check(code, vec![], vec![soa(86_400, 86_400)], 300);
            check(code, vec![], vec![], 0);
            check(code, vec![], vec![a(60)], 0);
        }
        check(ResponseCode::NXDomain, vec![a(5)], vec![soa(60, 60)], 5);
    }

    #[test]
    fn a_failure_is_kept_for_a_moment() {
        check(ResponseCode::ServFail, vec![], vec![soa(60, 60)], 1);
        check(ResponseCode::Refused, vec![], vec![], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_good_for_those_who_waited_even_if_it_may_not_be_kept() {
        let asked = Instant::now();
        let received = asked + Duration::from_millis(3);
        let stored = Stored::new(
            message(ResponseCode::NoError, vec![a(0)], vec![]),
            40,
            received,
        );
        assert!(stored.answers(asked, received));
        let later = received + Duration::from_millis(1);
        assert!(!stored.answers(later, later));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_with_its_time_to_live() {
        let received = Instant::now();
        let stored = Stored::new(
            message(ResponseCode::NoError, vec![a(30)], vec![]),
            40,
            received,
        );
        let at = |seconds| received + Duration::from_secs(seconds);
        assert!(stored.answers(at(29), at(29)));
        assert!(!stored.answers(at(30), at(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_handed_out_as_old_as_they_are() {
        let received = Instant::now();
        let stored = Stored::new(
            message(ResponseCode::NoError, vec![a(30), a(5)], vec![soa(60, 60)]),
            40,
            received,
        );
        let mut asked = Message::query();
        asked.add_query(Query::query(Name::root(), RecordType::A));
        let Packet::Request(request) = Packet::read(&asked.to_vec().unwrap()) else {
            panic!("not a request");
        };
        let reply = stored.reply(&request, received + Duration::from_millis(10_500));
        let ttls: Vec<u32> = reply
            .message
            .all_sections()
            .map(|record| record.ttl)
            .collect();
        assert_eq!(ttls, [20, 0, 50]);
        assert_eq!(reply.message.metadata.id, asked.metadata.id);
    }
}
