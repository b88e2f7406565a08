//! What Consul holds through the life of a container.

use std::{collections::BTreeMap, time::Duration};

use lb_agent::{
    docker::{Endpoint, Engine, Port, Protocol, Published, State},
    registrar::{Addressing, Config},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::kit::{World, config, container, poll};

#[tokio::test]
async fn containers_are_registered_with_everything_they_say_and_go_with_their_end() {
    let mut world = World::new(config()).await;
    let words = [
        ("SERVICE_NAME", "www_hello"),
        ("SERVICE_TAGS", "b,a"),
        ("SERVICE_REGION", "eu"),
        ("SERVICE_WEIGHT", "5"),
        ("SERVICE_CHECK_TCP", "1"),
        ("SERVICE_CHECK_1_HTTP", "/up"),
        ("SERVICE_CHECK_1_HTTP_METHOD", "HEAD"),
        ("SERVICE_CHECK_1_TIMEOUT", "1s"),
        ("SERVICE_CHECK_1_DEREGISTER_AFTER", "2h"),
        ("SERVICE_CHECK_2_GRPC", "1"),
        ("SERVICE_CHECK_2_GRPC_USE_TLS", "1"),
        ("SERVICE_CHECK_2_TLS_SKIP_VERIFY", "1"),
        ("SERVICE_CHECK_3_TTL", "10m"),
        ("SERVICE_CHECK_3_INITIAL_STATUS", "passing"),
    ];
    world.has(&[container("one", &words), container("two", &[])]);
    world.until_ids(&["lb-test:one:80", "lb-test:two:80"]).await;
    let services = world.read("agent/services").await;
    let one = &services["lb-test:one:80"];
    assert_eq!(one["Service"], "www_hello");
    assert_eq!(one["Tags"], json!(["b", "a"]));
    assert_eq!(
        (&one["Address"], &one["Port"]),
        (&json!("127.0.0.9"), &json!(80))
    );
    assert_eq!(one["Weights"], json!({"Passing": 5, "Warning": 1}));
    assert_eq!(one["Meta"]["region"], "eu");
    assert_eq!(one["Meta"]["lb-registrar"], "lb-test");
    assert_eq!(one["Meta"]["lb-networks"], "bridge=127.0.0.9:80");
    assert_eq!(one["Meta"]["lb-container"], format!("{:0<64}", "one"));
    let checks = world.read("agent/checks").await;
    let of_one = checks.as_object().unwrap().values();
    assert_eq!(
        of_one
            .filter(|it| it["ServiceID"] == "lb-test:one:80")
            .count(),
        4
    );
    assert_eq!(
        world
            .check("service:lb-test:one:80:check-3")
            .await
            .unwrap()
            .0,
        "passing"
    );
    let status = world.until_status(|status| status.synced.is_some()).await;
    assert_eq!(
        (status.host.as_deref(), status.services),
        (Some("lb-test"), 2)
    );
    assert_eq!(status.problems, []);

    world.has(&[container("two", &[])]);
    world.until_ids(&["lb-test:two:80"]).await;
    // A container that starts and dies between two looks leaves nothing.
    world.has(&[container("two", &[]), container("brief", &[])]);
    world.has(&[container("two", &[])]);
    world.settle().await;
    assert_eq!(world.ids().await, ["lb-test:two:80"]);
    world.end().await;
    // Our own end takes nothing along.
    assert_eq!(world.ids().await, ["lb-test:two:80"]);
}

#[tokio::test]
async fn nothing_unchanged_is_registered_again() {
    let mut world = World::new(config()).await;
    let words = [("SERVICE_CHECK_TTL", "10m"), ("SERVICE_TAGS", "x,y")];
    world.has(&[container("one", &words)]);
    world.until_ids(&["lb-test:one:80"]).await;
    let in_catalog = async || Some(world.modified("web").await).filter(|it| !it.is_null());
    let index = poll(in_catalog).await.unwrap();
    world.settle().await;
    world.end().await;
    world.start(config());
    world.until_status(|status| status.synced.is_some()).await;
    world.settle().await;
    assert_eq!(world.modified("web").await, index);
    world.end().await;
}

#[tokio::test]
async fn an_engine_that_has_not_answered_removes_nothing() {
    let mut world = World::new(config()).await;
    world.has(&[container("one", &[])]);
    world.until_ids(&["lb-test:one:80"]).await;
    world.end().await;
    world.engine.send_replace(Engine::default());
    world.start(config());
    // Several times the pause between two looks.
    sleep(Duration::from_millis(700)).await;
    assert_eq!(world.ids().await, ["lb-test:one:80"]);
    world.end().await;
}

#[tokio::test]
async fn a_stop_drains_and_a_pause_is_maintenance_until_its_end() {
    let mut world = World::new(config()).await;
    let id = "lb-test:one:80";
    let mut one = container("one", &[]);
    world.has(std::slice::from_ref(&one));
    world.until_ids(&[id]).await;
    for (state, part) in [
        (State::Paused, Some("paused")),
        (State::Running, None),
        (State::Ending, Some("ending")),
    ] {
        one.state = state;
        world.has(std::slice::from_ref(&one));
        let as_told = async || {
            let reason = world.maintenance(id).await;
            let fits = match (&reason, part) {
                (Some(reason), Some(part)) => reason.contains(part),
                (None, None) => true,
                _ => false,
            };
            fits.then_some(())
        };
        poll(as_told).await.unwrap();
    }
    // A registration would end it: what changes in the last moments is left alone.
    one.labels
        .insert("SERVICE_TAGS".to_owned(), "new".to_owned());
    world.has(std::slice::from_ref(&one));
    world.settle().await;
    assert!(world.maintenance(id).await.unwrap().contains("ending"));
    one.state = State::Exited(0);
    world.has(&[one]);
    world.until_ids(&[]).await;
    world.end().await;
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_the_registration() {
    let config = Config {
        drain: Duration::from_millis(500),
        ..config()
    };
    let mut world = World::new(config).await;
    let mut one = container("one", &[]);
    world.has(std::slice::from_ref(&one));
    world.until_ids(&["lb-test:one:80"]).await;
    one.state = State::Ending;
    world.has(&[one]);
    world.until_ids(&[]).await;
    world.end().await;
}

#[tokio::test]
async fn an_operators_maintenance_outlives_a_registration_a_pause_and_us() {
    let mut world = World::new(config()).await;
    let id = "lb-test:one:80";
    let mut one = container("one", &[]);
    world.has(std::slice::from_ref(&one));
    world.until_ids(&[id]).await;
    let path = format!("agent/service/maintenance/{id}?enable=true&reason=disk");
    world.consul.put(&path, Value::Null).await;
    one.labels
        .insert("SERVICE_TAGS".to_owned(), "new".to_owned());
    world.has(std::slice::from_ref(&one));
    let tagged = async || {
        let services = world.read("agent/services").await;
        (services[id]["Tags"] == json!(["new"])).then_some(())
    };
    poll(tagged).await.unwrap();
    let kept = async || (world.maintenance(id).await.as_deref() == Some("disk")).then_some(());
    poll(kept).await.unwrap();
    for state in [State::Paused, State::Running] {
        one.state = state;
        world.has(std::slice::from_ref(&one));
        world.settle().await;
        assert_eq!(world.maintenance(id).await.as_deref(), Some("disk"));
    }
    world.end().await;
}

#[tokio::test]
async fn a_rename_or_another_network_registers_again() {
    let mut world = World::new(config()).await;
    let mut one = container("one", &[]);
    world.has(std::slice::from_ref(&one));
    world.until_ids(&["lb-test:one:80"]).await;
    one.name = "other".to_owned();
    world.has(std::slice::from_ref(&one));
    world.until_ids(&["lb-test:other:80"]).await;
    let endpoint = Endpoint {
        ipv4: Some([127, 0, 0, 10].into()),
        ipv6: None,
    };
    one.networks = BTreeMap::from([("second".to_owned(), endpoint)]);
    world.has(&[one]);
    let moved = async || {
        let services = world.read("agent/services").await;
        (services["lb-test:other:80"]["Address"] == "127.0.0.10").then_some(())
    };
    poll(moved).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn other_addresses_of_the_host_are_there_under_their_tags() {
    let tagged = |tags: &[(&str, [u8; 4])]| {
        let mut config = config();
        let tags = tags.iter();
        config.settings.tagged = tags
            .map(|(tag, ip)| ((*tag).to_owned(), (*ip).into()))
            .collect();
        config.settings.ip = Some([192, 0, 2, 1].into());
        config.settings.addressing = Addressing::Published;
        config
    };
    let mut world = World::new(tagged(&[
        ("wan", [203, 0, 113, 9]),
        ("store", [10, 9, 0, 1]),
    ]))
    .await;
    let id = "lb-test:one:80";
    let mut one = container("one", &[]);
    one.published = vec![Published {
        port: Port {
            number: 80,
            protocol: Protocol::Tcp,
        },
        host_address: [0, 0, 0, 0].into(),
        host_port: 8080,
    }];
    world.has(&[one]);
    world.until_ids(&[id]).await;
    let services = world.read("agent/services").await;
    let addresses = &services[id]["TaggedAddresses"];
    assert_eq!(
        addresses["wan"],
        json!({"Address": "203.0.113.9", "Port": 8080})
    );
    assert_eq!(
        addresses["store"],
        json!({"Address": "10.9.0.1", "Port": 8080})
    );
    assert_eq!(services[id]["Address"], "192.0.2.1");
    // Consul adds some by itself, which is no difference.
    let in_catalog = async || Some(world.modified("web").await).filter(|it| !it.is_null());
    let index = poll(in_catalog).await.unwrap();
    world.settle().await;
    assert_eq!(world.modified("web").await, index);
    world.end().await;

    world.start(tagged(&[("wan", [203, 0, 113, 10])]));
    let changed = async || {
        let services = world.read("agent/services").await;
        let addresses = &services[id]["TaggedAddresses"];
        (addresses["wan"]["Address"] == "203.0.113.10" && addresses["store"].is_null())
            .then_some(())
    };
    let seen = poll(changed).await;
    assert!(seen.is_some(), "{:?}", world.read("agent/services").await);
    world.end().await;
}
