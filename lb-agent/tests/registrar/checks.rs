//! Checks that the registrar reports, and those that Consul makes itself.

use std::time::Duration;

use lb_agent::docker::Health;
use tokio::time::{Instant, sleep};

use crate::kit::{World, config, container, poll};

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
