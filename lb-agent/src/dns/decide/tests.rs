use std::net::Ipv4Addr;

use hickory_proto::{
    op::{DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, MessageType, OpCode, Query},
    rr::{
        DNSClass, RData, Record,
        rdata::{A, AAAA, PTR, SRV, TXT},
    },
};
use proptest::prelude::*;

use super::{super::message::DATAGRAM_BYTES, *};
use crate::{
    options::{Options, Proto},
    snapshot::{Service, ServiceName, Snapshot},
    vip::Pools,
};

const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 7);

fn pools() -> Pools {
    Pools {
        v6: Some(crate::vip::Pool6::default()),
        ..Pools::default()
    }
}

fn names() -> Names {
    let service = |vip| {
        std::sync::Arc::new(Service {
            vip,
            options: Options {
                ports: [80, 8080].into(),
                ..Options::default()
            },
            aliases: Default::default(),
            backends: Default::default(),
        })
    };
    let udp = |proto| {
        let mut service = Service::clone(&service(Some(Ipv4Addr::new(198, 18, 7, 70))));
        service.options.proto = proto;
        service.options.udp_by_tag = proto == Proto::Tcp;
        std::sync::Arc::new(service)
    };
    let snapshot = Snapshot {
        answered: true,
        complete: true,
        services: [
            (ServiceName::whole("www_hello"), service(Some(VIP))),
            (ServiceName::whole("full"), service(None)),
            (ServiceName::whole("udp_only"), udp(Proto::Udp)),
            (ServiceName::whole("both"), udp(Proto::Tcp)),
        ]
        .into(),
        ..Snapshot::default()
    };
    Names::new(&snapshot, pools(), &["localhost".to_owned()])
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

#[track_caller]
fn answered(message: &Message) -> Message {
    reply(&message.to_vec().unwrap(), true).message
}

#[track_caller]
fn reply(packet: &[u8], allowed: bool) -> Reply {
    match decide(packet, allowed, &names(), false) {
        Decision::Answer(reply) => reply,
        other => panic!("not answered: {other:?}"),
    }
}

#[track_caller]
fn check_code(message: &Message, code: ResponseCode) {
    let answer = answered(message);
    assert_eq!(answer.metadata.response_code, code);
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
}

#[test]
fn a_service_is_answered_with_its_vip_in_the_spelling_of_the_question() {
    let asked = question("WWW.Hello.", RecordType::A);
    let answer = answered(&asked);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert!(answer.queries[0].name().eq_case(asked.queries[0].name()));
    let [record] = &answer.answers[..] else {
        panic!("{answer}")
    };
    assert_eq!((record.ttl, &record.data), (5, &RData::A(A(VIP))));
}

#[test]
fn other_types_of_a_known_name_are_no_data_and_not_an_unknown_name() {
    for kind in [RecordType::TXT, RecordType::HTTPS, RecordType::MX] {
        let answer = answered(&question("www_hello.", kind));
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
        let [soa] = &answer.authorities[..] else {
            panic!("{answer}")
        };
        let RData::SOA(data) = &soa.data else {
            panic!("{soa}")
        };
        assert_eq!((soa.ttl, data.minimum), (5, 5));
        assert_eq!(soa.name, Name::from_ascii("www_hello.").unwrap());
    }
    let any = answered(&question("www_hello.", RecordType::ANY));
    assert_eq!(any.answers[0].data, RData::A(A(VIP)));
}

#[test]
fn a_service_has_a_twin_address_in_the_other_family() {
    let answer = answered(&question("www.hello.", RecordType::AAAA));
    let twin = "fd62:6c62:76:1::707".parse().unwrap();
    assert_eq!(answer.answers[0].data, RData::AAAA(AAAA(twin)));
}

#[test]
fn a_services_ports_come_with_its_addresses() {
    for (name, target) in [
        ("www_hello.", "www_hello."),
        ("www.hello.virtual.consul.", "www.hello.virtual.consul."),
        ("_http._tcp.www.hello.", "www.hello."),
        (
            "_www_hello._tcp.virtual.consul.",
            "www_hello.virtual.consul.",
        ),
        ("_www_hello._TCP.localhost.", "www_hello.virtual.consul."),
    ] {
        let answer = answered(&question(name, RecordType::SRV));
        let target = Name::from_ascii(target).unwrap();
        let told = |port| RData::SRV(SRV::new(1, 1, port, target.clone()));
        let data: Vec<_> = answer.answers.iter().map(|it| it.data.clone()).collect();
        assert_eq!(data, [told(80), told(8080)], "{name}");
        assert!(answer.additionals.iter().all(|it| it.name == target));
        let more: Vec<_> = answer.additionals.iter().map(Record::record_type).collect();
        assert_eq!(more, [RecordType::A, RecordType::AAAA]);
    }
    for (name, kind) in [
        ("_http._udp.www.hello.", RecordType::SRV),
        ("_dns._tcp.udp.only.", RecordType::SRV),
        ("_http._tcp.www.hello.", RecordType::A),
    ] {
        let answer = answered(&question(name, kind));
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers.len(), 0, "{name}");
    }
    for name in [
        "_dns._udp.udp.only.",
        "udp_only.",
        "_dns._udp.both.",
        "_dns._tcp.both.",
    ] {
        let answer = answered(&question(name, RecordType::SRV));
        assert_eq!(answer.answers.len(), 2, "{name}");
    }
    let full = question("_http._tcp.full.", RecordType::SRV);
    check_code(&full, ResponseCode::ServFail);
}

#[test]
fn an_address_of_a_pool_has_the_name_of_its_service() {
    let twin = "7.0.7.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.6.7.0.0.2.6.c.6.2.6.d.f.ip6.arpa.";
    for name in ["7.7.18.198.in-addr.arpa.", twin] {
        let answer = answered(&question(name, RecordType::PTR));
        let service = Name::from_ascii("www_hello.").unwrap();
        assert_eq!(answer.answers[0].data, RData::PTR(PTR(service)), "{name}");
        let other = answered(&question(name, RecordType::TXT));
        assert_eq!(other.metadata.response_code, ResponseCode::NoError);
        assert_eq!((other.answers.len(), other.authorities.len()), (0, 1));
    }
    let nobodys = question("8.7.18.198.in-addr.arpa.", RecordType::PTR);
    let answer = answered(&nobodys);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    let zone = Name::from_ascii("18.198.in-addr.arpa.").unwrap();
    assert_eq!(answer.authorities[0].name, zone);
    let packet = nobodys.to_vec().unwrap();
    let unknown = Names::unknown(pools(), &[]);
    let Decision::Answer(reply) = decide(&packet, true, &unknown, false) else {
        panic!("not answered");
    };
    assert_eq!(reply.message.metadata.response_code, ResponseCode::ServFail);
    let foreign = question("1.2.0.192.in-addr.arpa.", RecordType::PTR).to_vec();
    let decision = decide(&foreign.unwrap(), true, &names(), false);
    assert!(matches!(decision, Decision::Forward(_, Via::Upstreams)));
}

#[test]
fn what_a_c_library_appends_does_not_hide_a_service() {
    let answer = answered(&question("www.hello.localdomain.", RecordType::A));
    assert_eq!(answer.answers[0].data, RData::A(A(VIP)));
    // A network may have others there.
    for name in ["printer.localdomain.", "localdomain."] {
        let packet = question(name, RecordType::A).to_vec().unwrap();
        let decision = decide(&packet, true, &names(), false);
        assert!(
            matches!(decision, Decision::Forward(_, Via::Upstreams)),
            "{name}"
        );
    }
}

#[test]
fn a_service_without_a_vip_is_a_server_failure() {
    check_code(&question("full.", RecordType::A), ResponseCode::ServFail);
}

#[test]
fn names_under_consul_do_not_exist_without_consul() {
    let asked = question("x.service.consul.", RecordType::A);
    let answer = answered(&asked);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(
        answer.authorities[0].name,
        Name::from_ascii("consul.").unwrap()
    );
    let packet = asked.to_vec().unwrap();
    assert!(matches!(
        decide(&packet, true, &names(), true),
        Decision::Forward(_, Via::Consul)
    ));
    let unknown = Names::unknown(pools(), &[]);
    let Decision::Answer(reply) = decide(&packet, true, &unknown, false) else {
        panic!("not answered");
    };
    assert_eq!(reply.message.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn the_rest_is_forwarded_if_the_asker_wants_recursion() {
    let mut asked = question("example.com.", RecordType::A);
    let decision = decide(&asked.to_vec().unwrap(), true, &names(), false);
    assert!(matches!(decision, Decision::Forward(_, Via::Upstreams)));
    asked.metadata.recursion_desired = false;
    check_code(&asked, ResponseCode::Refused);
}

#[test]
fn a_label_with_a_dot_in_it_is_not_two_labels() {
    let mut asked = question("x.", RecordType::A);
    let label: &[u8] = b"www.hello";
    let name = Name::from_labels([label]).unwrap();
    asked.queries[0].set_name(name);
    let decision = decide(&asked.to_vec().unwrap(), true, &names(), false);
    assert!(matches!(decision, Decision::Forward(_, Via::Upstreams)));
}

#[test]
fn a_stranger_is_refused_whatever_it_asks() {
    for name in ["www_hello.", "example.com."] {
        let packet = question(name, RecordType::A).to_vec().unwrap();
        let answer = reply(&packet, false).message;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        assert!(answer.answers.is_empty());
    }
}

#[test]
fn what_is_no_request_is_not_answered() {
    let mut answer = question("www_hello.", RecordType::A);
    answer.metadata.message_type = MessageType::Response;
    let packet = answer.to_vec().unwrap();
    assert!(matches!(
        decide(&packet, true, &names(), false),
        Decision::Ignore
    ));
    for length in 0..12 {
        let decision = decide(&packet[..length], true, &names(), false);
        assert!(matches!(decision, Decision::Ignore));
    }
}

#[test]
fn a_malformed_request_is_told_so_with_its_id() {
    let asked = question("www_hello.", RecordType::A);
    let packet = asked.to_vec().unwrap();
    for length in 12..packet.len() {
        let answer = reply(&packet[..length], true).message;
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(answer.metadata.id, asked.metadata.id);
    }
    let mut two = asked.clone();
    two.add_query(asked.queries[0].clone());
    check_code(&two, ResponseCode::FormErr);
    let mut none = asked.clone();
    none.queries.clear();
    check_code(&none, ResponseCode::FormErr);
    // 65,535 questions announced, none there.
    let mut many = packet[..12].to_vec();
    many[4..6].fill(0xff);
    assert_eq!(
        reply(&many, true).message.metadata.response_code,
        ResponseCode::FormErr
    );
}

#[test]
fn other_operations_classes_and_versions_are_turned_down() {
    let asked = question("www_hello.", RecordType::A);
    let mut status = asked.clone();
    status.metadata.op_code = OpCode::Status;
    check_code(&status, ResponseCode::NotImp);
    let mut chaos = asked.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    check_code(&chaos, ResponseCode::Refused);
    check_code(
        &question("www_hello.", RecordType::AXFR),
        ResponseCode::Refused,
    );
    let mut version = asked.clone();
    version.edns = Some(Edns::new());
    version.edns.as_mut().unwrap().set_version(1);
    let answer = answered(&version);
    assert_eq!(answer.metadata.response_code, ResponseCode::BADVERS);
    // The code, 16, has its upper bits in the OPT record; as a TSIG error it has another name.
    let wire = Message::from_vec(&answer.to_vec().unwrap()).unwrap();
    assert_eq!(u16::from(wire.metadata.response_code), 16);
}

#[test]
fn edns_is_answered_with_edns_and_its_size_is_honoured() {
    let with_size = |bytes: Option<u16>| {
        let mut asked = question("www_hello.", RecordType::TXT);
        asked.edns = bytes.map(|bytes| {
            let mut edns = Edns::new();
            edns.set_max_payload(bytes).set_dnssec_ok(true);
            edns
        });
        let mut reply = reply(&asked.to_vec().unwrap(), true);
        assert_eq!(reply.message.edns.is_some(), bytes.is_some());
        let text = RData::TXT(TXT::new(vec!["x".repeat(200); 5]));
        let record = Record::from_rdata(asked.queries[0].name().clone(), 5, text);
        reply.message.add_answer(record);
        Message::from_vec(&reply.datagram().unwrap()).unwrap()
    };
    for (size, fits) in [
        (None, false),
        (Some(0), false),
        (Some(1000), false),
        (Some(DEFAULT_MAX_PAYLOAD_LEN), true),
        (Some(u16::MAX), true),
    ] {
        let answer = with_size(size);
        assert_eq!(answer.metadata.truncation, !fits, "{size:?}");
        assert_eq!(answer.answers.is_empty(), !fits, "{size:?}");
        assert_eq!(
            answer.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
            size.map(|_| true)
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decided_without_a_panic(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        survives(&packet)?;
    }

    #[test]
    fn any_damage_to_a_request_is_decided_without_a_panic(
        damage in prop::collection::vec((0usize..80, any::<u8>()), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut asked = question("www.hello.127-0-0-1.nip.io.", RecordType::A);
        asked.edns = Some(Edns::new());
        let mut packet = asked.to_vec().unwrap();
        for (at, byte) in damage {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        packet.extend(tail);
        survives(&packet)?;
    }
}

/// An answer, if there is one, can be written, fits, has the id, and is no request.
fn survives(packet: &[u8]) -> Result<(), TestCaseError> {
    if let Decision::Answer(reply) = decide(packet, true, &names(), false) {
        let datagram = reply.datagram().unwrap();
        prop_assert!(datagram.len() <= usize::from(DATAGRAM_BYTES));
        prop_assert_eq!(&datagram[..2], &packet[..2]);
        prop_assert!(datagram[2] & 0x80 != 0);
    }
    Ok(())
}
