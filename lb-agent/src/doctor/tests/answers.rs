//! What those say who are asked: Consul, the kernel, the listeners.

use super::*;

fn listener(protocol: &'static str, place: &str) -> Listener {
    let place: std::net::SocketAddr = place.parse().unwrap();
    Listener {
        protocol,
        ip: place.ip(),
        port: place.port(),
        inode: 1,
    }
}

fn well() -> Consul {
    Consul {
        has_leader: true,
        knows_token: true,
        ..Consul::default()
    }
}

/// What is planted among the answers, and what must be found of it.
type Answer = (fn(&mut Facts), &'static [Expected]);

/// What is not well with those who were asked.
const ANSWERS: [Answer; 16] = [
    (
        |it| {
            it.network.taken = vec![(
                listener("tcp", "0.0.0.0:80"),
                Some("docker-proxy (process 7)".to_owned()),
            )];
        },
        &[(
            "ports",
            Mark::Error,
            "docker-proxy (process 7) has tcp 0.0.0.0:80",
            "--front",
        )],
    ),
    (
        |it| it.network.taken = vec![(listener("udp", "0.0.0.0:53"), None)],
        &[("ports", Mark::Error, "has udp 0.0.0.0:53", "--dns")],
    ),
    (
        // The front of an agent that was killed.
        |it| {
            let front = Some("lb-agent (process 7)".to_owned());
            it.network.taken = vec![(listener("tcp", "0.0.0.0:80"), front)];
        },
        &[],
    ),
    (
        |it| it.network.in_the_way = vec![("198.18.0.0/16".parse().unwrap(), "a route".to_owned())],
        &[(
            "pool",
            Mark::Error,
            "198.18.0.0/16 is in use by somebody else: a route",
            "--pool",
        )],
    ),
    (
        |it| it.host.refuses_bpf = Some(true),
        &[("bpf", Mark::Error, "seccomp", "compose/seccomp.json")],
    ),
    (
        |it| {
            drop(
                it.host
                    .others
                    .insert("connect4", vec!["cil (program 3)".to_owned()]),
            );
        },
        &[(
            "hooks",
            Mark::Warning,
            "connect4: cil (program 3)",
            "Cilium",
        )],
    ),
    (
        |it| it.consul = Some(Err("cannot reach Consul".to_owned())),
        &[("consul", Mark::Error, "cannot reach Consul", "--consul")],
    ),
    (
        |it| {
            it.consul = Some(Ok(Consul {
                has_leader: false,
                ..well()
            }));
        },
        &[("consul", Mark::Error, "no leader", "raft")],
    ),
    (
        |it| {
            it.consul = Some(Ok(Consul {
                lacks: vec!["service_prefix \"\" read"],
                ..well()
            }));
        },
        &[(
            "consul token",
            Mark::Error,
            "service_prefix \"\" read",
            "policy",
        )],
    ),
    (
        |it| {
            it.consul = Some(Ok(Consul {
                lacks: vec!["key_prefix \"lb-agent/\" write"],
                ..well()
            }));
        },
        &[("consul token", Mark::Warning, "key_prefix", "policy")],
    ),
    (
        |it| {
            it.consul = Some(Ok(Consul {
                ahead: Some(-90),
                ..well()
            }));
        },
        &[("consul", Mark::Warning, "90 s behind ours", "NTP")],
    ),
    (
        |it| it.docker = Some(Err("the Docker Engine answers /info with 403".to_owned())),
        &[("docker", Mark::Error, "403", "/networks")],
    ),
    (
        |it| it.dns.answer = Some(Some("198.18.0.1:53: refused".to_owned())),
        &[(
            "resolver",
            Mark::Error,
            "198.18.0.1:53: refused",
            "firewall",
        )],
    ),
    (
        |it| it.dns.upstreams = Some(vec!["198.18.0.1:53".parse().unwrap()]),
        &[("upstreams", Mark::Error, "ask itself", "[dns] upstreams")],
    ),
    (
        |it| it.dns.host = Some(Ok(Some(IpAddr::from([198, 18, 9, 9])))),
        &[(
            "host names",
            Mark::Warning,
            "198.18.9.9",
            "resolver install",
        )],
    ),
    (
        |it| {
            let line = Component::new("data plane", Mark::Warning, "fullest map BACKENDS at 90 %");
            it.agent = Agent::Answers {
                version: "0.0.1".to_owned(),
                components: vec![line],
                problems: 2,
            };
        },
        &[
            ("version", Mark::Warning, "0.0.1", "restart"),
            ("agent", Mark::Warning, "fullest map BACKENDS", "status"),
            ("problems", Mark::Warning, "2 problems", "status"),
        ],
    ),
];

fn answered() -> Facts {
    Facts {
        consul: Some(Ok(well())),
        docker: Some(Ok(Some(0))),
        dns: Dns {
            answer: Some(None),
            host: Some(Ok(None)),
            upstreams: Some(vec!["9.9.9.9:53".parse().unwrap()]),
        },
        probes: Some(Vec::new()),
        ..Facts::default()
    }
}

#[test]
fn each_answer_that_is_not_well_is_found_alone() {
    let config = config();
    let well = faults(judge(&answered(), Some(&config)));
    assert_eq!(well, []);
    for (plant, expected) in ANSWERS {
        let mut facts = answered();
        plant(&mut facts);
        expect(&faults(judge(&facts, Some(&config))), expected);
    }
}
