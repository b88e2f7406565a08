//! What was lost, left behind, or belongs to somebody else.

use std::collections::BTreeSet;

use lb_agent::{docker::State, registrar::Config};
use serde_json::json;

use crate::kit::{World, config, container, poll};

#[tokio::test]
async fn a_consul_that_lost_everything_gets_it_back() {
    let mut world = World::new(config()).await;
    let mut one = container("one", &[]);
    one.state = State::Paused;
    world.has(&[one, container("two", &[])]);
    let both = ["lb-test:one:80", "lb-test:two:80"];
    world.until_ids(&both).await;
    world.consul.kill();
    let status = world.until_status(|status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("cannot reach Consul"));
    world.consul.wipe().await;
    world.until_ids(&both).await;
    let paused = async || world.maintenance(both[0]).await;
    poll(paused).await.unwrap();
    world.until_status(|status| status.error.is_none()).await;
    world.end().await;
}

#[tokio::test]
async fn dangling_services_are_swept_at_the_start_and_those_of_others_never() {
    let mut world = World::new(config()).await;
    let register = async |id: &str, host: &str| {
        let body = json!({"Name": "x", "ID": id, "Meta": {"lb-registrar": host}});
        world.consul.put("agent/service/register", body).await;
    };
    register("lb-test:gone:80", "lb-test").await;
    register("custom", "lb-test").await;
    register("elsewhere:gone:80", "elsewhere").await;
    world.consul.register("plain", "lb-test:old:80", 1).await;
    world.has(&[container("one", &[])]);
    world
        .until_ids(&["elsewhere:gone:80", "lb-test:old:80", "lb-test:one:80"])
        .await;
    // And later ones too.
    register("custom", "lb-test").await;
    world
        .until_ids(&["elsewhere:gone:80", "lb-test:old:80", "lb-test:one:80"])
        .await;
    world.end().await;
    world.start(Config {
        adopt: BTreeSet::from(["lb-test".to_owned()]),
        deregister_on_exit: true,
        ..config()
    });
    world
        .until_ids(&["elsewhere:gone:80", "lb-test:one:80"])
        .await;
    // Another one follows: that is no exit.
    world.hand_over().await;
    assert_eq!(world.ids().await, ["elsewhere:gone:80", "lb-test:one:80"]);
    world.start(Config {
        deregister_on_exit: true,
        ..config()
    });
    world.until_status(|status| status.synced.is_some()).await;
    world.end().await;
    assert_eq!(world.ids().await, ["elsewhere:gone:80"]);
}

#[tokio::test]
async fn an_id_that_somebody_else_has_is_told() {
    let mut world = World::new(config()).await;
    world.consul.register("plain", "lb-test:one:80", 1).await;
    world.has(&[container("one", &[]), container("two", &[])]);
    let status = world
        .until_status(|status| !status.problems.is_empty())
        .await;
    assert!(
        status.problems[0]
            .message
            .contains("Consul has that id already")
    );
    world.until_ids(&["lb-test:one:80", "lb-test:two:80"]).await;
    assert_eq!(
        world.read("agent/services").await["lb-test:one:80"]["Service"],
        "plain"
    );
    world.end().await;
}

#[tokio::test]
async fn what_others_register_with_impossible_ports_costs_nobody_else_anything() {
    let mut world = World::new(config()).await;
    for (id, port) in [("below", -1_i64), ("above", 1 << 32)] {
        let tagged = json!({"lan": {"Address": "10.99.0.1", "Port": port}});
        let body = json!({"Name": "odd", "ID": id, "Port": port, "TaggedAddresses": tagged});
        world.consul.put("agent/service/register", body).await;
    }
    world.has(&[container("one", &[])]);
    world.until_ids(&["above", "below", "lb-test:one:80"]).await;
    world.has(&[]);
    world.until_ids(&["above", "below"]).await;
    world.until_status(|status| status.error.is_none()).await;
    world.end().await;
}

#[tokio::test]
async fn another_hosts_agent_is_told_and_a_registration_at_the_limits_is_taken() {
    let config = Config {
        host: Some("elsewhere".to_owned()),
        ..config()
    };
    let mut world = World::new(config).await;
    let mut one = container("one", &[("SERVICE_ID", "a/b c")]);
    let long = "ü".repeat(600);
    one.environment
        .extend((0..100).map(|n| (format!("SERVICE_KEY{n}"), long.clone())));
    world.has(&[one]);
    world.until_ids(&["a/b c"]).await;
    let status = world
        .until_status(|status| status.problems.len() == 2)
        .await;
    let told = |part: &str| status.problems.iter().any(|it| it.message.contains(part));
    assert!(
        told("belongs to node lb-test, and this host is elsewhere"),
        "{:?}",
        status.problems
    );
    assert!(told("Consul would refuse its metadata"));
    world.has(&[]);
    world.until_ids(&[]).await;
    world.end().await;
}

#[tokio::test]
async fn what_somebody_removes_comes_back() {
    let mut world = World::new(config()).await;
    world.has(&[container("one", &[])]);
    world.until_ids(&["lb-test:one:80"]).await;
    world.consul.deregister("lb-test:one:80").await;
    world.until_ids(&["lb-test:one:80"]).await;
    world.end().await;
}
