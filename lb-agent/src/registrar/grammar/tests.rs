use std::{collections::BTreeMap, net::Ipv6Addr, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    docker::{Endpoint, Health, NetworkMode, Published, State},
    registrar::{Check, CheckKind, CheckStatus},
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A container `box` of the image `team/web:1.2` on the network `bridge`, with these exposed ports and words.
fn container(ports: &[u16], words: &[(&str, &str)]) -> Container {
    let endpoint = Endpoint {
        ipv4: Some([172, 17, 0, 5].into()),
        ipv6: None,
    };
    Container {
        id: ID.to_owned(),
        name: "box".to_owned(),
        image: "registry:5000/team/web:1.2".to_owned(),
        created: 1,
        environment: words
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect(),
        labels: BTreeMap::new(),
        exposed: ports.iter().map(|&number| tcp(number)).collect(),
        published: Vec::new(),
        network: NetworkMode::Networks,
        networks: BTreeMap::from([("bridge".to_owned(), endpoint)]),
        state: State::Running,
        process: None,
        health: None,
    }
}

fn tcp(number: u16) -> Port {
    let protocol = Protocol::Tcp;
    Port { number, protocol }
}

fn udp(number: u16) -> Port {
    let protocol = Protocol::Udp;
    Port { number, protocol }
}

fn internal() -> Settings {
    Settings {
        addressing: Addressing::Internal,
        host_address: Some([192, 0, 2, 1].into()),
        ..Settings::new("host1")
    }
}

fn published() -> Settings {
    Settings {
        addressing: Addressing::Published,
        ..internal()
    }
}

fn read(container: &Container, settings: &Settings) -> Reading {
    registrations(container, &BTreeMap::new(), settings)
}

/// The only registration of `container` with internal addresses, without a complaint.
#[track_caller]
fn only(container: &Container) -> Registration {
    let mut reading = read(container, &internal());
    assert_eq!(reading.problems, []);
    assert_eq!(reading.registrations.len(), 1, "{reading:?}");
    reading.registrations.remove(0)
}

#[track_caller]
fn names(container: &Container, settings: &Settings, expect: &[&str]) {
    let reading = read(container, settings);
    let names = reading.registrations.iter().map(|it| it.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), expect, "{reading:?}");
}

/// The only problem of `container` must hold `part`.
#[track_caller]
fn problem(container: &Container, settings: &Settings, part: &str) {
    let reading = read(container, settings);
    assert_eq!(reading.problems.len(), 1, "{:?}", reading.problems);
    assert_eq!(reading.problems[0].subject, "container box");
    let message = &reading.problems[0].message;
    assert!(message.contains(part), "{message}");
}

/// The attributes, without our marks.
fn attributes(registration: &Registration) -> Vec<(&str, &str)> {
    let meta = registration.meta.iter();
    meta.filter(|(key, _)| !key.starts_with("lb-"))
        .map(|(key, text)| (&**key, &**text))
        .collect()
}

#[test]
fn a_container_that_says_nothing_is_named_after_its_image() {
    let registration = only(&container(&[80], &[]));
    assert_eq!(registration.name, "web");
    assert_eq!(registration.id, "host1:box:80");
    assert_eq!(registration.address.to_string(), "172.17.0.5:80");
    assert_eq!(registration.container, ID);
    assert_eq!((registration.tags.len(), registration.weight), (0, None));
    for (image, name) in [
        ("web", "web"),
        ("web@sha256:00ff", "web"),
        ("registry:5000/team/web:1.2@sha256:00ff", "web"),
        ("registry:5000/web", "web"),
    ] {
        assert_eq!(default_name(image), name, "{image}");
    }
}

#[test]
fn a_label_overrides_a_variable_and_a_ports_own_word_a_general_one() {
    let mut it = container(
        &[80],
        &[("SERVICE_NAME", "env"), ("SERVICE_80_REGION", "own")],
    );
    it.labels
        .insert("SERVICE_NAME".to_owned(), "label".to_owned());
    it.labels
        .insert("SERVICE_REGION".to_owned(), "general".to_owned());
    let registration = only(&it);
    assert_eq!(registration.name, "label");
    assert_eq!(attributes(&registration), [("region", "own")]);
    it.labels
        .insert("SERVICE_80_NAME".to_owned(), "own".to_owned());
    assert_eq!(only(&it).name, "own");
}

#[test]
fn only_the_prefix_minds_its_case_and_an_empty_word_is_none() {
    let registration = only(&container(
        &[80],
        &[
            ("SERVICE_NaMe", "n"),
            ("service_tags", "a"),
            ("Service_ID", "x"),
            ("SERVICE_ID", ""),
        ],
    ));
    assert_eq!(
        (&*registration.name, &*registration.id),
        ("n", "host1:box:80")
    );
    assert_eq!(registration.tags.len(), 0);
}

#[test]
fn digits_with_nothing_behind_are_an_attribute_and_no_port() {
    let registration = only(&container(
        &[80],
        &[
            ("SERVICE_123", "x"),
            ("SERVICE_99999_NAME", "n"),
            ("SERVICE_080_NAME", "n"),
            ("SERVICE_0_NAME", "n"),
        ],
    ));
    assert_eq!(attributes(&registration), [("123", "x")]);
    assert_eq!(registration.name, "web");
}

#[test]
fn tags_keep_their_order_and_blanks_and_an_escaped_comma() {
    for (text, tags) in [
        ("b,a", vec!["b", "a"]),
        ("a,,b,", vec!["a", "b"]),
        (r"a\,b,c", vec!["a,b", "c"]),
        (r"a\b, c", vec![r"a\b", " c"]),
        (r"x\", vec![r"x\"]),
        ("a,b,a", vec!["a", "b"]),
        (
            "server_alias=x.y,lb_balance=random",
            vec!["server_alias=x.y", "lb_balance=random"],
        ),
    ] {
        assert_eq!(
            only(&container(&[80], &[("SERVICE_TAGS", text)])).tags,
            tags,
            "{text}"
        );
    }
}

#[test]
fn udp_ports_have_a_tag_and_an_id_of_their_own() {
    let mut it = container(&[], &[("SERVICE_53_NAME", "dns"), ("SERVICE_TAGS", "a")]);
    it.exposed = BTreeSet::from([tcp(53), udp(53)]);
    let reading = read(&it, &internal());
    let seen = reading.registrations.iter();
    let seen: Vec<_> = seen
        .map(|it| (&*it.name, &*it.id, it.tags.join(" ")))
        .collect();
    assert_eq!(
        seen,
        [
            ("dns", "host1:box:53", "a".to_owned()),
            ("dns", "host1:box:53:udp", "a udp".to_owned())
        ]
    );
}

#[test]
fn names_of_several_ports_end_in_the_port_unless_they_are_its_own() {
    names(
        &container(&[80, 81], &[]),
        &internal(),
        &["web-80", "web-81"],
    );
    let general = container(
        &[80, 81],
        &[("SERVICE_NAME", "n"), ("SERVICE_81_NAME", "own")],
    );
    names(&general, &internal(), &["n-80", "own"]);
    // Counted before anything is ignored.
    let ignored = container(&[80, 81], &[("SERVICE_80_IGNORE", "false")]);
    names(&ignored, &internal(), &["web-81"]);
    // The demo's proxy.
    let proxy = container(
        &[80, 8080],
        &[
            ("SERVICE_80_IGNORE", "true"),
            ("SERVICE_8080_NAME", "proxy-admin_infra"),
        ],
    );
    names(&proxy, &internal(), &["proxy-admin_infra"]);
}

#[test]
fn ignoring_covers_both_protocols_and_says_why() {
    let mut it = container(&[], &[("SERVICE_8301_IGNORE", "1")]);
    it.exposed = BTreeSet::from([tcp(8301), udp(8301), tcp(8500)]);
    names(&it, &internal(), &["web-8500"]);
    let reading = read(&it, &internal());
    assert_eq!(reading.left_out.len(), 2);
    assert!(reading.left_out[0].contains("port 8301/tcp: SERVICE_IGNORE"));
    names(
        &container(&[80], &[("SERVICE_IGNORE", "x")]),
        &internal(),
        &[],
    );
}

#[test]
fn in_explicit_mode_only_named_ports_count() {
    let explicit = Settings {
        explicit: true,
        ..internal()
    };
    names(&container(&[80], &[]), &explicit, &[]);
    names(
        &container(&[80, 81], &[("SERVICE_81_NAME", "n")]),
        &explicit,
        &["n"],
    );
}

#[test]
fn a_named_port_needs_no_expose_and_no_port_at_all_is_told() {
    names(
        &container(&[], &[("SERVICE_8080_NAME", "api")]),
        &internal(),
        &["api"],
    );
    let reading = read(&container(&[], &[("SERVICE_NAME", "api")]), &internal());
    assert!(
        reading.left_out[0].contains("no port is exposed"),
        "{reading:?}"
    );
}

#[test]
fn an_id_is_taken_as_it_is_unless_consul_could_not_remove_it() {
    assert_eq!(
        only(&container(&[80], &[("SERVICE_ID", "a/b c")])).id,
        "a/b c"
    );
    for id in ["..", "a//b", "/x", "a/../b", "a\nb"] {
        problem(
            &container(&[80], &[("SERVICE_ID", id)]),
            &internal(),
            "SERVICE_ID",
        );
    }
    problem(
        &container(&[80, 81], &[("SERVICE_ID", "x")]),
        &internal(),
        "port 81/tcp is not registered: another port of it has the id x; write SERVICE_81_ID",
    );
}

#[test]
fn published_addresses_are_those_of_the_host() {
    let mut it = container(&[80, 81], &[]);
    let publish = |host: &str, number| Published {
        port: tcp(number),
        host_address: host.parse().unwrap(),
        host_port: 32000 + number,
    };
    it.published = vec![publish("::", 80), publish("0.0.0.0", 80)];
    let reading = read(&it, &published());
    assert_eq!(reading.problems, []);
    // The unpublished port makes no group.
    assert_eq!(reading.registrations[0].name, "web");
    assert_eq!(
        reading.registrations[0].address.to_string(),
        "192.0.2.1:32080"
    );
    assert!(reading.left_out[0].contains("port 81/tcp: the host does not publish it"));
    let meta = &reading.registrations[0].meta;
    assert_eq!(meta[meta::PUBLISHED], "192.0.2.1:32080");
    assert_eq!(meta[meta::NETWORKS], "bridge=172.17.0.5:80");

    it.published = vec![publish("127.0.0.1", 80)];
    let bound = read(&it, &published());
    assert_eq!(
        bound.registrations[0].address.to_string(),
        "127.0.0.1:32080"
    );
    let ip = Settings {
        ip: Some([203, 0, 113, 9].into()),
        ..published()
    };
    let forced = read(&it, &ip);
    assert_eq!(
        forced.registrations[0].address.to_string(),
        "203.0.113.9:32080"
    );

    it.published = vec![publish("0.0.0.0", 80)];
    let unknown = Settings {
        host_address: None,
        ..published()
    };
    problem(&it, &unknown, "set [registrar] ip");
}

#[test]
fn an_internal_registration_keeps_the_published_address_for_other_views() {
    let mut it = container(&[80], &[]);
    it.published = vec![Published {
        port: tcp(80),
        host_address: [0, 0, 0, 0].into(),
        host_port: 32080,
    }];
    let registration = only(&it);
    assert_eq!(registration.address.to_string(), "172.17.0.5:80");
    assert_eq!(registration.meta[meta::PUBLISHED], "192.0.2.1:32080");
    assert_eq!(registration.meta[meta::CONTAINER], ID);
    assert_eq!(registration.meta[meta::REGISTRAR], "host1");
    let networks = meta::parse_networks(&registration.meta[meta::NETWORKS]);
    assert_eq!(networks, registration.reach.networks);
}

#[test]
fn of_several_networks_the_asked_one_counts_then_the_preferred_and_a_doubt_is_told() {
    let endpoint = |last| Endpoint {
        ipv4: Some([10, 0, 0, last].into()),
        ipv6: None,
    };
    let mut it = container(&[80, 81], &[]);
    it.networks = BTreeMap::from([("a".to_owned(), endpoint(1)), ("b".to_owned(), endpoint(2))]);
    problem(&it, &internal(), "several networks (a, b)");
    assert_eq!(read(&it, &internal()).registrations, []);
    let preferred = Settings {
        networks: vec!["none".to_owned(), "b".to_owned()],
        ..internal()
    };
    let address =
        |it: &Container, settings| read(it, settings).registrations[0].address.to_string();
    assert_eq!(address(&it, &preferred), "10.0.0.2:80");
    it.labels
        .insert("SERVICE_NETWORK".to_owned(), "a".to_owned());
    assert_eq!(address(&it, &preferred), "10.0.0.1:80");
    it.labels
        .insert("SERVICE_NETWORK".to_owned(), "c".to_owned());
    problem(&it, &preferred, "asks for the network c");
    it.labels.clear();
    it.networks.clear();
    problem(&it, &internal(), "no address on any network");
}

#[test]
fn host_mode_means_the_host_and_a_shared_namespace_its_owner() {
    let mut it = container(&[80], &[]);
    it.networks.clear();
    it.network = NetworkMode::Host;
    for settings in [internal(), published()] {
        assert_eq!(
            read(&it, &settings).registrations[0].address.to_string(),
            "192.0.2.1:80"
        );
    }
    it.network = NetworkMode::None;
    assert!(read(&it, &internal()).left_out[0].contains("it has no network"));

    it.network = NetworkMode::Container("owner".to_owned());
    problem(&it, &internal(), "shares the network of container owner");
    let mut owner = container(&[], &[]);
    owner.published = vec![Published {
        port: tcp(80),
        host_address: [0, 0, 0, 0].into(),
        host_port: 8000,
    }];
    let all = BTreeMap::from([("owner".to_owned(), Arc::new(owner))]);
    let address = |settings: &Settings| {
        registrations(&it, &all, settings).registrations[0]
            .address
            .to_string()
    };
    assert_eq!(address(&internal()), "172.17.0.5:80");
    assert_eq!(address(&published()), "192.0.2.1:8000");
}

#[test]
fn a_container_may_name_its_address_itself() {
    let registration = only(&container(&[80], &[("SERVICE_IP", "203.0.113.7")]));
    assert_eq!(registration.address.to_string(), "203.0.113.7:80");
    problem(
        &container(&[80], &[("SERVICE_IP", "here")]),
        &internal(),
        "SERVICE_IP=`here`",
    );
    let mut it = container(&[80], &[]);
    it.labels
        .insert("net.address".to_owned(), "203.0.113.8/24".to_owned());
    let labelled = Settings {
        address_label: Some("net.address".to_owned()),
        ..internal()
    };
    let reading = read(&it, &labelled);
    assert_eq!(
        reading.registrations[0].address.to_string(),
        "203.0.113.8:80"
    );
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    let mut it = container(&[80], &[("SERVICE_CHECK_HTTP", "/up")]);
    let ipv6 = Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5));
    it.networks = BTreeMap::from([("six".to_owned(), Endpoint { ipv4: None, ipv6 })]);
    let registration = only(&it);
    assert_eq!(registration.address.to_string(), "[fd00::5]:80");
    let url = "http://[fd00::5]:80/up".to_owned();
    assert_eq!(
        registration.checks[0].kind,
        CheckKind::Http { url, method: None }
    );
}

#[test]
fn every_kind_of_check_is_understood_and_the_first_kind_wins() {
    let address = "172.17.0.5:80".parse().unwrap();
    let http = |scheme: &str, method: Option<&str>| CheckKind::Http {
        url: format!("{scheme}://172.17.0.5:80/up"),
        method: method.map(str::to_owned),
    };
    let command = |arguments: &[&str]| {
        CheckKind::Command(arguments.iter().map(|it| (*it).to_owned()).collect())
    };
    let grpc = |tls, skip_verify| CheckKind::Grpc {
        address,
        tls,
        skip_verify,
    };
    for (words, kind) in [
        (
            &[("HTTP", "/up"), ("HTTP_METHOD", "HEAD")][..],
            http("http", Some("HEAD")),
        ),
        (&[("HTTP", "up"), ("TCP", "true")], http("http", None)),
        (
            &[("HTTPS", "/up"), ("HTTPS_METHOD", "GET")],
            http("https", Some("GET")),
        ),
        (
            &[("CMD", "/bin/x y")],
            command(&["check-cmd", "0123456789ab", "80", "/bin/x y"]),
        ),
        (
            &[("SCRIPT", "nc $SERVICE_IP $SERVICE_PORT")],
            command(&["/bin/sh", "-c", "nc 172.17.0.5 80"]),
        ),
        (
            &[("TTL", "1m")],
            CheckKind::Ttl(std::time::Duration::from_secs(60)),
        ),
        (
            &[("TCP", "true"), ("GRPC", "true")],
            CheckKind::Tcp(address),
        ),
        (
            &[("GRPC", "true"), ("TLS_SKIP_VERIFY", "1")],
            grpc(false, false),
        ),
        (
            &[
                ("GRPC", "1"),
                ("GRPC_USE_TLS", "1"),
                ("TLS_SKIP_VERIFY", "1"),
            ],
            grpc(true, true),
        ),
    ] {
        let words: Vec<_> = words
            .iter()
            .map(|(key, text)| (format!("SERVICE_CHECK_{key}"), *text))
            .collect();
        let words: Vec<_> = words.iter().map(|(key, text)| (&**key, *text)).collect();
        let registration = only(&container(&[80], &words));
        assert_eq!(registration.checks.len(), 1, "{words:?}");
        assert_eq!(registration.checks[0].kind, kind);
        assert_eq!(registration.checks[0].id, "service:host1:box:80:check");
        assert_eq!(attributes(&registration), []);
    }
}

#[test]
fn a_check_has_its_times_and_its_first_state() {
    let words = [
        ("SERVICE_CHECK_TCP", "true"),
        ("SERVICE_CHECK_INTERVAL", "1m30s"),
        ("SERVICE_CHECK_TIMEOUT", "500ms"),
        ("SERVICE_CHECK_INITIAL_STATUS", "passing"),
        ("SERVICE_CHECK_DEREGISTER_AFTER", "1h"),
    ];
    let check = only(&container(&[80], &words)).checks.remove(0);
    let seconds = std::time::Duration::from_secs_f64;
    assert_eq!(check.interval, seconds(90.0));
    assert_eq!(check.timeout, Some(seconds(0.5)));
    assert_eq!(check.initial, Some(CheckStatus::Passing));
    assert_eq!(check.deregister_after, Some(seconds(3600.0)));
    let check = only(&container(&[80], &words[..1])).checks.remove(0);
    assert_eq!((check.interval, check.timeout), (seconds(10.0), None));
}

#[test]
fn several_checks_have_numbers_and_share_the_plain_times() {
    let registration = only(&container(
        &[80],
        &[
            ("SERVICE_CHECK_TCP", "true"),
            ("SERVICE_CHECK_INTERVAL", "5s"),
            ("SERVICE_CHECK_2_HTTP", "/b"),
            ("SERVICE_CHECK_2_INTERVAL", "2s"),
            ("SERVICE_CHECK_1_HTTP", "/a"),
            // Times alone make no check.
            ("SERVICE_CHECK_3_INTERVAL", "9s"),
        ],
    ));
    let checks = registration.checks.iter();
    let seen: Vec<_> = checks.map(|it| (&*it.id, it.interval.as_secs())).collect();
    assert_eq!(
        seen,
        [
            ("service:host1:box:80:check", 5),
            ("service:host1:box:80:check-1", 5),
            ("service:host1:box:80:check-2", 2)
        ]
    );
}

#[test]
fn a_check_that_cannot_be_made_is_critical_and_wrong_times_are_told() {
    let it = container(&[80], &[("SERVICE_CHECK_TTL", "10")]);
    problem(&it, &internal(), "SERVICE_CHECK_TTL=`10`: write a time");
    let kind = &read(&it, &internal()).registrations[0].checks[0].kind;
    assert!(matches!(kind, CheckKind::Unusable(why) if why.contains("=`10`")));
    for (key, text) in [
        ("INTERVAL", "10"),
        ("INITIAL_STATUS", "up"),
        ("HTTP_METHOD", "A B"),
    ] {
        let key = format!("SERVICE_CHECK_{key}");
        let it = container(&[80], &[("SERVICE_CHECK_HTTP", "/"), (&key, text)]);
        problem(&it, &internal(), "has no effect");
        assert_eq!(read(&it, &internal()).registrations[0].checks.len(), 1);
    }
}

#[test]
fn a_healthcheck_and_the_heartbeat_are_checks_too() {
    let mut it = container(&[80], &[("SERVICE_CHECK_TCP", "1")]);
    it.health = Some(Health::Starting);
    let ttl = std::time::Duration::from_secs(30);
    let settings = Settings {
        ttl: Some(ttl),
        ..internal()
    };
    let registration = read(&it, &settings).registrations.remove(0);
    let kinds = registration.checks.iter().map(|it| &it.kind);
    let kinds: Vec<_> = kinds.skip(1).collect();
    assert_eq!(kinds, [&CheckKind::Docker, &CheckKind::Heartbeat(ttl)]);
    // The verdict is no part of the registration.
    it.health = Some(Health::Healthy);
    assert_eq!(read(&it, &settings).registrations[0], registration);
}

#[test]
fn other_checks_make_another_mark() {
    let mark = |words: &[_]| only(&container(&[80], words)).meta[meta::CHECKS].clone();
    let tcp = mark(&[("SERVICE_CHECK_TCP", "1")]);
    assert_eq!(tcp, mark(&[("SERVICE_CHECK_TCP", "true")]));
    assert_ne!(tcp, mark(&[]));
    assert_ne!(
        tcp,
        mark(&[("SERVICE_CHECK_TCP", "1"), ("SERVICE_CHECK_INTERVAL", "1s")])
    );
}

#[test]
fn attributes_are_cut_to_what_consul_takes_and_one_problem_names_them() {
    let long = "ü".repeat(400);
    let mut words = vec![
        ("SERVICE_A-LONG".to_owned(), long),
        ("SERVICE_B".to_owned(), "http://x".to_owned()),
        ("SERVICE_DOTTED.KEY".to_owned(), "x".to_owned()),
        ("SERVICE_CONSUL-X".to_owned(), "x".to_owned()),
        ("SERVICE_LB-REGISTRAR".to_owned(), "other".to_owned()),
        ("SERVICE_LB_BALANCE".to_owned(), "random".to_owned()),
    ];
    words.extend((100..170).map(|n| (format!("SERVICE_A{n}"), "x".to_owned())));
    let mut it = container(&[80, 81], &[]);
    it.environment = words;
    let reading = read(&it, &internal());
    assert_eq!(reading.problems.len(), 1);
    let message = &reading.problems[0].message;
    for part in [
        "`a-long` cut",
        "`dotted.key`",
        "`consul-x`",
        "`lb-registrar`",
        "`a169`",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    for registration in &reading.registrations {
        let meta = &registration.meta;
        assert_eq!(meta.len(), meta::PAIRS);
        assert_eq!(meta["lb_balance"], "random");
        assert_eq!(meta[meta::REGISTRAR], "host1");
    }
}

#[test]
fn the_list_of_attributes_leaves_options_alone() {
    let listed = Settings {
        attributes: Some(BTreeSet::from(["region".to_owned()])),
        ..internal()
    };
    let it = container(
        &[80],
        &[
            ("SERVICE_REGION", "eu"),
            ("SERVICE_SECRET", "s"),
            ("SERVICE_LB_PORT", "80"),
        ],
    );
    let reading = read(&it, &listed);
    assert_eq!(
        attributes(&reading.registrations[0]),
        [("lb_port", "80"), ("region", "eu")]
    );
}

#[test]
fn networks_are_kept_as_whole_entries() {
    let mut it = container(&[80], &[("SERVICE_NETWORK", "net-000")]);
    let ipv4 = Some([10, 0, 0, 1].into());
    it.networks = (0..40)
        .map(|n| (format!("net-{n:03}"), Endpoint { ipv4, ipv6: None }))
        .collect();
    problem(&it, &internal(), "`lb-networks` cut");
    let text = &read(&it, &internal()).registrations[0].meta[meta::NETWORKS];
    assert!(text.len() <= meta::VALUE_LIMIT);
    assert_eq!(meta::parse_networks(text).len(), text.split(',').count());
}

#[test]
fn a_weight_is_consuls_and_zero_is_told() {
    assert_eq!(
        only(&container(&[80], &[("SERVICE_WEIGHT", "7")])).weight,
        Some(7)
    );
    for text in ["0", "-1", "65536", "x"] {
        problem(
            &container(&[80], &[("SERVICE_WEIGHT", text)]),
            &internal(),
            "SERVICE_WEIGHT=",
        );
    }
}

#[test]
fn forced_tags_may_name_fields_of_the_container() {
    let mut it = container(&[80], &[("SERVICE_TAGS", "own"), ("ROLE", "db")]);
    it.labels
        .insert("com.example.team".to_owned(), "red".to_owned());
    let texts = [
        "plain",
        "{{.Name}}-{{ .Config.Labels.com.example.team }}",
        "{{.Config.Env.ROLE}}{{.Config.Env.NONE}}",
    ];
    let settings = Settings {
        tags: texts.map(|text| text.parse().unwrap()).to_vec(),
        ..internal()
    };
    let tags = &read(&it, &settings).registrations[0].tags;
    assert_eq!(tags, &["own", "plain", "box-red", "db"]);
    for text in [
        "{{toUpper .Name}}",
        "{{.Name | html}}",
        "{{.State.Pid}}",
        "{{.Config.Labels.}}",
    ] {
        let error = text
            .parse::<super::super::Template>()
            .unwrap_err()
            .to_string();
        assert!(error.contains("is not supported; use .ID"), "{error}");
    }
    assert!("{{.Name".parse::<super::super::Template>().is_err());
}

#[test]
fn an_empty_option_is_none_and_one_that_is_too_long_is_left_out() {
    let it = container(
        &[80],
        &[("SERVICE_LB_EXPOSE", "true"), ("SERVICE_80_LB_EXPOSE", "")],
    );
    assert_eq!(attributes(&only(&it)), []);
    let path = format!("http /{}", "a".repeat(600));
    let it = container(&[80], &[("SERVICE_LB_CHECK", &path)]);
    problem(&it, &internal(), "`lb_check` left out (over 512 bytes)");
    assert_eq!(attributes(&read(&it, &internal()).registrations[0]), []);
}

#[test]
fn a_word_that_may_have_been_meant_as_a_check_is_critical() {
    for (words, critical) in [
        (&[("SERVICE_CHECK_HTPP", "/")][..], true),
        (&[("SERVICE_CHECK_01_HTTP", "/")], true),
        (&[("SERVICE_CHECK_70000_HTTP", "/")], true),
        (&[("SERVICE_CHECK", "http")], true),
        (
            &[("SERVICE_CHECK_TCP", "1"), ("SERVICE_CHECK_2_HTPP", "/")],
            true,
        ),
        (
            &[
                ("SERVICE_CHECK_TCP", "1"),
                ("SERVICE_CHECK_INTERVALL", "1s"),
            ],
            false,
        ),
    ] {
        let it = container(&[80], words);
        problem(&it, &internal(), "is no word for a check");
        let checks = &read(&it, &internal()).registrations[0].checks;
        let is_lost = |check: &Check| matches!(check.kind, CheckKind::Unusable(_));
        assert_eq!(checks.iter().any(is_lost), critical, "{words:?}");
    }
    let empty = container(&[80], &[("SERVICE_CHECK_HTPP", "")]);
    assert_eq!(only(&empty).checks, []);
}

#[test]
fn an_own_address_goes_with_the_port_of_the_binding() {
    let mut it = container(
        &[80, 81],
        &[("SERVICE_NAME", "n"), ("SERVICE_IP", "203.0.113.7")],
    );
    let unknown = Settings {
        host_address: None,
        ..published()
    };
    assert_eq!(read(&it, &unknown).registrations, []);
    it.published = vec![binding("0.0.0.0:32080")];
    let reading = read(&it, &unknown);
    assert_eq!(reading.problems, []);
    assert_eq!(reading.registrations.len(), 1);
    assert_eq!(
        reading.registrations[0].address.to_string(),
        "203.0.113.7:32080"
    );
    for ip in ["224.0.0.1", "255.255.255.255", "0.0.0.0"] {
        problem(
            &container(&[80], &[("SERVICE_IP", ip)]),
            &internal(),
            "SERVICE_IP=`",
        );
    }
}

/// Where the host listens for port 80.
fn binding(text: &str) -> Published {
    let address: std::net::SocketAddr = text.parse().unwrap();
    Published {
        port: tcp(80),
        host_address: address.ip(),
        host_port: address.port(),
    }
}

#[test]
fn a_binding_is_taken_that_others_reach() {
    let v6 = Settings {
        host_address: Some("2001:db8::1".parse().unwrap()),
        ..published()
    };
    let ip = Settings {
        ip: Some([192, 0, 2, 5].into()),
        ..published()
    };
    for (bindings, settings, expect) in [
        (
            &["127.0.0.1:8080", "192.0.2.5:8081"][..],
            published(),
            "192.0.2.5:8081",
        ),
        (&["0.0.0.0:8080", "[::]:8090"], v6, "[2001:db8::1]:8090"),
        (
            &["0.0.0.0:8080", "[::]:8090"],
            published(),
            "192.0.2.1:8080",
        ),
        (&["192.0.2.4:8080", "192.0.2.5:8081"], ip, "192.0.2.5:8081"),
    ] {
        let mut it = container(&[80], &[]);
        it.published = bindings.iter().map(|it| binding(it)).collect();
        let reading = read(&it, &settings);
        assert_eq!(reading.problems, []);
        assert_eq!(
            reading.registrations[0].address.to_string(),
            expect,
            "{bindings:?}"
        );
    }
    let mut it = container(&[80], &[]);
    it.published = vec![binding("[::]:8080")];
    problem(&it, &published(), "set [registrar] ip");
    assert_eq!(read(&it, &published()).registrations, []);
}

#[test]
fn a_port_that_is_only_named_makes_no_group_and_an_empty_own_name_is_none() {
    let stray = container(
        &[80],
        &[("SERVICE_NAME", "www"), ("SERVICE_8080_NAME", "x")],
    );
    names(&stray, &internal(), &["www", "x"]);
    let empty = container(
        &[80, 81],
        &[("SERVICE_80_NAME", ""), ("SERVICE_81_NAME", "")],
    );
    names(&empty, &internal(), &["web-80", "web-81"]);
}

#[test]
fn a_name_that_consul_cannot_be_asked_about_is_refused() {
    for name in ["..", "a//b", "a/../b", "a\nb", "a\0b", "/"] {
        let it = container(&[80], &[("SERVICE_NAME", name)]);
        problem(&it, &internal(), "write a SERVICE_NAME");
        assert_eq!(read(&it, &internal()).registrations, []);
    }
    for image in ["", "registry/", "sha256:00ffaa"] {
        let mut it = container(&[80, 81], &[]);
        it.image = image.to_owned();
        problem(&it, &internal(), "its image has no name");
        assert_eq!(read(&it, &internal()).registrations, []);
    }
}

#[test]
fn what_is_left_out_anyway_has_no_problem_with_its_network() {
    let mut it = container(&[80], &[("SERVICE_IGNORE", "1")]);
    it.network = NetworkMode::Container("gone".to_owned());
    let reading = read(&it, &internal());
    assert_eq!((reading.problems.len(), reading.left_out.len()), (0, 1));
}

#[test]
fn a_shared_network_is_found_by_name_too_and_its_owner_must_run() {
    let mut it = container(&[80], &[]);
    it.networks.clear();
    it.network = NetworkMode::Container("owner".to_owned());
    let mut owner = container(&[], &[]);
    owner.name = "owner".to_owned();
    let reading = |owner: &Container| {
        let all = BTreeMap::from([("1234".to_owned(), Arc::new(owner.clone()))]);
        registrations(&it, &all, &internal())
    };
    let address = reading(&owner).registrations[0].address;
    assert_eq!(address.to_string(), "172.17.0.5:80");
    owner.state = State::Exited(0);
    owner.networks.clear();
    let message = &reading(&owner).problems[0].message;
    assert!(message.contains("which does not run"), "{message}");
}

#[test]
fn a_udp_port_beside_a_tcp_port_shares_its_id_and_is_probed_there() {
    let mut it = container(&[], &[("SERVICE_53_ID", "dns"), ("SERVICE_CHECK_TCP", "1")]);
    it.exposed = BTreeSet::from([tcp(53), udp(53)]);
    let publish = |port, host_port| Published {
        port,
        host_address: [0, 0, 0, 0].into(),
        host_port,
    };
    it.published = vec![publish(tcp(53), 1053), publish(udp(53), 2053)];
    let reading = read(&it, &published());
    assert_eq!(reading.problems, []);
    let ids: Vec<_> = reading.registrations.iter().map(|it| &*it.id).collect();
    assert_eq!(ids, ["dns", "dns:udp"]);
    let udp = &reading.registrations[1];
    assert_eq!(udp.address.to_string(), "192.0.2.1:2053");
    let probed = "192.0.2.1:1053".parse().unwrap();
    assert_eq!(udp.checks[0].kind, CheckKind::Tcp(probed));
}

#[test]
fn a_problem_repeats_only_the_beginning_of_a_word() {
    let long = "x".repeat(100_000);
    for key in ["IP", "WEIGHT", "NETWORK", "CHECK_TTL", "CHECK_HTPP"] {
        let it = container(&[80], &[(&format!("SERVICE_{key}"), &long)]);
        let problems = read(&it, &internal()).problems;
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.len() < 400, "{key}");
    }
}

fn any_words() -> impl Strategy<Value = Vec<(String, String)>> {
    let key = prop_oneof![
        "SERVICE_(80_|53_|)(NAME|TAGS|ID|IGNORE|IP|WEIGHT|NETWORK|LB_BALANCE|REGION)",
        "SERVICE_(80_|)CHECK_([0-9]_|)(HTTP|HTTPS|CMD|SCRIPT|TTL|TCP|GRPC|INTERVAL|TIMEOUT|INITIAL_STATUS)",
        "SERVICE_\\PC{0,140}",
        "SERVICE_[0-9]{1,6}_?[A-Z]*",
    ];
    let text = prop_oneof!["\\PC{0,600}", "[0-9a-z,\\\\./:$]{0,12}", any::<String>()];
    proptest::collection::vec((key, text), 0..90)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn whatever_is_written_stays_within_consuls_limits(
        environment in any_words(),
        labels in any_words(),
        ports in proptest::collection::btree_set((1..=100_u16, any::<bool>()), 0..5),
        by_name in any::<bool>(),
        image in "\\PC{0,30}",
    ) {
        let mut it = container(&[], &[]);
        it.image = image;
        it.environment = environment;
        it.labels = labels.into_iter().collect();
        it.exposed = ports.into_iter().map(|(n, is_udp)| if is_udp { udp(n) } else { tcp(n) }).collect();
        it.network = if by_name { NetworkMode::Networks } else { NetworkMode::Host };
        let reading = read(&it, &internal());
        let mut ids = BTreeSet::new();
        for registration in &reading.registrations {
            let Registration { meta, name, id, .. } = registration;
            prop_assert!(!name.is_empty() && !id.is_empty());
            prop_assert!(ids.insert(id));
            prop_assert!(meta.len() <= meta::PAIRS);
            for (key, text) in meta {
                prop_assert!(!key.is_empty() && key.len() <= meta::KEY_LIMIT && text.len() <= meta::VALUE_LIMIT);
                prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
                prop_assert!(!key.starts_with("consul-") && !key.starts_with("check_"));
            }
            prop_assert_eq!(&meta[meta::REGISTRAR], "host1");
            prop_assert_ne!(registration.weight, Some(0));
            let checks: BTreeSet<_> = registration.checks.iter().map(|check| &check.id).collect();
            prop_assert_eq!(checks.len(), registration.checks.len());
        }
    }
}
