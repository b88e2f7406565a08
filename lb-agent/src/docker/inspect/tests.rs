use super::*;

#[test]
fn a_container_of_an_old_engine_is_read() {
    let text = br#"{"Id":"abc","Name":"/web","Created":"1970-01-01T00:00:01.000000002Z",
            "State":{"Status":"running","Running":true,"Pid":7,"ExitCode":0,
                     "StartedAt":"1970-01-01T00:00:03Z",
                     "Health":{"Status":"unhealthy","FailingStreak":3,
                               "Log":[{"Output":"first"},{"ExitCode":1,"Output":"no answer\n"}]}},
            "Config":{"Image":"web:1","Env":["A=1=2","odd"],"Labels":{"l":"v"},
                      "ExposedPorts":{"80/tcp":{},"53/udp":{}},"StopSignal":"SIGQUIT","StopTimeout":3},
            "HostConfig":{"NetworkMode":"default","Runtime":"runc"},
            "NetworkSettings":{"IPAddress":"172.17.0.9",
                "Ports":{"53/udp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},
                                                  {"HostIp":"::","HostPort":"8080"}]},
                "Networks":{"bridge":{"IPAddress":"172.17.0.2","GlobalIPv6Address":""},
                            "six":{"IPAddress":"10.0.0.2","GlobalIPv6Address":"fd00::2"}}}}"#;
    let read = parse(text).unwrap();
    assert_eq!(read.started, 3_000_000_000);
    assert_eq!(read.stop_signal, 3);
    assert_eq!(read.stop_timeout, Duration::from_secs(3));
    let tcp = Port {
        number: 80,
        protocol: Protocol::Tcp,
    };
    let udp = Port {
        number: 53,
        protocol: Protocol::Udp,
    };
    let at = |address: &str| Published {
        port: tcp,
        host_address: address.parse().unwrap(),
        host_port: 8080,
    };
    let endpoint = |four: &str, six: Option<&str>| Endpoint {
        ipv4: four.parse().ok(),
        ipv6: six.map(|six| six.parse().unwrap()),
    };
    let expected = Container {
        id: "abc".into(),
        name: "web".into(),
        image: "web:1".into(),
        created: 1_000_000_002,
        environment: vec![("A".into(), "1=2".into())],
        labels: [("l".into(), "v".into())].into(),
        exposed: [tcp, udp].into(),
        published: vec![at("0.0.0.0"), at("::")],
        network: NetworkMode::Networks,
        networks: [
            ("bridge".into(), endpoint("172.17.0.2", None)),
            ("six".into(), endpoint("10.0.0.2", Some("fd00::2"))),
        ]
        .into(),
        state: State::Running,
        process: Some(Process {
            pid: 7,
            started: 3_000_000_000,
        }),
        health: Some(Health::Unhealthy("no answer".into())),
        runtime: "runc".to_owned(),
    };
    assert_eq!(read.container, expected);
}

fn small(state: &str, mode: &str) -> Inspected {
    let text = format!(
        r#"{{"Id":"a","Name":"/a","State":{{"Status":"{state}","ExitCode":3}},
                "Config":{{"Image":"i","Env":null,"Labels":null}},"HostConfig":{{"NetworkMode":"{mode}"}},
                "NetworkSettings":{{"Ports":null,"Networks":{{"{mode}":{{"IPAddress":""}}}}}}}}"#
    );
    parse(text.as_bytes()).unwrap()
}

#[test]
fn what_is_absent_or_null_is_no_mistake() {
    let read = small("created", "none");
    assert_eq!(read.container.state, State::Created);
    assert_eq!((read.started, read.stop_signal), (0, 15));
    assert_eq!(read.container.process, None);
    assert_eq!(
        small("restarting", "none").container.state,
        State::Exited(3)
    );
    assert_eq!(small("paused", "none").container.state, State::Paused);
}

#[test]
fn a_container_may_have_all_the_time_to_end() {
    let read = |seconds: &str| {
        let text = format!(
            r#"{{"Id":"a","Name":"/a","State":{{}},"Config":{{"StopTimeout":{seconds}}}}}"#
        );
        parse(text.as_bytes()).unwrap().stop_timeout
    };
    assert_eq!(read("0"), Duration::ZERO);
    assert_eq!(read("-1"), Duration::MAX);
    assert_eq!(read("null"), STOP_TIMEOUT);
}

#[test]
fn only_networks_of_its_own_are_a_containers_networks() {
    for (mode, network, networks) in [
        ("host", NetworkMode::Host, 0),
        ("none", NetworkMode::None, 0),
        ("container:b", NetworkMode::Container("b".into()), 0),
        ("front", NetworkMode::Networks, 1),
    ] {
        let read = small("running", mode).container;
        assert_eq!(
            (read.network, read.networks.len()),
            (network, networks),
            "{mode}"
        );
    }
}

#[test]
fn a_container_may_leave_the_network_none_for_another_one() {
    let text = br#"{"Id":"a","Name":"/a","State":{"Status":"running"},"Config":{"Image":"i"},
            "HostConfig":{"NetworkMode":"none"},
            "NetworkSettings":{"Networks":{"front":{"IPAddress":"10.0.0.2"}}}}"#;
    let read = parse(text).unwrap().container;
    assert_eq!(read.network, NetworkMode::Networks);
    assert!(read.networks.keys().eq(["front"]));
}

#[test]
fn ports_that_are_none_are_left_out() {
    for text in ["0/tcp", "65536/tcp", "80/quic", "x/tcp", ""] {
        assert_eq!(port(text), None, "{text}");
    }
}
