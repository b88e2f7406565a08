mod told;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    catalog::InstanceKey,
    options::{Local, Options, Rule},
    snapshot::{Backend, ProbeState, ServiceName},
    vip::Pool6,
};

fn backend(address: &str, tags: &[&str]) -> Backend {
    Backend {
        tags: Arc::new(tags.iter().map(ToString::to_string).collect()),
        ..Backend::usable(address.parse().unwrap())
    }
}

fn service(aliases: &[&str], backends: &[Backend]) -> Service {
    let keyed = backends.iter().enumerate().map(|(id, backend)| {
        let key = InstanceKey::new("n", id.to_string());
        (key, backend.clone())
    });
    Service {
        vip: None,
        options: Options::default(),
        aliases: aliases.iter().map(ToString::to_string).collect(),
        backends: keyed.collect(),
    }
}

fn whole(name: &str) -> (ServiceName, Service) {
    (
        ServiceName::whole(name),
        service(&[], &[backend("10.0.0.1:80", &[])]),
    )
}

fn snapshot(services: impl IntoIterator<Item = (ServiceName, Service)>) -> Snapshot {
    Snapshot {
        services: services
            .into_iter()
            .map(|(name, it)| (name, it.into()))
            .collect(),
        ..Snapshot::default()
    }
}

fn routes(services: impl IntoIterator<Item = (ServiceName, Service)>) -> (Routes, Vec<Problem>) {
    Routes::new(&snapshot(services), &RouteConfig::default())
}

#[track_caller]
fn check(routes: &Routes, host: &str, label: Option<&str>) {
    let found = routes.find(host).map(|service| &*service.label);
    assert_eq!(found, label, "{host}");
}

#[test]
fn a_whole_service_answers_to_its_dotted_name_alone_and_under_every_domain() {
    let (routes, problems) = routes([whole("www_hello")]);
    for host in [
        "www.hello",
        "www.hello.localhost",
        "www.hello.127.0.0.1.xip.io",
    ] {
        check(&routes, host, Some("www_hello"));
    }
    check(&routes, "www_hello", None);
    check(&routes, "hello", None);
    assert_eq!(problems, []);
}

#[test]
fn a_udp_service_has_no_route() {
    let (name, mut dns) = whole("dns");
    dns.options.proto = Proto::Udp;
    dns.options.expose = Some(true);
    let (routes, problems) = routes([(name, dns), whole("www")]);
    check(&routes, "dns", None);
    check(&routes, "www", Some("www"));
    assert_eq!(problems, []);
}

#[test]
fn the_front_knows_which_services_speak_http_2() {
    let speaking = |proto| {
        let (name, mut web) = whole("web");
        web.options.proto = proto;
        (name, web)
    };
    for (proto, h2c) in [
        (Proto::Tcp, false),
        (Proto::Http, false),
        (Proto::H2c, true),
    ] {
        let (routes, _) = routes([speaking(proto)]);
        assert_eq!(routes.find("web").unwrap().h2c, h2c, "{proto:?}");
    }
}

/// The worked examples of the demo, with both of its schemes under one domain list.
#[test]
fn the_demo_s_own_names_are_routed_as_it_documents() {
    let aliases = [
        "hello.world.127.0.0.1.nip.io",
        "hello.home.127.0.0.1.nip.io",
    ];
    let services = snapshot([
        whole("www_hello"),
        (ServiceName::whole("www_world_dev"), service(&aliases, &[])),
        whole("consul-admin_infra"),
        whole("proxy-admin_infra"),
    ]);
    let config = RouteConfig {
        domains: vec!["127.0.0.1.nip.io".to_owned(), "test".to_owned()],
        ..RouteConfig::default()
    };
    let (found, problems) = Routes::new(&services, &config);
    assert_eq!(problems, []);
    for (host, label) in [
        ("www.hello", Some("www_hello")),
        ("www.hello.127.0.0.1.nip.io", Some("www_hello")),
        ("www.hello.test", Some("www_hello")),
        ("www.world.dev", Some("www_world_dev")),
        ("www.world.dev.127.0.0.1.nip.io", Some("www_world_dev")),
        ("www.world.dev.test", Some("www_world_dev")),
        ("hello.world.127.0.0.1.nip.io", Some("www_world_dev")),
        ("hello.home.127.0.0.1.nip.io", Some("www_world_dev")),
        // An alias is complete: no domain is appended to it.
        ("hello.world.test", None),
        ("hello.world", None),
        ("consul-admin.infra.test", Some("consul-admin_infra")),
        (
            "proxy-admin.infra.127.0.0.1.nip.io",
            Some("proxy-admin_infra"),
        ),
        ("www.hello.dev", None),
        ("hello", None),
    ] {
        check(&found, host, label);
    }
    let hosts = found.hosts().filter(|(_, label)| *label == "www_world_dev");
    assert_eq!(hosts.count(), 5);

    // The first scheme: a service with tags, each of which makes a name and a backend of its own.
    let (found, problems) = Routes::new(
        &snapshot([
            whole("www"),
            (ServiceName::part("www", "hello"), service(&[], &[])),
            (ServiceName::part("www", "world.dev"), service(&[], &[])),
            (
                ServiceName::part("consul-admin", "infra"),
                service(&[], &[]),
            ),
        ]),
        &config,
    );
    assert_eq!(problems, []);
    for (host, label) in [
        ("www.hello.127.0.0.1.nip.io", Some("hello_www")),
        ("www.world.dev.127.0.0.1.nip.io", Some("world.dev_www")),
        ("www.world.dev", Some("world.dev_www")),
        ("consul-admin.infra.test", Some("infra_consul-admin")),
        ("www.test", Some("www")),
    ] {
        check(&found, host, label);
    }
}

#[test]
fn versions_of_a_service_stand_side_by_side() {
    let (routes, problems) = routes([
        whole("serviceA.main"),
        whole("serviceA.feature-x"),
        whole("serviceA.2a5bf183"),
        whole("shop_v1.2"),
    ]);
    assert_eq!(problems, []);
    for (host, label) in [
        ("servicea.main.localhost", "serviceA.main"),
        ("servicea.feature-x", "serviceA.feature-x"),
        ("servicea.2a5bf183.127.0.0.1.nip.io", "serviceA.2a5bf183"),
        ("servicea.2a5bf183.10-0-0-7.sslip.io", "serviceA.2a5bf183"),
        ("shop.v1.2.localhost", "shop_v1.2"),
    ] {
        check(&routes, host, Some(label));
    }
}

#[test]
fn an_alias_comes_before_a_part_and_the_first_service_before_both() {
    let part = |name: &str, tag: &str| (ServiceName::part(name, tag), service(&[], &[]));
    let alias = |name: &str| (ServiceName::whole(name), service(&["www.hello"], &[]));
    // A service of the second scheme, an alias of a later one, and a part of the first scheme.
    let (found, problems) = routes([part("www", "hello"), alias("zzz"), whole("www_hello")]);
    check(&found, "www.hello", Some("www_hello"));
    assert_eq!(problems.len(), 2, "{problems:?}");
    let (found, problems) = routes([part("www", "hello"), alias("zzz")]);
    check(&found, "www.hello", Some("zzz"));
    // What is not contested stays with the part.
    check(&found, "www.hello.localhost", Some("hello_www"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    let (found, _) = routes([alias("aaa"), whole("www_hello")]);
    check(&found, "www.hello", Some("aaa"));
    check(&found, "www.hello.localhost", Some("www_hello"));
    // Of two parts with one name, too.
    let (found, problems) = routes([part("a.b", "c"), part("a", "b.c")]);
    check(&found, "a.b.c", Some("b.c_a"));
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn an_alias_is_a_complete_name_in_any_case() {
    let hello = service(&["Hello.World.example"], &[]);
    let (routes, _) = routes([(ServiceName::whole("www_world_dev"), hello)]);
    check(&routes, "hello.world.example", Some("www_world_dev"));
    check(&routes, "hello.world.example.localhost", None);
}

#[test]
fn a_tagged_part_has_the_name_of_service_and_tag_and_its_own_label() {
    let (routes, _) = routes([(ServiceName::part("www", "world.dev"), service(&[], &[]))]);
    check(&routes, "www.world.dev", Some("world.dev_www"));
    check(
        &routes,
        "www.world.dev.127.0.0.1.nip.io",
        Some("world.dev_www"),
    );
}

#[test]
fn whole_services_come_before_parts_and_the_contest_is_reported_once() {
    let part = (ServiceName::part("www", "hello"), service(&[], &[]));
    let (routes, problems) = routes([part, whole("www_hello")]);
    check(&routes, "www.hello", Some("www_hello"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].subject, "service www.hello");
    assert!(
        problems[0].message.contains("www.hello.localhost"),
        "{problems:?}"
    );
}

#[test]
fn among_equals_the_alphabetically_first_service_keeps_the_name() {
    let claim = |name| (ServiceName::whole(name), service(&["shop.example"], &[]));
    let (routes, problems) = routes([claim("b"), claim("a")]);
    check(&routes, "shop.example", Some("a"));
    assert_eq!(problems.len(), 1);
}

#[test]
fn a_name_that_cannot_be_a_host_is_reported_and_the_rest_keeps_working() {
    let (routes, problems) = routes([whole("bad name"), whole("good")]);
    check(&routes, "good", Some("good"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].subject, "service bad name");
}

#[test]
fn any_address_under_a_known_suffix_is_ignored() {
    let (routes, _) = routes([whole("www_hello")]);
    for host in [
        "www.hello.10.1.2.3.nip.io",
        "www.hello.10-1-2-3.sslip.io",
        "www.hello-10-1-2-3.sslip.io",
        "www.hello-0a010203.nip.io",
        "www.hello-2a01-4f8-c17-b8f--2.sslip.io",
        "www.hello.20010db8000000000000000000000001.nip.io",
        "www.hello.0a010203.nip.io",
        "www.hello.--1.sslip.io",
        "www.hello.2a01-4f8-c17-b8f--2.sslip.io",
        "www.hello.127.0.0.1.traefik.me",
    ] {
        check(&routes, host, Some("www_hello"));
    }
    for host in [
        "www.hello.nip.io",
        "www.hello.10.1.2.nip.io",
        "www.hello.10.1.2.300.nip.io",
        "www.hello.10.1.2.3.example",
        "10.1.2.3.nip.io",
        "nip.io",
        ".nip.io",
        "",
    ] {
        check(&routes, host, None);
    }
}

#[test]
fn exposure_is_a_choice() {
    let stating = |name, expose| {
        let (name, mut service) = whole(name);
        service.options.expose = expose;
        (name, service)
    };
    let services = snapshot([
        stating("open", Some(true)),
        stating("no", Some(false)),
        stating("silent", None),
    ]);
    let labels = |expose| {
        let config = RouteConfig {
            expose,
            ..RouteConfig::default()
        };
        let (routes, _) = Routes::new(&services, &config);
        let labels = routes.services().map(|service| service.label.to_string());
        labels.collect::<Vec<_>>()
    };
    assert_eq!(labels(Expose::All), ["open", "silent"]);
    assert_eq!(labels(Expose::Tagged), ["open"]);
}

/// The addresses at which a service `web` with these instances gets requests, and what is told about the others.
fn left(config: &RouteConfig, addresses: &[&str]) -> (Vec<String>, Vec<Problem>) {
    let backends: Vec<_> = addresses.iter().map(|it| backend(it, &[])).collect();
    let services = snapshot([(ServiceName::whole("web"), service(&[], &backends))]);
    let (routes, problems) = Routes::new(&services, config);
    let left = routes.find("web").unwrap().backends.iter();
    let mut left: Vec<_> = left.map(|it| it.address.to_string()).collect();
    left.sort();
    (left, problems)
}

#[test]
fn a_backend_that_is_our_own_listener_is_refused_and_reported() {
    let config = RouteConfig {
        listeners: ["0.0.0.0:80", "127.0.0.1:53"]
            .map(|it| it.parse().unwrap())
            .into(),
        page: vec!["127.0.0.1:9180".parse().unwrap()],
        host_addresses: ["192.0.2.1".parse().unwrap()].into(),
        ..RouteConfig::default()
    };
    let (left, problems) = left(
        &config,
        &[
            "127.0.0.1:80",
            "192.0.2.1:80",
            "127.0.0.1:9180",
            "[::ffff:127.0.0.1]:80",
            "0.0.0.0:9180",
            "[::]:9180",
            "[::ffff:0.0.0.0]:9180",
            "127.0.0.1:53",
            "192.0.2.1:9180",
            "172.17.0.2:80",
            "127.0.0.1:8080",
        ],
    );
    assert_eq!(left, ["127.0.0.1:8080", "172.17.0.2:80", "192.0.2.1:9180"]);
    assert_eq!(problems.len(), 8);
}

#[test]
fn a_backend_in_the_pools_is_refused_and_reported_whoever_has_the_address() {
    let config = RouteConfig {
        pools: Pools {
            v6: Some(Pool6::default()),
            ..Pools::default()
        },
        ..RouteConfig::default()
    };
    let own = SocketAddr::from((config.pools.own(), 80)).to_string();
    let twin = config.pools.twin([198, 18, 0, 7].into()).unwrap();
    let twin = SocketAddr::from((twin, 80)).to_string();
    let (left, problems) = left(
        &config,
        &[
            &own,
            &twin,
            "198.18.0.7:80",
            "198.18.255.255:80",
            "[::ffff:198.18.0.7]:80",
            "198.17.255.255:80",
            "[fd62:6c62:76:2::7]:80",
        ],
    );
    assert_eq!(left, ["198.17.255.255:80", "[fd62:6c62:76:2::7]:80"]);
    assert_eq!(problems.len(), 5);
    for problem in problems {
        assert!(problem.message.contains("in the VIP pool"), "{problem:?}");
    }
}

#[test]
fn only_the_service_with_a_name_of_the_page_may_be_the_page() {
    let page = [backend("127.0.0.1:9180", &[])];
    let owner = |name: ServiceName, aliases: &[&str]| (name, service(aliases, &page));
    let admin = || owner(ServiceName::whole("proxy-admin_infra"), &[]);
    let part = || owner(ServiceName::part("proxy-admin", "infra"), &[]);
    let whole = || owner(ServiceName::whole("proxy-admin"), &[]);
    let web = || owner(ServiceName::whole("web"), &[]);
    let config = |names: &[&str]| RouteConfig {
        page: vec!["127.0.0.1:9180".parse().unwrap()],
        page_names: names.iter().map(ToString::to_string).collect(),
        ..RouteConfig::default()
    };
    let check = |config: &RouteConfig, services: &[(ServiceName, Service)], expected: &[&str]| {
        let (routes, problems) = Routes::new(&snapshot(services.to_vec()), config);
        let pages = routes.services().filter(|it| !it.backends.is_empty());
        let pages: Vec<_> = pages.map(|it| &*it.label).collect();
        assert_eq!(pages, expected);
        assert_eq!(problems.len(), services.len() - expected.len());
    };
    check(&config(&[]), &[admin(), web()], &[]);
    let named = config(&["proxy-admin.infra.test", "proxy-admin.infra"]);
    check(&named, &[admin(), web()], &["proxy-admin_infra"]);
    // Where a part has the name, the whole has the same instance.
    let all = ["proxy-admin", "infra_proxy-admin"];
    check(&named, &[part(), whole(), web()], &all);
    // An alias makes an owner, too; and a name that carries an address leads to one.
    let alias = || owner(ServiceName::whole("page"), &["lb.example"]);
    check(&config(&["lb.example"]), &[alias(), web()], &["page"]);
    let carried = config(&["page.10.0.0.7.nip.io"]);
    check(&carried, &[alias(), web()], &["page"]);
}

#[test]
fn who_may_be_the_page_follows_its_names() {
    let config = RouteConfig {
        page: vec!["127.0.0.1:9180".parse().unwrap()],
        page_names: vec!["lb.example".to_owned()],
        ..RouteConfig::default()
    };
    let page = [backend("127.0.0.1:9180", &[])];
    let before = snapshot([(ServiceName::whole("page"), service(&[], &page))]);
    let mut after = before.clone();
    let aliases = Step::Alias("lb.example");
    take(&mut after, ("page", None), aliases);
    let mut follower = Follower::new(config);
    let pages = |change: &RoutesChange| change.services[0].1.as_ref().unwrap().backends.len();
    let none = BTreeSet::new();
    assert_eq!(
        pages(&follower.follow(&Snapshot::default(), &before, &none)),
        0
    );
    assert_eq!(follower.problems().count(), 1);
    assert_eq!(pages(&follower.follow(&before, &after, &none)), 1);
    assert_eq!(follower.problems().count(), 0);
}

#[test]
fn the_rules_of_a_service_go_along_and_a_change_of_them_alone_is_told() {
    let before = snapshot(["a", "b"].map(whole));
    let mut follower = Follower::new(RouteConfig::default());
    let own = ["192.0.2.1".parse().unwrap()].into();
    let all = follower.follow(&Snapshot::default(), &before, &own);
    assert_eq!(all.host_addresses, Some(own.clone()));
    let mut after = before.clone();
    take(&mut after, ("b", None), Step::Deny(Some(Rule::Host)));
    let change = follower.follow(&before, &after, &own);
    assert_eq!(change.host_addresses, None);
    let [(_, Some(service))] = &change.services[..] else {
        panic!("{change:?}");
    };
    let access = service.access.as_ref().unwrap();
    assert!(!access.admits("192.0.2.1".parse().unwrap(), &own));
    assert!(access.admits("192.0.2.2".parse().unwrap(), &own));
    // The host is known by its new addresses, too.
    let moved = ["192.0.2.2".parse().unwrap()].into();
    let change = follower.follow(&after, &after.clone(), &moved);
    assert_eq!(change.host_addresses, Some(moved));
}

#[test]
fn an_instance_that_the_host_leaves_out_keeps_no_clients_and_one_without_weight_does() {
    let (name, mut service) = whole("web");
    service.options.local = Local::Only;
    service.backends = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
        .map(|address| (InstanceKey::new("n", address), backend(address, &[])))
        .into();
    let mut backends = service.backends.values_mut();
    backends.next().unwrap().local = false;
    backends.next().unwrap().weight = 0;
    let (routes, _) = routes([(name, service)]);
    let backends = &routes.find("web").unwrap().backends;
    let told: Vec<_> = backends.iter().map(|it| (it.usable, it.weight)).collect();
    assert_eq!(told, [(false, 0), (true, 0), (true, 1)]);
}

#[test]
fn a_rule_that_no_address_tells_is_reported_once() {
    let ruled = |mut one: (ServiceName, Service)| {
        one.1.options.access.deny = vec![Rule::Network("web".to_owned())];
        one
    };
    let part = (ServiceName::part("a", "x"), service(&[], &[]));
    let (_, problems) = routes([ruled(whole("a")), ruled(part), whole("b")]);
    let messages: Vec<_> = problems.iter().map(|it| &*it.message).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(
        messages[0].contains("`lb_deny=network:web`"),
        "{messages:?}"
    );
}

#[test]
fn a_service_without_usable_backend_keeps_its_names() {
    let mut down = backend("10.0.0.1:80", &[]);
    down.probe.state = ProbeState::Down;
    let (routes, _) = routes([(ServiceName::whole("web"), service(&[], &[down]))]);
    assert!(!routes.find("web").unwrap().backends[0].usable);
}

#[test]
fn an_empty_snapshot_gives_empty_routes_and_no_problem() {
    let (empty, problems) = routes([]);
    assert_eq!((empty, problems), (Routes::default(), Vec::new()));
}

proptest! {
    #[test]
    fn no_host_name_makes_the_search_panic(host in "[a-f0-9.-]{0,40}(\\.nip\\.io)?") {
        let (routes, _) = routes([whole("a")]);
        let _ = routes.find(&host);
    }

    #[test]
    fn every_host_belongs_to_a_listed_service(names in proptest::collection::vec("[a-c_.]{1,6}", 0..6)) {
        let (routes, _) = routes(names.iter().map(|name| whole(name)));
        for (host, _) in routes.hosts() {
            prop_assert!(routes.find(&host).is_some());
        }
    }

    #[test]
    fn whoever_applies_each_change_has_the_routes_of_the_newest_snapshot(
        steps in proptest::collection::vec((0_usize..NAMES.len(), step()), 1..30)
    ) {
        let config = RouteConfig::default();
        let mut follower = Follower::new(config.clone());
        let (mut before, mut known) = (Snapshot::default(), Routes::default());
        for (which, step) in steps {
            let mut after = before.clone();
            take(&mut after, NAMES[which], step);
            let change = follower.follow(&before, &after, &config.host_addresses);
            // As it goes over the wire.
            let told = serde_json::from_str(&serde_json::to_string(&change).unwrap()).unwrap();
            prop_assert_eq!(&change, &told);
            known.apply(&told);
            let (expected, expected_problems) = Routes::new(&after, &config);
            prop_assert_eq!(content(&known), content(&expected));
            let problems = |found: &[Problem]| -> BTreeSet<String> {
                found.iter().map(|it| format!("{} {}", it.subject, it.message)).collect()
            };
            let found: Vec<Problem> = follower.problems().cloned().collect();
            prop_assert_eq!(found.len(), expected_problems.len());
            prop_assert_eq!(problems(&found), problems(&expected_problems));
            let again = follower.follow(&after, &after.clone(), &config.host_addresses);
            prop_assert!(again.is_empty(), "{:?}", again);
            before = after;
        }
    }
}

/// Services whose names meet: `a_b` with the part `b` of `a`, and each with an alias of another.
const NAMES: [(&str, Option<&str>); 5] = [
    ("a", None),
    ("a", Some("b")),
    ("a_b", None),
    ("c", None),
    ("not a name", None),
];

#[derive(Clone, Debug)]
enum Step {
    Leave,
    Alias(&'static str),
    Expose(Option<bool>),
    Deny(Option<Rule>),
    /// Addresses, some of them in the pool.
    Backends(Vec<(u8, bool)>),
}

fn step() -> impl Strategy<Value = Step> {
    let backends = proptest::collection::vec((0_u8..4, any::<bool>()), 0..3);
    prop_oneof![
        Just(Step::Leave),
        prop_oneof![Just("a.b"), Just("c.localhost"), Just("-bad-.")].prop_map(Step::Alias),
        any::<Option<bool>>().prop_map(Step::Expose),
        prop_oneof![
            Just(None),
            Just(Some(Rule::Host)),
            Just(Some(Rule::Network("web".to_owned()))),
            Just(Some(Rule::Net("10.0.0.0/8".parse().unwrap()))),
        ]
        .prop_map(Step::Deny),
        backends.prop_map(Step::Backends),
    ]
}

fn take(snapshot: &mut Snapshot, (name, tag): (&str, Option<&str>), step: Step) {
    let name = match tag {
        None => ServiceName::whole(name),
        Some(tag) => ServiceName::part(name, tag),
    };
    if matches!(step, Step::Leave) {
        snapshot.services.remove(&name);
        return;
    }
    if !snapshot.services.contains_key(&name) {
        snapshot
            .services
            .insert(name.clone(), service(&[], &[]).into());
    }
    let new = Arc::make_mut(snapshot.services.get_mut(&name).unwrap());
    match step {
        Step::Leave => {}
        Step::Alias(alias) => {
            if !new.aliases.remove(alias) {
                new.aliases.insert(alias.to_owned());
            }
        }
        Step::Expose(expose) => new.options.expose = expose,
        Step::Deny(rule) => new.options.access.deny = rule.into_iter().collect(),
        Step::Backends(backends) => {
            let backend = |&(n, up): &(u8, bool)| {
                let state = if up { ProbeState::Up } else { ProbeState::Down };
                let mut backend = backend(&format!("198.{}.0.{n}:80", 17 + n % 2), &[]);
                backend.probe.state = state;
                backend
            };
            let backends: Vec<_> = backends.iter().map(backend).collect();
            new.backends = service(&[], &backends).backends;
        }
    }
}

/// Without the places, which depend on what was before.
fn content(routes: &Routes) -> (Vec<(&str, &RouteService)>, Vec<&RouteService>) {
    let hosts = routes.hosts.names.keys();
    let hosts = hosts.map(|host| (host.as_str(), routes.find(host).unwrap()));
    let mut services: Vec<_> = routes.services().collect();
    services.sort_by_key(|service| &service.label);
    (hosts.collect(), services)
}

#[test]
fn a_change_of_one_service_tells_of_that_service_only() {
    let names = ["a", "b", "c"];
    let before = snapshot(names.map(whole));
    let mut follower = Follower::new(RouteConfig::default());
    let none = BTreeSet::new();
    let all = follower.follow(&Snapshot::default(), &before, &none);
    assert_eq!((all.hosts.len(), all.services.len()), (15, 3));
    let mut after = before.clone();
    take(&mut after, ("b", None), Step::Backends(vec![(9, true)]));
    let change = follower.follow(&before, &after, &none);
    let labels: Vec<_> = change
        .services
        .iter()
        .map(|(_, it)| it.as_ref().map(|it| &*it.label))
        .collect();
    assert_eq!((change.hosts.len(), labels), (0, vec![Some("b")]));
    // One that leaves takes its names along, and those of the others stay as they are.
    take(&mut after, ("b", None), Step::Leave);
    let change = follower.follow(&before, &after, &none);
    assert_eq!(change.hosts.len(), 5);
    assert!(
        change
            .hosts
            .iter()
            .all(|(host, place)| host.starts_with('b') && place.is_none())
    );
    assert!(matches!(&change.services[..], [(_, None)]));
}

/// A service that has the host names of `shop`, by its aliases, below `path`.
fn below(name: &str, path: &str) -> (ServiceName, Service) {
    let (name, mut below) = whole(name);
    below.aliases = ["shop".to_owned(), "shop.localhost".to_owned()].into();
    below.options.front = Some(Arc::new(lb_front::rules::Rules {
        path: Some(path.to_owned()),
        ..Default::default()
    }));
    (name, below)
}

#[test]
fn services_share_host_names_by_path() {
    let (routes, problems) = routes([below("api", "/api"), whole("shop"), below("v1", "/api/v1")]);
    assert_eq!(problems, []);
    for host in ["shop", "shop.localhost"] {
        for (path, label) in [
            ("/", "shop"),
            ("/apis", "shop"),
            ("/api", "api"),
            ("/api/v1/x", "v1"),
        ] {
            let found = routes.find_at(host, path).map(|it| &*it.label);
            assert_eq!(found, Some(label), "{host}{path}");
        }
    }
    // Its own names are no wider.
    check(&routes, "api", None);
    let own = routes
        .find_at("api.localhost", "/api/x")
        .map(|it| &*it.label);
    assert_eq!(own, Some("api"));
    let of_v1 = routes.hosts().filter(|(_, label)| *label == "v1");
    assert!(
        of_v1
            .map(|(host, _)| host)
            .any(|host| host == "shop/api/v1")
    );
}

#[test]
fn a_path_that_two_services_ask_for_is_a_contest() {
    let (routes, problems) = routes([below("b", "/api"), below("a", "/api")]);
    assert_eq!(&*routes.find_at("shop", "/api").unwrap().label, "a");
    let [problem] = &problems[..] else {
        panic!("{problems:?}");
    };
    assert_eq!(problem.subject, "service b");
    assert!(
        problem
            .message
            .contains("shop/api, shop.localhost/api belong to service a"),
        "{problem}"
    );
}

#[test]
fn a_change_of_a_path_or_of_any_rule_alone_is_sent() {
    let config = RouteConfig::default();
    let mut follower = Follower::new(config.clone());
    let mut before = Snapshot::default();
    let mut routes = Routes::default();
    let without = || whole("api");
    let redirected = || {
        let (name, mut api) = whole("api");
        let to = lb_front::rules::Target::Https(None);
        api.options.front = Some(Arc::new(lb_front::rules::Rules {
            redirect: Some(lb_front::rules::Redirect { status: 301, to }),
            ..Default::default()
        }));
        (name, api)
    };
    for api in [
        without(),
        below("api", "/a"),
        below("api", "/b"),
        redirected(),
        without(),
    ] {
        let after = snapshot([api, whole("shop")]);
        let change = follower.follow(&before, &after, &config.host_addresses);
        assert!(!change.is_empty());
        routes.apply(&change);
        let (anew, _) = Routes::new(&after, &config);
        assert_eq!(content(&routes), content(&anew));
        let hosts = |routes: &Routes| -> Vec<_> {
            let all = routes.hosts();
            all.map(|(host, label)| (host, label.to_owned())).collect()
        };
        assert_eq!(hosts(&routes), hosts(&anew));
        let change = follower.follow(&after, &after, &config.host_addresses);
        assert!(change.is_empty());
        before = after;
    }
}
