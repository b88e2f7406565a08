//! Checks that the registrar reports, and those that Consul makes itself.

use std::time::Duration;

use lb_agent::docker::{Health, State};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    kit::{World, config, container, poll},
    support::Consul,
    world,
};

#[tokio::test]
async fn a_healthcheck_is_passed_on() {
    let mut world = World::new(config()).await;
    let check = "service:lb-test:one:80:docker";
    let mut one = container("one", &[]);
    for (health, status, part) in [
        (Health::Starting, "critical", "starting"),
        (Health::Healthy, "passing", "healthy"),
        (Health::Unhealthy("exit 7".to_owned()), "critical", "exit 7"),
        (Health::Healthy, "passing", "healthy"),
    ] {
        one.health = Some(health);
        world.has(std::slice::from_ref(&one));
        let seen = async || {
            let (now, output) = world.check(check).await?;
            (now == status && output.contains(part)).then_some(())
        };
        assert!(
            poll(seen).await.is_some(),
            "{status}: {:?}",
            world.check(check).await
        );
    }
    world.end().await;
}

#[tokio::test]
async fn a_heartbeat_is_renewed_and_fails_with_us() {
    let mut config = config();
    config.settings.ttl = Some(Duration::from_secs(1));
    let mut world = World::new(config).await;
    world.has(&[container("one", &[])]);
    let check = "service:lb-test:one:80:registrar";
    let status = async || Some(world.check(check).await?.0);
    let passing = async || status().await.filter(|it| it == "passing");
    poll(passing).await.unwrap();
    // Twice its time.
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert_eq!(status().await.as_deref(), Some("passing"));
        sleep(Duration::from_millis(50)).await;
    }
    world.stop.cancel();
    let critical = async || status().await.filter(|it| it == "critical");
    poll(critical).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_script_that_consul_refuses_is_a_critical_check_that_says_why() {
    let mut world = World::new(config()).await;
    world.has(&[container(
        "one",
        &[
            ("SERVICE_CHECK_SCRIPT", "true"),
            ("SERVICE_CHECK_1_TTL", "x"),
        ],
    )]);
    world.until_ids(&["lb-test:one:80"]).await;
    let seen = async || {
        let (status, text) = world.check("service:lb-test:one:80:check").await?;
        (status == "critical" && text.contains("does not run this check")).then_some(())
    };
    poll(seen).await.unwrap();
    let unusable = async || {
        let (status, text) = world.check("service:lb-test:one:80:check-1").await?;
        (status == "critical" && text.contains("SERVICE_CHECK_1_TTL=`x`")).then_some(())
    };
    poll(unusable).await.unwrap();
    // It is not tried again and again.
    let in_catalog = async || Some(world.modified("web").await).filter(|it| !it.is_null());
    let index = poll(in_catalog).await.unwrap();
    world.settle().await;
    assert_eq!(world.modified("web").await, index);
    world.end().await;
}

#[tokio::test]
async fn an_alias_shares_the_fate_of_another_container() {
    let mut world = World::new(config()).await;
    let check = "service:lb-test:app:80:check";
    let app = container("app", &[("SERVICE_CHECK_ALIAS", "db:80")]);
    let mut db = container("db", &[("SERVICE_NAME", "db")]);
    let until = async |world: &World, status: &str, part: &str| {
        let seen = async || {
            let (now, output) = world.check(check).await?;
            (now == status && output.contains(part)).then_some(())
        };
        let told = poll(seen).await;
        assert!(told.is_some(), "{status}: {:?}", world.check(check).await);
    };
    // Nobody is there whose fate it could share.
    world.has(std::slice::from_ref(&app));
    until(&world, "critical", "could not be found").await;
    for (health, status, part) in [
        (Health::Starting, "critical", "Aliased check"),
        (Health::Healthy, "passing", ""),
        (Health::Unhealthy("exit 7".to_owned()), "critical", "exit 7"),
        (Health::Healthy, "passing", ""),
    ] {
        db.health = Some(health);
        world.has(&[app.clone(), db.clone()]);
        until(&world, status, part).await;
    }
    db.state = State::Paused;
    world.has(&[app.clone(), db.clone()]);
    until(&world, "critical", "").await;
    db.state = State::Running;
    world.has(&[app.clone(), db]);
    until(&world, "passing", "").await;
    world.has(&[app]);
    until(&world, "critical", "could not be found").await;
    world.end().await;
}

#[tokio::test]
async fn a_script_is_ended_at_the_timeout_of_its_number() {
    let consul = Consul::start_with(|_| json!({"enable_script_checks": true})).await;
    let mut world = World::at(consul, config(), None).await;
    let words = [
        ("SERVICE_CHECK_1_SCRIPT", "sleep 2; exit 0"),
        ("SERVICE_CHECK_1_TIMEOUT", "200ms"),
        ("SERVICE_CHECK_1_INTERVAL", "1s"),
    ];
    world.has(&[container("one", &words)]);
    let seen = async || {
        let (status, text) = world.check("service:lb-test:one:80:check-1").await?;
        (status == "critical" && text.contains("200ms")).then_some(())
    };
    let told = poll(seen).await;
    assert!(told.is_some(), "{:?}", world.read("agent/checks").await);
    world.has(&[]);
    world.until_ids(&[]).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_healthcheck_of_a_real_container_is_followed_and_survives_a_registration() {
    let mut world = world::World::new().await;
    world.register(&["-internal"]);
    let fetch = "/bin/busybox wget -q -O - http://127.0.0.1/up || { echo nobody is up; false; }";
    // Within the start period a failure is no verdict.
    world.run(
        "one",
        &[
            "--health-cmd",
            fetch,
            "--health-interval",
            "200ms",
            "--health-retries",
            "2",
            "--health-start-period",
            "10m",
        ],
    );
    world.until(&["web h:one:80"]).await;
    let check = "service:h:one:80:docker";
    world.until_output(check, "critical", "starting").await;
    let page = [
        "exec",
        "one",
        "/bin/busybox",
        "cp",
        "/www/index.html",
        "/www/up",
    ];
    let gone = ["exec", "one", "/bin/busybox", "rm", "/www/up"];
    world.docker(&page);
    world.until_output(check, "passing", "healthy").await;
    world.docker(&gone);
    world.until_output(check, "critical", "nobody is up").await;
    // Registered anew it is what it was.
    world.docker(&["rename", "one", "two"]);
    world.until(&["web h:two:80"]).await;
    let check = "service:h:two:80:docker";
    world.until_output(check, "critical", "nobody is up").await;
    world.docker(&page.map(|word| if word == "one" { "two" } else { word }));
    world.until_output(check, "passing", "healthy").await;
    world.until_check("service:h:one:80:docker", None).await;
}
