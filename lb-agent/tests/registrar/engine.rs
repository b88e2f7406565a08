//! `lb-agent register` between a real Docker Engine and a real Consul.

use std::{collections::BTreeSet, time::Duration};

use lb_testkit::eventually;
use serde_json::Value;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn consul_holds_exactly_what_runs_through_every_turn_of_a_containers_life() {
    let mut world = World::new().await;
    world.run("early", &["-e", "SERVICE_NAME=first"]);
    world.register(&["-internal"]);
    world.until(&["first h:early:80"]).await;

    world.run(
        "one",
        &["-l", "SERVICE_80_NAME=www_hello", "-e", "SERVICE_TAGS=a,b"],
    );
    world
        .until(&["first h:early:80", "www_hello h:one:80"])
        .await;
    let service = &world.read("agent/services").await["h:one:80"];
    let networks = service["Meta"]["lb-networks"].as_str().unwrap();
    let address = format!(
        "{}:{}",
        service["Address"].as_str().unwrap(),
        service["Port"]
    );
    assert_eq!(networks, format!("bridge={address}"));

    world.docker(&["rename", "one", "two"]);
    world
        .until(&["first h:early:80", "www_hello h:two:80"])
        .await;
    world.docker(&["pause", "two"]);
    world
        .until_check("_service_maintenance:h:two:80", Some("critical"))
        .await;
    world.docker(&["unpause", "two"]);
    world
        .until_check("_service_maintenance:h:two:80", None)
        .await;
    world.docker(&["restart", "two"]);
    world
        .until(&["first h:early:80", "www_hello h:two:80"])
        .await;
    world.docker(&["kill", "two"]);
    world.until(&["first h:early:80"]).await;
    world.docker(&["start", "two"]);
    world
        .until(&["first h:early:80", "www_hello h:two:80"])
        .await;
    world.docker(&["rm", "-f", "two"]);
    world.until(&["first h:early:80"]).await;

    // Dead within its first moment, many times over.
    for round in 0..5 {
        let name = format!("brief-{round}");
        world.docker(&["run", "--name", &name, "web", "/bin/busybox", "true"]);
    }
    world.run("last", &[]);
    world.until(&["first h:early:80", "web h:last:80"]).await;
    world.docker(&["stop", "last"]);
    world.until(&["first h:early:80"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_and_a_restart_of_each_part_lose_nothing() {
    let mut world = World::new().await;
    world.register(&["-internal"]);
    let names: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| world.run(name, &[]));
            }
        });
    });
    let all = |names: &[String]| names.iter().map(|it| format!("web h:{it}:80")).collect();
    world.until_all(&all(&names)).await;

    // While nobody looks, one goes and one comes.
    world.end();
    world.docker(&["kill", "c0"]);
    world.run("c8", &[]);
    world.register(&["-internal"]);
    let names: Vec<String> = (1..9).map(|n| format!("c{n}")).collect();
    world.until_all(&all(&names)).await;

    // The engine ends all containers with itself.
    tokio::task::block_in_place(|| {
        world.docker.stop().unwrap();
        world.docker.run().unwrap();
    });
    world.until(&[]).await;
    world.docker(&["start", "c1", "c2"]);
    world.until(&["web h:c1:80", "web h:c2:80"]).await;
    world.consul.wipe().await;
    world.until(&["web h:c1:80", "web h:c2:80"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_follow_networks_and_the_preview_says_the_same() {
    let mut world = World::new().await;
    world.docker(&["network", "create", "lb-other"]);
    world.register(&["-internal"]);
    world.run("one", &[]);
    world.until(&["web h:one:80"]).await;
    let before = world.services().await;
    // Which of two is meant is not known; it says so instead of guessing.
    world.docker(&["network", "connect", "lb-other", "one"]);
    world.until(&[]).await;
    world.docker(&["network", "disconnect", "bridge", "one"]);
    world.until(&["web h:one:80"]).await;
    assert_ne!(world.services().await, before);
    assert!(
        world
            .log()
            .contains("it is on several networks (bridge, lb-other)"),
        "{}",
        world.log()
    );

    world.run(
        "two",
        &["--network", "lb-other", "-l", "SERVICE_NETWORK=bridge"],
    );
    world.docker(&["network", "connect", "bridge", "two"]);
    world.until(&["web h:one:80", "web h:two:80"]).await;
    world.run("host", &["--network", "host", "-l", "SERVICE_NAME=hosted"]);
    // Port 80 of that network is taken.
    world.docker(&[
        "run",
        "-d",
        "--name",
        "shared",
        "--network",
        "container:one",
        "-l",
        "SERVICE_81_NAME=side",
        "-l",
        "SERVICE_80_IGNORE=1",
        "--stop-signal",
        "KILL",
        "web",
        "/bin/busybox",
        "sleep",
        "600",
    ]);
    world.run(
        "published",
        &["-p", "8080:80", "-l", "SERVICE_IP=192.0.2.9"],
    );
    let all = [
        "web h:one:80",
        "web h:two:80",
        "side h:shared:81",
        "web h:published:80",
    ];
    // The Consul agent belongs to another node, so its address is not this host's.
    world.until(&all).await;
    world.register(&["-internal", "-ip=192.0.2.1"]);
    world
        .until(&[&all[..], &["hosted h:host:80"]].concat())
        .await;
    world
        .until_meta("h:published:80", "lb-published", "192.0.2.1:8080")
        .await;
    let services = world.read("agent/services").await;
    assert_eq!(services["h:host:80"]["Address"], "192.0.2.1");
    assert_eq!(
        services["h:shared:81"]["Address"],
        services["h:one:80"]["Address"]
    );

    let output = world.command(&["-internal", "--dry-run"]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for line in world.services().await {
        let words: Vec<_> = line.split(' ').collect();
        let [name, address, id] = words[..] else {
            panic!("{line}");
        };
        let expect = format!("  registers {name} at {address} as {id}\n");
        assert!(
            text.contains(&expect) || id == "h:host:80",
            "{expect}{text}"
        );
    }
    assert!(
        text.contains("leaves out: port 80/tcp: SERVICE_IGNORE is set"),
        "{text}"
    );
    let flags = ["-internal", "-ip=192.0.2.1", "--dry-run", "-o", "json"];
    let output = world.command(&flags).output().unwrap();
    assert!(output.status.success());
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["host"], "h");
    let previewed = json["containers"].as_array().unwrap().iter();
    let previewed = previewed.flat_map(|it| it["registers"].as_array().unwrap());
    let line = |it: &Value| {
        let text = |key: &str| it[key].as_str().unwrap().to_owned();
        format!(
            "{} {}:{} {}",
            text("Name"),
            text("Address"),
            it["Port"],
            text("ID")
        )
    };
    assert_eq!(
        previewed.map(line).collect::<BTreeSet<_>>(),
        world.services().await
    );
    // The Consul agent is that of another host.
    let problem = json["problems"][0]["message"].as_str().unwrap();
    assert!(problem.contains("belongs to node"), "{problem}");

    // Of published ports only those of the host are.
    world.register(&["-ip=192.0.2.1"]);
    world
        .until(&["web h:published:80", "hosted h:host:80"])
        .await;
    assert!(
        world
            .services()
            .await
            .contains("web 192.0.2.9:8080 h:published:80")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_ends_the_command_so_that_its_socket_is_mounted_anew() {
    let mut world = World::new().await;
    world.register(&["-internal", "--give-up=1s"]);
    world.run("one", &[]);
    world.until(&["web h:one:80"]).await;
    tokio::task::block_in_place(|| world.docker.kill().unwrap());
    let mut child = world.register.take().unwrap();
    let ended = || match child.try_wait() {
        Ok(Some(status)) => Ok(status.code()),
        other => Err(format!("{other:?}")),
    };
    let code = tokio::task::block_in_place(|| eventually(Duration::from_secs(30), ended).unwrap());
    assert_eq!(code, Some(1));
    assert!(
        world.log().contains("the Docker Engine has been away"),
        "{}",
        world.log()
    );
    // Unknown is not empty.
    assert_eq!(world.services().await.len(), 1);
}
