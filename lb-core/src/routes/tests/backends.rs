//! Which backends the front gets, and which it is told to leave out.

use super::*;

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
fn a_service_without_usable_backend_keeps_its_names() {
    let mut down = backend("10.0.0.1:80", &[]);
    down.probe.state = ProbeState::Down;
    let (routes, _) = routes([(ServiceName::whole("web"), service(&[], &[down]))]);
    assert!(!routes.find("web").unwrap().backends[0].usable);
}
