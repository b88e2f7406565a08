//! What the source says of one real Consul, while it changes, goes and comes back.

use lb_agent::{
    catalog::{Catalog, SourceHealth, SourceState},
    discover::consul::{self, Config, Token},
};
use serde_json::json;

use crate::{
    kit::{SOON, Source, config, ids},
    support::{BOUND, Consul, MASTER},
};

fn health(catalog: &Catalog, service: &str) -> Option<SourceHealth> {
    Some(catalog.services.get(service)?.first()?.health)
}

#[tokio::test]
async fn the_first_catalog_holds_everything_that_is_registered() {
    let consul = Consul::start().await;
    consul.register("a", "a1", 1).await;
    consul.register("a", "a2", 2).await;
    consul.register("a/b c", "odd", 3).await;
    let mut source = Source::start(config(&consul.address()));
    let state = source.until(BOUND, |state| state.catalog.is_some()).await;
    let catalog = state.catalog.unwrap();
    assert_eq!(ids(&catalog, "a"), ["a1", "a2"]);
    assert_eq!(ids(&catalog, "a/b c"), ["odd"]);
    assert_eq!(ids(&catalog, "consul").len(), 1);
    assert_eq!(catalog.problems.len(), 1, "{:?}", catalog.problems);
    assert_eq!(catalog.problems[0].subject, "service a/b c");
    assert!(state.updated.is_some() && state.error.is_none());
    source.end().await;
}

#[tokio::test]
async fn instances_come_and_go_and_the_last_takes_its_service_along() {
    let consul = Consul::start().await;
    let mut source = Source::start(config(&consul.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a").is_empty())
        .await;
    consul.register("a", "a1", 1).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    consul.register("a", "a2", 2).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1", "a2"])
        .await;
    consul.deregister("a1").await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a2"])
        .await;
    consul.deregister("a2").await;
    source
        .catalog(SOON, |catalog| !catalog.services.contains_key("a"))
        .await;
    // It may come back, and is followed again.
    consul.register("a", "a3", 3).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a3"])
        .await;
    source.end().await;
}

#[tokio::test]
async fn health_maintenance_weights_and_tags_are_seen() {
    let consul = Consul::start().await;
    let instance = |tags: &[&str], weight: u16| {
        json!({"Name": "a", "ID": "a1", "Address": "10.99.0.1", "Port": 1, "Tags": tags,
               "Weights": {"Passing": weight, "Warning": 2},
               "TaggedAddresses": {"virtual": {"Address": "198.18.9.9", "Port": 0}},
               "Check": {"CheckID": "ttl", "TTL": "10m", "Status": "passing"}})
    };
    consul
        .put("agent/service/register", instance(&["x"], 7))
        .await;
    let mut source = Source::start(config(&consul.address()));
    let catalog = source.catalog(BOUND, |_| true).await;
    let a1 = &catalog.services["a"][0];
    assert_eq!((a1.weight, a1.health), (7, SourceHealth::Passing));
    assert_eq!(a1.meta[consul::VIRTUAL_ADDRESS], "198.18.9.9");

    for (verb, expect) in [
        ("warn", SourceHealth::Warning),
        ("fail", SourceHealth::Critical),
        ("pass", SourceHealth::Passing),
    ] {
        consul
            .put(&format!("agent/check/{verb}/ttl"), json!(null))
            .await;
        source
            .catalog(SOON, |catalog| health(catalog, "a") == Some(expect))
            .await;
    }
    consul
        .put(
            "agent/service/maintenance/a1?enable=true&reason=disk",
            json!(null),
        )
        .await;
    let catalog = source
        .catalog(SOON, |catalog| {
            health(catalog, "a") == Some(SourceHealth::Maintenance)
        })
        .await;
    let reasons = catalog.services["a"][0]
        .checks
        .iter()
        .map(|check| check.output.as_str());
    assert!(reasons.into_iter().any(|reason| reason == "disk"));
    consul
        .put("agent/service/maintenance/a1?enable=false", json!(null))
        .await;
    source
        .catalog(SOON, |catalog| {
            health(catalog, "a") == Some(SourceHealth::Passing)
        })
        .await;

    consul
        .put(
            "agent/service/register",
            instance(&["x", "lb_balance=random"], 9),
        )
        .await;
    let changed = |catalog: &Catalog| {
        let a1 = &catalog.services["a"][0];
        a1.weight == 9 && a1.tags.contains("lb_balance=random")
    };
    source.catalog(SOON, changed).await;
    source.end().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_left_out_and_named() {
    let consul = Consul::start().await;
    consul.register("a", "good", 1).await;
    consul.register("a", "no-port", 0).await;
    let name = json!({"Name": "a", "ID": "name", "Address": "http://web/", "Port": 1});
    consul.put("agent/service/register", name).await;
    let mut source = Source::start(config(&consul.address()));
    let catalog = source.catalog(BOUND, |_| true).await;
    assert_eq!(ids(&catalog, "a"), ["good"]);
    let subjects: Vec<_> = catalog
        .problems
        .iter()
        .map(|p| p.subject.as_str())
        .collect();
    assert_eq!(
        subjects,
        ["instance lb-test/name", "instance lb-test/no-port"]
    );
    source.end().await;
}

#[tokio::test]
async fn a_consul_that_is_away_is_named_with_the_remedy_and_found_when_it_comes() {
    let mut consul = Consul::start().await;
    consul.register("a", "a1", 1).await;
    consul.kill();
    let mut source = Source::start(config(&consul.address()));
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.catalog.is_none(), "unknown is never empty");
    let error = state.error.unwrap();
    let expected = format!("cannot reach Consul at http://{}: ", consul.address());
    assert!(error.starts_with(&expected), "{error}");
    assert!(
        error.ends_with("; start it or correct its address"),
        "{error}"
    );
    consul.run().await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    source.end().await;
}

#[tokio::test]
async fn the_last_good_catalog_outlives_consul() {
    let mut consul = Consul::start().await;
    consul.register("a", "a1", 1).await;
    let mut source = Source::start(config(&consul.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    consul.kill();
    let state = source.until(SOON, |state| state.error.is_some()).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    consul.run().await;
    let state = source.until(BOUND, |state| state.error.is_none()).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    // Not only the list is read again, the watch of the service is, too.
    consul.register("a", "a2", 2).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1", "a2"])
        .await;
    source.end().await;
}

#[tokio::test]
async fn a_wiped_consul_empties_nothing_before_its_agents_had_time_to_register_again() {
    let mut consul = Consul::start().await;
    for n in 0..20 {
        consul.register("b", &format!("b{n}"), 1).await;
    }
    consul.register("a", "a1", 1).await;
    let mut source = Source::start(config(&consul.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "b").len() == 20)
        .await;
    consul.wipe().await;
    let held = |state: &SourceState| {
        state
            .error
            .as_ref()
            .is_some_and(|e| e.contains("went back in time"))
    };
    let state = source.until(BOUND, held).await;
    let catalog = state.catalog.unwrap();
    assert_eq!(
        (ids(&catalog, "a"), ids(&catalog, "b").len()),
        (vec!["a1"], 20)
    );
    // One registers again, and the answer that names it is believed at once.
    consul.register("a", "a9", 9).await;
    let catalog = source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a9"])
        .await;
    assert_eq!(ids(&catalog, "b").len(), 20);
    // The other does not; the end of the hold and the leader's word take it away.
    source
        .catalog(BOUND, |catalog| !catalog.services.contains_key("b"))
        .await;
    source.until(BOUND, |state| state.error.is_none()).await;
    source.end().await;
}

#[tokio::test]
async fn services_beyond_the_blocking_queries_are_polled() {
    let consul = Consul::start().await;
    for n in 0..6 {
        consul.register(&format!("s{n}"), &format!("i{n}"), 1).await;
    }
    let config = Config {
        max_watches: 2,
        ..config(&consul.address())
    };
    let mut source = Source::start(config);
    source
        .catalog(BOUND, |catalog| catalog.services.len() == 7)
        .await;
    for n in 0..6 {
        consul.register(&format!("s{n}"), &format!("j{n}"), 2).await;
    }
    let grown = |catalog: &Catalog| (0..6).all(|n| ids(catalog, &format!("s{n}")).len() == 2);
    source.catalog(BOUND, grown).await;
    for n in 0..6 {
        consul.deregister(&format!("i{n}")).await;
        consul.deregister(&format!("j{n}")).await;
    }
    source
        .catalog(BOUND, |catalog| catalog.services.len() == 1)
        .await;
    source.end().await;
}

#[tokio::test]
async fn a_token_without_rights_sees_nothing_and_takes_nothing_away() {
    let consul = Consul::start_guarded().await;
    consul.register("a", "a1", 1).await;
    let mut anonymous = Source::start(config(&consul.address()));
    let state = anonymous.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.catalog.is_none(), "unknown is never empty");
    let error = state.error.unwrap();
    assert!(
        error.contains("service_prefix \"\" and node_prefix \"\" read"),
        "{error}"
    );
    anonymous.end().await;

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{MASTER}\n")).unwrap();
    let mut source = Source::start(Config {
        token: Some(Token::File(file.clone())),
        ..config(&consul.address())
    });
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    // The token is replaced by one that Consul does not know.
    std::fs::write(&file, "00000000-1111-2222-3333-444444444444").unwrap();
    consul.register("a", "a2", 2).await;
    consul.register("b", "b1", 2).await;
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    let catalog = state.catalog.unwrap();
    assert!(!ids(&catalog, "a").is_empty(), "{catalog:?}");
    // And by the right one.
    std::fs::write(&file, MASTER).unwrap();
    source
        .catalog(BOUND, |catalog| {
            ids(catalog, "a") == ["a1", "a2"] && ids(catalog, "b") == ["b1"]
        })
        .await;
    source.until(BOUND, |state| state.error.is_none()).await;
    source.end().await;
}
