//! What is done for each question, to count its instructions.

use std::{hint::black_box, net::Ipv4Addr, sync::Arc};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use lb_testkit::hot_path;

use super::{
    decide::{Decision, decide},
    names::Names,
};
use crate::{
    options::Options,
    snapshot::{Service, ServiceName, Snapshot},
    vip::Pools,
};

#[test]
fn hot_path_of_a_question() {
    let service = Arc::new(Service {
        vip: Some(Ipv4Addr::new(198, 18, 7, 7)),
        options: Options::default(),
        aliases: Default::default(),
        backends: Default::default(),
    });
    let snapshot = Snapshot {
        answered: true,
        complete: true,
        services: (0..1000)
            .map(|number| {
                let name = ServiceName::whole(format!("service_{number}"));
                (name, service.clone())
            })
            .collect(),
        ..Snapshot::default()
    };
    let names = Names::new(&snapshot, Pools::default(), &["localhost".to_owned()]);
    let mut message = Message::query();
    let name = Name::from_ascii("service.77.").unwrap();
    message.add_query(Query::query(name, RecordType::A));
    let packet = message.to_vec().unwrap();
    let answer = decide(&packet, true, &names, false);
    let Decision::Answer(reply) = answer else {
        panic!("not answered: {answer:?}")
    };
    assert_eq!(reply.message.answers.len(), 1, "{}", reply.message);
    hot_path(|| decide(black_box(&packet), true, &names, false));
}
