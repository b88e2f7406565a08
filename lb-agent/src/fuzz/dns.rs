//! What is sent to the resolver: by those who ask it, and by those whom it asks.

use std::{net::Ipv4Addr, sync::LazyLock, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::Record,
};

use crate::{
    dns::{
        fuzz::{self, Outcome, Written},
        names::Names,
    },
    options::{Options, Proto},
    snapshot::{Service, ServiceName, Snapshot},
    vip::{Pool6, Pools},
};

/// The first byte says who asks and what is known, the rest is the packet.
pub fn dns_question(data: &[u8]) {
    let Some((&world, packet)) = data.split_first() else {
        return;
    };
    let (allowed, consul, known) = (world & 1 == 0, world & 2 != 0, world & 4 == 0);
    let names = if known { &NAMES[0] } else { &NAMES[1] };
    match fuzz::decide(packet, allowed, names, consul) {
        // Too short for a head, or an answer itself.
        Outcome::Ignored => assert!(packet.len() < 12 || packet[2] & 0x80 != 0),
        Outcome::Answered(written) => {
            let answer = answers(&written, packet);
            if !allowed {
                assert_ne!(answer.metadata.response_code, ResponseCode::NoError);
                assert_eq!(answer.all_sections().count(), 0, "a stranger learns of it");
            }
            // Before the sources have answered nobody is told that there is no such name.
            let denied = answer.metadata.response_code == ResponseCode::NXDomain;
            assert!(known || !denied || !answer.authorities.is_empty());
        }
        Outcome::Forwarded(question, nobody) => {
            assert!(allowed);
            answers(&nobody, packet);
            let Ok(Ok(read)) = question.to_vec().map(|it| Message::from_vec(&it)) else {
                panic!("a question that cannot be written: {question}");
            };
            assert_eq!(read.queries, question.queries);
            assert!(read.metadata.recursion_desired);
        }
    }
}

/// What another server says to the question that it says it answers.
pub fn dns_answer(data: &[u8]) {
    let Some((&kind, answer)) = data.split_first() else {
        return;
    };
    let Ok(said) = Message::from_vec(answer) else {
        return;
    };
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(said.queries.first().cloned().unwrap_or_else(Query::new));
    if kind & 1 != 0 {
        question.set_edns(hickory_proto::op::Edns::new());
    }
    let Ok(question) = question.to_vec() else {
        return;
    };
    let age = Duration::from_secs(u64::from(kind) * 64);
    let Some(told) = fuzz::told(&question, answer, age) else {
        return;
    };
    let ages = [0, u32::from(kind) * 64];
    for (written, age) in told.into_iter().zip(ages) {
        let answer = answers(&written, &question);
        assert_eq!(
            answer.metadata.response_code.low(),
            said.metadata.response_code.low()
        );
        // Nothing is lost, and nothing lives longer than it was said to.
        let told: Vec<_> = answer.all_sections().collect();
        let said: Vec<_> = said.all_sections().collect();
        assert_eq!(told.len(), said.len());
        for (told, said) in told.into_iter().zip(said) {
            assert_eq!(told.ttl, said.ttl.saturating_sub(age));
            assert!(is_same(told, said), "{told} for {said}");
        }
    }
}

fn is_same(one: &Record, other: &Record) -> bool {
    one.name == other.name && one.data == other.data && one.dns_class == other.dns_class
}

/// The answer as whoever sent `packet` reads it.
fn answers(written: &Written, packet: &[u8]) -> Message {
    let (Some(stream), Some(datagram)) = (&written.stream, &written.datagram) else {
        panic!("an answer that cannot be written");
    };
    let read = |bytes: &[u8]| match Message::from_vec(bytes) {
        Ok(message) => message,
        Err(error) => panic!("an answer that cannot be read: {error}: {bytes:x?}"),
    };
    let (whole, short) = (read(stream), read(datagram));
    for answer in [&whole, &short] {
        assert_eq!(answer.metadata.id.to_be_bytes(), packet[..2]);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        if let Ok(asked) = Message::from_vec(packet)
            && let [query] = &asked.queries[..]
            && let [again] = &answer.queries[..]
        {
            assert!(again == query && again.name().eq_case(query.name()));
            assert_eq!(answer.metadata.op_code, asked.metadata.op_code);
        }
    }
    assert!(datagram.len() <= 1232, "{}", datagram.len());
    // Whoever is told less is told so.
    let is_cut = datagram.len() < stream.len();
    assert_eq!(
        is_cut,
        short.metadata.truncation && !whole.metadata.truncation
    );
    whole
}

/// The names of some services, and those before a source has answered.
static NAMES: LazyLock<[Names; 2]> = LazyLock::new(|| {
    let pools = Pools {
        v6: Some(Pool6::default()),
        ..Pools::default()
    };
    let service = |last: Option<u8>, proto| {
        std::sync::Arc::new(Service {
            vip: last.map(|last| Ipv4Addr::new(198, 18, 7, last)),
            options: Options {
                ports: [80, 8080].into(),
                proto,
                ..Options::default()
            },
            aliases: Default::default(),
            backends: Default::default(),
        })
    };
    let snapshot = Snapshot {
        answered: true,
        complete: true,
        services: [
            (
                ServiceName::whole("www_hello"),
                service(Some(7), Proto::Tcp),
            ),
            (
                ServiceName::part("www", "hello"),
                service(Some(8), Proto::Tcp),
            ),
            (ServiceName::whole("dns"), service(Some(9), Proto::Udp)),
            (ServiceName::whole("full"), service(None, Proto::Tcp)),
        ]
        .into(),
        ..Snapshot::default()
    };
    let domains = ["localhost".to_owned(), "apps.example".to_owned()];
    [
        Names::new(&snapshot, pools, &domains),
        Names::unknown(pools, &domains),
    ]
});
