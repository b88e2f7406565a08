mod backends;
mod changes;
mod contests;
mod page;
mod paths;
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

/// Without the places, which depend on what was before.
fn content(routes: &Routes) -> (Vec<(&str, &RouteService)>, Vec<&RouteService>) {
    let hosts = routes.hosts.names.keys();
    let hosts = hosts.map(|host| (host.as_str(), routes.find(host).unwrap()));
    let mut services: Vec<_> = routes.services().collect();
    services.sort_by_key(|service| &service.label);
    (hosts.collect(), services)
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
