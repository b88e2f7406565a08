//! The rules of names, one test each.

use proptest::prelude::*;

use super::*;
use crate::{options::Options, snapshot::Snapshot};

const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const ONE: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 2);

fn service(vip: Option<Ipv4Addr>, aliases: &[&str]) -> Service {
    Service {
        vip,
        options: Options::default(),
        aliases: aliases.iter().map(ToString::to_string).collect(),
        backends: Default::default(),
    }
}

fn names(services: Vec<(ServiceName, Service)>) -> Names {
    let snapshot = Snapshot {
        answered: true,
        complete: true,
        services: services
            .into_iter()
            .map(|(name, it)| (name, it.into()))
            .collect(),
        ..Snapshot::default()
    };
    let domains = ["localhost", "127.0.0.1.xip.io", "Example.COM."].map(String::from);
    Names::new(&snapshot, Pools::default(), &domains)
}

fn whole(name: &str, vip: Ipv4Addr) -> (ServiceName, Service) {
    (ServiceName::whole(name), service(Some(vip), &[]))
}

#[track_caller]
fn check(names: &Names, expect: &[(&str, Found)]) {
    for (name, found) in expect {
        assert_eq!(names.lookup(name), *found, "{name}");
    }
}

#[test]
fn a_service_answers_to_its_name_with_underscores_or_dots() {
    let names = names(vec![whole("www_Hello", ONE), whole("v1.2-app", TWO)]);
    check(
        &names,
        &[
            ("www_hello", Found::v4(ONE)),
            ("www.hello", Found::v4(ONE)),
            ("v1.2-app", Found::v4(TWO)),
            ("hello", Found::Elsewhere),
            ("www-hello", Found::Elsewhere),
            ("x.www.hello", Found::Elsewhere),
            ("", Found::Elsewhere),
        ],
    );
}

#[test]
fn a_service_answers_under_virtual_consul() {
    let names = names(vec![whole("www_hello", ONE)]);
    check(
        &names,
        &[
            ("www_hello.virtual.consul", Found::v4(ONE)),
            ("www.hello.virtual.consul", Found::v4(ONE)),
            ("other.virtual.consul", Found::Consul),
            ("virtual.consul", Found::Consul),
            ("www_hello.service.consul", Found::Consul),
            ("notconsul", Found::Elsewhere),
            // A route of the front is no service of Consul.
            ("www.hello.example.com.virtual.consul", Found::Consul),
        ],
    );
}

#[test]
fn a_tagged_part_has_its_own_address() {
    let names = names(vec![
        whole("www", ONE),
        (
            ServiceName::part("www", "world.dev"),
            service(Some(TWO), &[]),
        ),
    ]);
    check(
        &names,
        &[
            ("www", Found::v4(ONE)),
            ("www.world.dev", Found::v4(TWO)),
            ("www.world.dev.example.com", Found::v4(OWN)),
        ],
    );
}

#[test]
fn an_alias_answers_the_vip_unless_it_names_the_host() {
    let aliases = [
        "Shop.Test.",
        "hello.example.com",
        "hello.home.127.0.0.1.nip.io",
    ];
    let names = names(vec![(
        ServiceName::whole("shop"),
        service(Some(ONE), &aliases),
    )]);
    check(
        &names,
        &[
            ("shop.test", Found::v4(ONE)),
            ("hello.example.com", Found::v4(OWN)),
            ("hello.home.127.0.0.1.nip.io", Found::v4(OWN)),
        ],
    );
}

#[test]
fn a_route_under_a_domain_means_the_host() {
    let names = names(vec![whole("www_hello", ONE)]);
    check(
        &names,
        &[
            ("www.hello.localhost", Found::v4(OWN)),
            ("anything.localhost", Found::v4(OWN)),
            ("www.hello.127.0.0.1.xip.io", Found::v4(OWN)),
            ("www.hello.127-0-0-1.nip.io", Found::v4(OWN)),
            ("www.hello.--1.nip.io", Found::v4(OWN)),
            ("www.hello.example.com", Found::v4(OWN)),
            // Others may well serve the rest of a real domain.
            ("mail.example.com", Found::Elsewhere),
            ("example.com", Found::Elsewhere),
        ],
    );
}

#[test]
fn localhost_is_the_asker_itself() {
    let both = Found::Addresses {
        v4: Some(Ipv4Addr::LOCALHOST),
        v6: Some(Ipv6Addr::LOCALHOST),
    };
    check(&names(vec![]), &[("localhost", both)]);
    let without_domains = Names::new(&Snapshot::default(), Pools::default(), &[]);
    check(
        &without_domains,
        &[("localhost", both), ("x.localhost", both)],
    );
}

#[test]
fn a_carried_address_is_the_answer() {
    let v4 = Found::v4(Ipv4Addr::new(10, 0, 0, 5));
    let v6 = Found::Addresses {
        v4: None,
        v6: Some("2a01:4f8::2".parse().unwrap()),
    };
    check(
        &names(vec![]),
        &[("app-10-0-0-5.sslip.io", v4), ("2a01-4f8--2.sslip.io", v6)],
    );
}

#[test]
fn a_service_without_a_vip_is_known_all_the_same() {
    let names = names(vec![(ServiceName::whole("full"), service(None, &[]))]);
    check(
        &names,
        &[
            ("full", Found::WithoutVip),
            ("full.virtual.consul", Found::WithoutVip),
            ("full.localhost", Found::v4(OWN)),
        ],
    );
}

#[test]
fn nothing_is_denied_before_every_source_has_answered() {
    let names = Names::unknown(
        Pools::default(),
        &["localhost".to_owned(), "example.com".to_owned()],
    );
    check(
        &names,
        &[
            ("www_hello", Found::NotYet),
            ("www_hello.virtual.consul", Found::NotYet),
            ("www.hello.example.com", Found::NotYet),
            ("www.hello.localhost", Found::v4(OWN)),
            ("127.0.0.1.nip.io", Found::v4(OWN)),
            ("consul.service.consul", Found::Consul),
            ("www.example.org", Found::Elsewhere),
            ("", Found::Elsewhere),
        ],
    );
    assert!(!names.answered());
}

#[test]
fn the_first_service_wins_a_collision_and_it_is_reported() {
    let names = names(vec![
        whole("www_hello", ONE),
        whole("www.hello", TWO),
        (ServiceName::part("www", "hello"), service(Some(OWN), &[])),
    ]);
    check(
        &names,
        &[("www.hello", Found::v4(TWO)), ("www_hello", Found::v4(ONE))],
    );
    let subjects: Vec<&str> = names
        .problems()
        .iter()
        .map(|p| p.subject.as_str())
        .collect();
    assert_eq!(subjects, ["name www.hello", "name www.hello"]);
}

#[test]
fn an_alias_cannot_take_the_name_of_another_service() {
    let names = names(vec![
        (ServiceName::whole("a"), service(Some(ONE), &["web"])),
        whole("web", TWO),
    ]);
    check(&names, &[("web", Found::v4(TWO)), ("a", Found::v4(ONE))]);
    assert_eq!(names.problems().len(), 1);
}

#[test]
fn who_has_but_some_paths_of_a_name_leaves_it_to_whoever_has_all_of_it() {
    let mut api = service(Some(ONE), &["www.example", "alone.example", "www"]);
    api.options.front = Some(Arc::new(lb_front::rules::Rules {
        path: Some("/api".to_owned()),
        ..Default::default()
    }));
    let names = names(vec![
        (ServiceName::whole("api"), api),
        (
            ServiceName::whole("www"),
            service(Some(TWO), &["www.example"]),
        ),
    ]);
    check(
        &names,
        &[
            ("www.example", Found::v4(TWO)),
            ("www", Found::v4(TWO)),
            ("alone.example", Found::v4(ONE)),
            ("api", Found::v4(ONE)),
        ],
    );
    assert_eq!(names.problems(), []);
}

#[test]
fn a_service_named_like_an_address_is_reported() {
    assert_eq!(names(vec![whole("api-1-2-3-4", ONE)]).problems().len(), 1);
    assert_eq!(names(vec![whole("api_deadbeef", ONE)]).problems(), []);
    assert_eq!(names(vec![whole("www_hello", ONE)]).problems(), []);
}

#[test]
fn a_part_named_like_an_address_is_reported() {
    let part = ServiceName::part("www", "1.2.3.4");
    let problems = names(vec![(part, service(Some(ONE), &[]))]);
    assert_eq!(problems.problems()[0].subject, "service www.1.2.3.4");
    let version = ServiceName::part("www", "v1.2.3");
    assert_eq!(
        names(vec![(version, service(Some(ONE), &[]))]).problems(),
        []
    );
}

/// The worked examples of the demo: short names are VIPs, long ones the host.
#[test]
fn the_demo_s_own_names_are_answered() {
    let aliases = ["hello.world.127.0.0.1.nip.io", "hello.world.internal"];
    let names = names(vec![
        whole("www_hello", ONE),
        (
            ServiceName::whole("www_world_dev"),
            service(Some(TWO), &aliases),
        ),
        whole("serviceA.2a5bf183", ONE),
    ]);
    check(
        &names,
        &[
            ("www.hello", Found::v4(ONE)),
            ("www_hello", Found::v4(ONE)),
            ("www.world.dev", Found::v4(TWO)),
            ("hello.world.internal", Found::v4(TWO)),
            ("hello.world.127.0.0.1.nip.io", Found::v4(OWN)),
            ("www.hello.127.0.0.1.nip.io", Found::v4(OWN)),
            // Under another domain that means this host, too.
            ("www.world.dev.127.0.0.1.sslip.io", Found::v4(OWN)),
            ("www.hello.localhost", Found::v4(OWN)),
            // As everywhere: another machine's front.
            (
                "www.hello.10.0.0.7.nip.io",
                Found::v4(Ipv4Addr::new(10, 0, 0, 7)),
            ),
            // Consul's own resolver would refuse such a name.
            ("servicea.2a5bf183", Found::v4(ONE)),
            ("servicea.2a5bf183.127.0.0.1.nip.io", Found::v4(OWN)),
            ("servicea.2a5bf183.virtual.consul", Found::v4(ONE)),
        ],
    );
    assert_eq!(names.problems(), []);
}

proptest! {
    #[test]
    fn any_name_and_any_service_are_looked_up_without_a_panic(
        name in "\\PC{1,40}", asked in "\\PC{0,80}", alias in "\\PC{0,40}",
    ) {
        let names = names(vec![(
            ServiceName::whole(name.as_str()),
            service(Some(ONE), &[alias.as_str()]),
        )]);
        names.lookup(&asked);
        prop_assert_eq!(names.lookup(&name.to_ascii_lowercase()), Found::v4(ONE));
    }
}

#[test]
fn snapshots_that_differ_in_no_name_give_equal_names() {
    let before = names(vec![whole("www_hello", ONE)]);
    let (name, mut other) = whole("www_hello", ONE);
    other.options.expose = Some(false);
    assert_eq!(names(vec![(name, other)]), before);
    assert_ne!(names(vec![whole("www_hello", TWO)]), before);
}
