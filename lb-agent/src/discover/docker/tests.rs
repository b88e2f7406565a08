use std::collections::BTreeSet;

use super::*;
use crate::docker::{Endpoint, Port, Published};

const TCP80: Port = Port {
    number: 80,
    protocol: Protocol::Tcp,
};

fn web(id: &str) -> Container {
    let endpoint = |last| Endpoint {
        ipv4: Some(Ipv4Addr::new(172, 17, 0, last)),
        ipv6: None,
    };
    Container {
        id: id.to_owned(),
        name: format!("web-{id}"),
        image: "registry:5000/team/web:1.2".to_owned(),
        created: 7,
        environment: Vec::new(),
        labels: BTreeMap::new(),
        exposed: [TCP80].into(),
        published: Vec::new(),
        network: NetworkMode::Networks,
        networks: [("bridge".to_owned(), endpoint(2))].into(),
        state: State::Running,
        process: None,
        health: None,
        runtime: String::new(),
    }
}

fn labelled(mut container: Container, labels: &[(&str, &str)]) -> Container {
    let labels = labels
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()));
    container.labels.extend(labels);
    container
}

fn all(containers: impl IntoIterator<Item = Container>) -> Containers {
    let containers = containers.into_iter();
    containers.map(|it| (it.id.clone(), Arc::new(it))).collect()
}

fn read(containers: &Containers) -> Catalog {
    read_after(containers, None)
}

fn read_after(containers: &Containers, before: Option<&Catalog>) -> Catalog {
    let config = Config {
        networks: Vec::new(),
        addressing: Addressing::Internal,
    };
    let address = Some("10.0.0.5".parse().unwrap());
    catalog(containers, "host", address, &config, before)
}

/// The only instance of the only service.
#[track_caller]
fn only(container: Container) -> (String, Instance) {
    let catalog = read(&all([container]));
    assert_eq!(catalog.problems, []);
    let (name, instances) = catalog.services.iter().next().unwrap();
    assert_eq!((catalog.services.len(), instances.len()), (1, 1));
    (name.to_string(), (*instances[0]).clone())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_container_without_a_word_is_a_service_named_after_its_image() {
    let (name, instance) = only(web("a"));
    assert_eq!(name, "web");
    assert_eq!(instance.key.to_string(), "host/host:web-a:80");
    assert_eq!(instance.address, address("172.17.0.2:80"));
    assert_eq!(instance.reach.networks["bridge"], instance.address);
    assert_eq!(instance.reach.published, None);
    assert_eq!(
        (instance.local, instance.container.as_deref()),
        (true, Some("a"))
    );
    assert_eq!((instance.weight, instance.registered), (1, 7));
    assert_eq!(instance.health, SourceHealth::Passing);
    assert_eq!(*instance.meta, BTreeMap::new());
}

#[test]
fn labels_name_tag_weigh_and_set_options() {
    let (name, instance) = only(labelled(
        web("a"),
        &[
            ("SERVICE_NAME", "shop"),
            ("SERVICE_TAGS", "blue,lb_expose=true"),
            ("SERVICE_WEIGHT", "5"),
            ("SERVICE_LB_BALANCE", "random"),
            ("SERVICE_80_CHECK_HTTP", "/health"),
        ],
    ));
    assert_eq!(name, "shop");
    assert_eq!(
        *instance.tags,
        ["blue", "lb_expose=true"].map(str::to_owned).into()
    );
    assert_eq!(instance.weight, 5);
    assert_eq!(instance.meta["lb_balance"], "random");
    assert_eq!(instance.meta["lb_check"], "http /health");
}

#[test]
fn a_udp_port_is_an_instance_of_its_own_and_is_not_probed_like_the_tcp_port_beside_it() {
    let udp = |number| Port {
        number,
        protocol: Protocol::Udp,
    };
    let mut container = labelled(
        web("a"),
        &[
            ("SERVICE_80_NAME", "shop"),
            ("SERVICE_80_CHECK_HTTP", "/up"),
        ],
    );
    container.exposed.insert(udp(80));
    container.exposed.insert(udp(514));
    let catalog = read(&all([container]));
    let found = |name: &str| {
        let of = |it: &Arc<Instance>| {
            let (id, tags) = (it.key.id.to_string(), (*it.tags).clone());
            let check = it.meta.get("lb_check").cloned();
            (id, it.address.to_string(), tags, check)
        };
        catalog.services[name].iter().map(of).collect::<Vec<_>>()
    };
    let tagged = BTreeSet::from(["udp".to_owned()]);
    let at = |port: u16| format!("172.17.0.2:{port}");
    let probe = Some("http /up".to_owned());
    assert_eq!(
        found("shop"),
        [
            ("host:web-a:80".to_owned(), at(80), BTreeSet::new(), probe),
            ("host:web-a:80:udp".to_owned(), at(80), tagged.clone(), None),
        ]
    );
    let log = ("host:web-a:514:udp".to_owned(), at(514), tagged, None);
    assert_eq!(found("web-514"), [log]);
    assert_eq!(catalog.problems, []);
}

#[test]
fn only_a_running_and_healthy_container_passes() {
    use SourceHealth::{Critical, Maintenance, Passing};
    let unhealthy = Health::Unhealthy("no answer".to_owned());
    for (state, health, expected) in [
        (State::Running, None, Some(Passing)),
        (State::Running, Some(Health::Healthy), Some(Passing)),
        (State::Running, Some(Health::Starting), Some(Critical)),
        (State::Running, Some(unhealthy), Some(Critical)),
        (State::Paused, Some(Health::Healthy), Some(Maintenance)),
        (State::Ending, Some(Health::Healthy), None),
        (State::Exited(0), None, None),
        (State::Created, None, None),
    ] {
        let shown = format!("{state:?} {health:?}");
        let container = Container {
            state,
            health,
            ..web("a")
        };
        let catalog = read(&all([container]));
        let found = catalog.services.get("web").map(|all| all[0].health);
        assert_eq!(found, expected, "{shown}");
    }
}

#[test]
fn a_published_port_is_reached_from_elsewhere_by_the_hosts_address() {
    let publish = |host: &str| Container {
        published: vec![Published {
            port: TCP80,
            host_address: host.parse().unwrap(),
            host_port: 8080,
        }],
        ..web("a")
    };
    let (_, instance) = only(publish("0.0.0.0"));
    assert_eq!(instance.address, address("172.17.0.2:80"));
    assert_eq!(instance.reach.published, Some(address("10.0.0.5:8080")));
    // Another container's loopback is its own.
    let (_, instance) = only(publish("127.0.0.1"));
    assert_eq!(instance.reach.published, None);
}

#[test]
fn a_container_on_the_hosts_network_is_at_loopback() {
    let host = Container {
        network: NetworkMode::Host,
        networks: BTreeMap::new(),
        ..web("a")
    };
    let (_, instance) = only(host);
    assert_eq!(instance.address, address("127.0.0.1:80"));
    assert_eq!(instance.reach.published, Some(address("10.0.0.5:80")));
}

#[test]
fn a_container_on_several_networks_is_reached_on_the_one_it_asks_for() {
    let mut both = web("a");
    let other = Endpoint {
        ipv4: Some(Ipv4Addr::new(10, 9, 0, 2)),
        ipv6: None,
    };
    both.networks.insert("z-net".to_owned(), other);
    let (_, instance) = only(both.clone());
    assert_eq!(instance.address, address("172.17.0.2:80"));
    assert_eq!(instance.reach.networks.len(), 2);
    let (_, instance) = only(labelled(both, &[("SERVICE_NETWORK", "z-net")]));
    assert_eq!(instance.address, address("10.9.0.2:80"));
}

#[test]
fn a_shared_namespace_is_that_of_the_other_container() {
    let sidecar = Container {
        network: NetworkMode::Container("a".to_owned()),
        networks: BTreeMap::new(),
        exposed: BTreeSet::new(),
        ..labelled(web("b"), &[("SERVICE_9000_NAME", "side")])
    };
    let catalog = read(&all([web("a"), sidecar]));
    assert_eq!(
        catalog.services["side"][0].address,
        address("172.17.0.2:9000")
    );
}

#[test]
fn what_stays_the_same_keeps_its_allocation() {
    let other = labelled(web("b"), &[("SERVICE_NAME", "other")]);
    let before = read(&all([web("a"), other.clone()]));
    let after = read_after(&all([web("a"), other, web("c")]), Some(&before));
    assert!(Arc::ptr_eq(
        &before.services["other"],
        &after.services["other"]
    ));
    assert!(Arc::ptr_eq(
        &before.services["web"][0],
        &after.services["web"][0]
    ));
    assert_eq!(after.services["web"].len(), 2);
}

#[tokio::test]
async fn what_is_known_stays_while_the_engine_is_away() {
    let (engine_in, engine) = watch::channel(Engine::default());
    let (out, mut state) = watch::channel(SourceState::default());
    let stop = CancellationToken::new();
    let config = Config {
        networks: Vec::new(),
        addressing: Addressing::Internal,
    };
    let stage = tokio::spawn(run(config, engine, out, stop.clone()));
    engine_in.send_modify(|engine| engine.error = Some("away".to_owned()));
    let first = state
        .wait_for(|state| state.error.is_some())
        .await
        .unwrap()
        .clone();
    assert_eq!(first.catalog, None);
    engine_in.send_modify(|engine| {
        engine.containers = Some(Arc::new(all([web("a")])));
        engine.error = None;
    });
    state
        .wait_for(|state| state.catalog.is_some() && state.error.is_none())
        .await
        .unwrap();
    engine_in.send_modify(|engine| engine.error = Some("away".to_owned()));
    let last = state
        .wait_for(|state| state.error.is_some())
        .await
        .unwrap()
        .clone();
    assert_eq!(last.catalog.unwrap().services.len(), 1);
    stop.cancel();
    stage.await.unwrap();
}
