//! Which address is registered.

use super::*;

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
    // In the order of their names: two readings of one container differ in nothing.
    let names: Vec<&str> = text
        .split(',')
        .map(|it| it.split('=').next().unwrap())
        .collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(names[0], "net-000");
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
fn other_addresses_of_the_host_lead_where_the_port_is_published_for_them() {
    let settings = Settings {
        tagged: [
            ("wan", "203.0.113.9"),
            ("store", "10.9.0.1"),
            ("six", "2001:db8::9"),
        ]
        .map(|(tag, ip)| (tag.to_owned(), ip.parse().unwrap()))
        .into(),
        ..internal()
    };
    let tagged = |it: &Container| {
        let registration = read(it, &settings).registrations.remove(0);
        let tagged = registration.tagged.iter();
        tagged
            .map(|(tag, at)| format!("{tag} {at}"))
            .collect::<Vec<_>>()
    };
    let mut it = container(&[80], &[]);
    assert_eq!(tagged(&it), [""; 0], "not published");
    for (bindings, expect) in [
        (
            &["0.0.0.0:8080"][..],
            &["store 10.9.0.1:8080", "wan 203.0.113.9:8080"][..],
        ),
        (&["[::]:8090"], &["six [2001:db8::9]:8090"]),
        (&["10.9.0.1:8081"], &["store 10.9.0.1:8081"]),
        // The one for this very address before the one for all.
        (
            &["0.0.0.0:8080", "203.0.113.9:9999"],
            &["store 10.9.0.1:8080", "wan 203.0.113.9:9999"],
        ),
        (&["127.0.0.1:8080"], &[]),
    ] {
        it.published = bindings.iter().map(|it| binding(it)).collect();
        assert_eq!(tagged(&it), expect, "{bindings:?}");
    }
    it.network = NetworkMode::Host;
    assert_eq!(
        tagged(&it),
        [
            "six [2001:db8::9]:80",
            "store 10.9.0.1:80",
            "wan 203.0.113.9:80"
        ]
    );
}
