//! How containers are connected, and what the source makes of it.

use lb_agent::{
    discover::docker::{Config, catalog},
    docker::{NetworkMode, State},
    registrar::Addressing,
};

use crate::kit::{engine, follow, start};

#[tokio::test(flavor = "multi_thread")]
async fn joining_and_leaving_networks_is_followed() {
    let docker = engine();
    let mut follower = follow(&docker);
    docker.docker(["network", "create", "lb-other"]).unwrap();
    let id = start(&docker, "one", &[]);
    follower
        .until_container("one", |it| it.networks.contains_key("bridge"))
        .await;
    docker
        .docker(["network", "connect", "lb-other", "one"])
        .unwrap();
    let both = follower
        .until_container("one", |it| it.networks.len() == 2)
        .await;
    assert!(
        both.networks
            .values()
            .all(|endpoint| endpoint.ipv4.is_some())
    );
    docker
        .docker(["network", "disconnect", "bridge", "one"])
        .unwrap();
    follower
        .until_container("one", |it| it.networks.keys().eq(["lb-other"]))
        .await;
    assert!(!follower.departed.borrow().contains(&id));
    docker
        .docker(["network", "disconnect", "lb-other", "one"])
        .unwrap();
    follower
        .until_container("one", |it| it.networks.is_empty())
        .await;
    // It runs, but nobody reaches it.
    assert!(follower.departed.borrow().contains(&id));
    docker
        .docker(["network", "connect", "bridge", "one"])
        .unwrap();
    follower
        .until_container("one", |it| it.networks.len() == 1)
        .await;
    follower.until_it_agrees_with(&docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_knows_the_addresses_of_every_kind_of_network() {
    let docker = engine();
    let mut follower = follow(&docker);
    docker.docker(["network", "create", "lb-other"]).unwrap();
    start(&docker, "own", &["-l", "SERVICE_NAME=own", "-p", "8080:80"]);
    start(
        &docker,
        "other",
        &["-l", "SERVICE_NAME=other", "--net", "lb-other"],
    );
    start(
        &docker,
        "host",
        &["-l", "SERVICE_NAME=host", "--net", "host"],
    );
    // The port 80 of that namespace is taken.
    let shared = "run -d --name shared -l SERVICE_80_IGNORE=yes -l SERVICE_81_NAME=shared";
    let command = "--net container:own web /bin/busybox httpd -f -p 81 -h /www";
    docker
        .docker(shared.split(' ').chain(command.split(' ')))
        .unwrap();
    start(&docker, "none", &["--net", "none"]);
    docker
        .docker(["create", "--name", "created", "web"])
        .unwrap();
    docker
        .docker(["network", "connect", "lb-other", "own"])
        .unwrap();
    follower
        .until_container("none", |it| it.network == NetworkMode::None)
        .await;
    follower
        .until_container("created", |it| it.state == State::Created)
        .await;
    let own = follower
        .until_container("own", |it| it.networks.len() == 2)
        .await;
    follower
        .until_container("shared", |it| {
            it.network == NetworkMode::Container(own.id.clone())
        })
        .await;
    follower.until_it_agrees_with(&docker).await;

    let containers = follower.engine.borrow().containers.clone().unwrap();
    let config = Config {
        networks: vec!["bridge".to_owned()],
        addressing: Addressing::Internal,
    };
    let address = Some("172.31.0.1".parse().unwrap());
    let catalog = catalog(&containers, "lb", address, &config, None);
    let names: Vec<&str> = catalog.services.keys().map(|name| &**name).collect();
    assert_eq!(
        names,
        ["host", "other", "own", "shared"],
        "{:?}",
        catalog.problems
    );
    let only = |name: &str| {
        assert_eq!(catalog.services[name].len(), 1, "{name}");
        catalog.services[name][0].clone()
    };
    let (bridge, other) = (&own.networks["bridge"], &own.networks["lb-other"]);
    let instance = only("own");
    assert_eq!(Some(instance.address.ip()), bridge.ipv4.map(Into::into));
    assert_eq!(
        Some(instance.reach.networks["lb-other"].ip()),
        other.ipv4.map(Into::into)
    );
    assert_eq!(
        instance.reach.published,
        Some("172.31.0.1:8080".parse().unwrap())
    );
    assert_eq!(only("host").address, "127.0.0.1:80".parse().unwrap());
    let shared = only("shared").address;
    assert_eq!(
        (Some(shared.ip()), shared.port()),
        (bridge.ipv4.map(Into::into), 81)
    );
}
