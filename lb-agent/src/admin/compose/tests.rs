use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::{
    admin::{
        report::{Ejection, Flows, Http, ServiceState},
        sample,
    },
    order::{Mode, Order},
    snapshot::{ServiceName, State},
};

#[test]
fn what_is_not_known_is_null_and_not_empty() {
    let report = compose(sample::material(None, None));
    assert_eq!(report.services, None);
    assert_eq!(report.data_plane, None);
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["services"].is_null());
}

#[test]
fn what_the_front_did_and_what_is_asked_for_are_told() {
    let (mut snapshot, front) = (sample::snapshot(), sample::front());
    let name = ServiceName::whole("www");
    let www = snapshot.services.get_mut(&name).unwrap();
    let www = Arc::make_mut(www);
    www.options.drain = Duration::from_secs(90);
    // What proves to instances that it is the front who asks is for them alone.
    let proof = ("authorization".to_owned(), Some("Bearer secret".to_owned()));
    let gone = ("cookie".to_owned(), None);
    www.options.front = Some(Arc::new(lb_front::rules::Rules {
        request_headers: [proof, gone].into(),
        ..lb_front::rules::Rules::default()
    }));
    let mut material = sample::material(Some(&snapshot), None);
    material.front = Some(&front);
    let services = compose(material).services.unwrap();
    let www = services.iter().find(|it| it.name == "www").unwrap();
    let (requests, errors) = (200, 1);
    assert_eq!(www.http, Some(Http { requests, errors }));
    let options = Value::Object(www.options.clone());
    let headers = serde_json::json!({ "authorization": "***", "cookie": null });
    assert_eq!(options["drain"], 90);
    assert_eq!(options["front"]["request_headers"], headers);
    assert_eq!(options.as_object().unwrap().len(), 2);
    let hello = services.iter().find(|it| it.name == "www_hello").unwrap();
    assert_eq!(hello.http, Some(Http::default()));
    assert!(hello.options.is_empty(), "{:?}", hello.options);
}

#[test]
fn a_silent_data_plane_leaves_the_counts_unknown() {
    let snapshot = sample::snapshot();
    let report = compose(sample::material(Some(&snapshot), None));
    let service = &report.services.unwrap()[0];
    assert_eq!(service.flows, None);
    assert_eq!(service.backends[0].active, None);
    assert_eq!(service.backends[0].suspect, None);
}

#[test]
fn a_data_plane_that_answers_has_counted_zero_for_a_service_it_does_not_name() {
    let snapshot = sample::snapshot();
    let stats = Stats::default();
    let report = compose(sample::material(Some(&snapshot), Some(&stats)));
    let service = &report.services.unwrap()[0];
    assert_eq!(service.flows, Some(Flows::default()));
    assert_eq!(service.backends[0].active, Some(0));
}

#[test]
fn a_backend_that_left_is_listed_with_its_open_flows() {
    let snapshot = sample::snapshot();
    let stats = sample::stats();
    let report = compose(sample::material(Some(&snapshot), Some(&stats)));
    let services = report.services.unwrap();
    let service = services.iter().find(|s| s.name == "www_hello").unwrap();
    assert_eq!(&*service.leaving[0].key.id, "gone");
    assert_eq!(service.leaving[0].active, 2);
}

#[test]
fn what_an_operator_ordered_is_told_with_the_end_of_the_flows() {
    let mut snapshot = sample::snapshot();
    let name = ServiceName::whole("www_hello");
    let hello = Arc::make_mut(snapshot.services.get_mut(&name).unwrap());
    let key = sample::key("file", "a");
    let backend = hello.backends.get_mut(&key).unwrap();
    backend.order = Order::new(Mode::Maintenance, None, sample::now());
    let at = sample::now() + Duration::from_secs(27);
    let removal = removal::Status {
        cuts: [(Whose::Instance(name, key.clone()), at)].into(),
        sight: None,
    };
    let material = Material {
        removal: &removal,
        ..sample::material(Some(&snapshot), None)
    };
    let services = compose(material).services.unwrap();
    let hello = services.iter().find(|it| it.name == "www_hello").unwrap();
    let told = hello.backends.iter();
    let told: Vec<_> = told.map(|it| (it.state, it.mode, it.cut_unix)).collect();
    let expect = [
        (State::Maintenance, Mode::Maintenance, Some(unix(at))),
        (State::L4Down, Mode::Ready, None),
        (State::Draining, Mode::Drain, None),
    ];
    assert_eq!(told, expect);
}

#[test]
fn whose_flows_will_be_cut_is_told_by_instance_or_by_address() {
    let (snapshot, stats) = (sample::snapshot(), sample::stats());
    let www = ServiceName::whole("www_hello");
    let key = sample::key("file", "gone");
    let [vip, nobodys] = [7, 99].map(|last| Target {
        vip: [198, 18, 12, last].into(),
        address: ([10, 0, 0, 9], 80).into(),
    });
    let cuts = [
        Whose::Instance(www.clone(), key.clone()),
        Whose::Address(Some(www), vip),
        Whose::Address(None, nobodys),
    ];
    let removal = removal::Status {
        cuts: cuts.map(|whose| (whose, sample::now())).into(),
        sight: None,
    };
    let material = Material {
        removal: &removal,
        ..sample::material(Some(&snapshot), Some(&stats))
    };
    let report = compose(material);
    let told = report.cuts.iter();
    let told: Vec<_> = told
        .map(|it| (it.service.as_str(), it.key.clone(), it.address, it.active))
        .collect();
    let at = Some(vip.address);
    assert_eq!(
        told,
        [
            ("www_hello", Some(key), None, Some(2)),
            ("198.18.12.99", None, at, None),
            ("www_hello", None, at, None),
        ]
    );
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn what_the_front_says_is_told_by_address_and_an_ejection_by_service() {
    let (snapshot, front) = (sample::snapshot(), sample::front());
    let material = Material {
        front: Some(&front),
        ..sample::material(Some(&snapshot), None)
    };
    let services = compose(material).services.unwrap();
    let told = services.iter().flat_map(|service| {
        let backends = service.backends.iter();
        backends.filter_map(|it| Some((service.name.as_str(), it.front.as_ref()?)))
    });
    let told: Vec<_> = told
        .map(|(name, it)| (name, it.failures, it.retries, it.ejected.is_some()))
        .collect();
    // Two services share one instance, and each judges it for itself.
    let expect = [
        ("www", 9, 4, true),
        ("www.world.dev", 9, 4, false),
        ("www_hello", 0, 2, false),
    ];
    assert_eq!(told, expect);
    let ejected = services[1].backends[0].front.clone().unwrap().ejected;
    let expect = Ejection {
        workers: 2,
        until_unix: unix(sample::now()) + 25,
        why: "connect_refused".to_owned(),
    };
    assert_eq!(ejected, Some(expect));
}

#[test]
fn a_service_is_judged_by_the_backends_that_should_serve() {
    let snapshot = sample::snapshot();
    let report = compose(sample::material(Some(&snapshot), None));
    let states: Vec<_> = report
        .services
        .unwrap()
        .into_iter()
        .map(|service| (service.name, service.state))
        .collect();
    let expect = |name: &str, state| (name.to_owned(), state);
    assert_eq!(
        states,
        [
            expect("db", ServiceState::Refused),
            expect("www", ServiceState::Ok),
            expect("www.world.dev", ServiceState::Ok),
            expect("www_hello", ServiceState::Degraded),
        ]
    );
}

#[test]
fn the_report_survives_its_own_json() {
    let snapshot = sample::snapshot();
    let stats = sample::stats();
    let report = compose(sample::material(Some(&snapshot), Some(&stats)));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn a_clock_before_1970_and_an_age_from_the_future_are_zero() {
    let before = UNIX_EPOCH - Duration::from_secs(9);
    assert_eq!(unix(before), 0);
    assert_eq!(age(10, 20), Duration::ZERO);
}
