//! Following many services of a real Consul: more than there are blocking queries for, through faults and restarts.

use std::path::Path;

use lb_agent::{
    catalog::{Catalog, SourceHealth},
    discover::consul::{self, Config, Warning},
};
use serde_json::{Value, json};

use crate::{
    fake::{Answer, Fake},
    kit::{SOON, Source, config, ids},
    support::{BOUND, Consul},
};

/// Registers `ids` of the services in the catalog itself, on a node of their own, each with a check.
async fn register_all(consul: &Consul, ids: &[(String, String)]) {
    let node = json!({"Node": {"Verb": "set", "Node": {"Node": "far", "Address": "10.99.0.9"}}});
    consul.put("txn", json!([node])).await;
    for some in ids.chunks(32) {
        let operations: Vec<Value> = some.iter().flat_map(|(s, id)| with_check(s, id)).collect();
        consul.put("txn", json!(operations)).await;
    }
}

fn with_check(service: &str, id: &str) -> [Value; 2] {
    [
        json!({"Service": {"Verb": "set", "Node": "far",
               "Service": {"ID": id, "Service": service, "Port": 1}}}),
        check(id, "passing"),
    ]
}

fn check(id: &str, status: &str) -> Value {
    json!({"Check": {"Verb": "set", "Check": {"Node": "far", "CheckID": format!("service:{id}"),
           "Name": "tcp", "Status": status, "ServiceID": id}}})
}

fn three_hundred() -> Vec<(String, String)> {
    (0..300)
        .map(|n| (format!("s{n}"), format!("i{n}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_follows_three_hundred_services_over_plain_http() {
    let consul = Consul::start().await;
    register_all(&consul, &three_hundred()).await;
    let mut source = Source::start(config(&consul.address()));
    // Nobody's first answer waits for a blocking query to end.
    source
        .catalog(SOON, |catalog| catalog.services.len() == 301)
        .await;

    // Checks that turn are told by the list of checks, whoever has a blocking query.
    let turned = |catalog: &Catalog, n: usize, health: SourceHealth| {
        catalog.services[&*format!("s{n}")][0].health == health
    };
    for (status, health) in [
        ("critical", SourceHealth::Critical),
        ("passing", SourceHealth::Passing),
    ] {
        let some: Vec<usize> = (0..300).step_by(19).collect();
        let checks: Vec<_> = some
            .iter()
            .map(|n| check(&format!("i{n}"), status))
            .collect();
        consul.put("txn", json!(checks)).await;
        source
            .catalog(SOON, |catalog| {
                some.iter().all(|&n| turned(catalog, n, health))
            })
            .await;
    }

    // One more instance with a check, and one without.
    for (n, with) in [(288, true), (299, false), (271, false)] {
        let (service, id) = (format!("s{n}"), format!("more{n}"));
        let operations = with_check(&service, &id);
        consul
            .put("txn", json!(operations[..1 + usize::from(with)]))
            .await;
        source
            .catalog(SOON, |catalog| {
                ids(catalog, &service).contains(&id.as_str())
            })
            .await;
        let gone = json!([{"Service": {"Verb": "delete", "Node": "far", "Service": {"ID": id, "Service": service}}}]);
        consul.put("txn", gone).await;
        source
            .catalog(SOON, |catalog| ids(catalog, &service) == [format!("i{n}")])
            .await;
    }
    source.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_of_a_node_reaches_every_service_on_it() {
    let consul = Consul::start().await;
    for n in 0..10 {
        consul.register(&format!("s{n}"), &format!("i{n}"), 1).await;
    }
    let mut source = Source::start(Config {
        max_watches: 3,
        ..config(&consul.address())
    });
    let all = |catalog: &Catalog, health: SourceHealth| {
        catalog.services.len() == 11
            && catalog
                .services
                .values()
                .all(|it| it[0].health == health && it[0].local)
    };
    source
        .catalog(BOUND, |catalog| all(catalog, SourceHealth::Passing))
        .await;
    for (enable, health) in [
        ("true", SourceHealth::Maintenance),
        ("false", SourceHealth::Passing),
    ] {
        consul
            .put(&format!("agent/maintenance?enable={enable}"), json!(null))
            .await;
        source.catalog(SOON, |catalog| all(catalog, health)).await;
    }
    source.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_left_over_have_a_query_again_when_there_are_fewer_services() {
    let consul = Consul::start().await;
    for n in 0..8 {
        consul.register(&format!("s{n}"), &format!("i{n}"), 1).await;
    }
    let mut source = Source::start(Config {
        max_watches: 4,
        ..config(&consul.address())
    });
    source
        .catalog(BOUND, |catalog| catalog.services.len() == 9)
        .await;
    for n in 0..5 {
        consul.deregister(&format!("i{n}")).await;
    }
    source
        .catalog(BOUND, |catalog| catalog.services.len() == 4)
        .await;
    // No other sign tells of what is without a check while everybody has a query.
    for n in 5..8 {
        let service = format!("s{n}");
        consul.register(&service, &format!("j{n}"), 1).await;
        source
            .catalog(SOON, |catalog| ids(catalog, &service).len() == 2)
            .await;
    }
    source.end().await;
}

#[tokio::test]
async fn weights_and_warnings_are_honoured() {
    let consul = Consul::start().await;
    let body = json!({"Name": "a", "ID": "a1", "Address": "10.99.0.1", "Port": 1,
                      "Weights": {"Passing": 10, "Warning": 3},
                      "Check": {"CheckID": "ttl", "TTL": "10m", "Status": "passing"}});
    consul.put("agent/service/register", body).await;
    let mut strict = Source::start(config(&consul.address()));
    let mut lenient = Source::start(Config {
        warning: Warning::Include,
        ..config(&consul.address())
    });
    let says = |health: SourceHealth, weight: u16| {
        move |catalog: &Catalog| {
            let a = catalog.services.get("a").and_then(|a| a.first());
            a.is_some_and(|a| (a.health, a.weight) == (health, weight))
        }
    };
    for source in [&mut strict, &mut lenient] {
        source.catalog(BOUND, says(SourceHealth::Passing, 10)).await;
    }
    consul.put("agent/check/warn/ttl", json!(null)).await;
    strict.catalog(SOON, says(SourceHealth::Warning, 3)).await;
    lenient.catalog(SOON, says(SourceHealth::Passing, 3)).await;
    consul.put("agent/check/fail/ttl", json!(null)).await;
    for source in [&mut strict, &mut lenient] {
        source.catalog(SOON, says(SourceHealth::Critical, 10)).await;
    }
    strict.end().await;
    lenient.end().await;
}

#[tokio::test]
async fn what_the_registrar_left_is_read_and_a_host_name_is_resolved() {
    let consul = Consul::start().await;
    let container = "0123456789abcdef".repeat(4);
    let meta = json!({"lb-container": container, "lb-networks": "front=172.18.0.2:80",
                      "lb-published": "192.0.2.1:8080", "lb-registrar": "elsewhere"});
    let body = json!({"Name": "a", "ID": "a1", "Address": "172.18.0.2", "Port": 80, "Meta": meta});
    consul.put("agent/service/register", body).await;
    let named = json!({"Name": "a", "ID": "a2", "Address": "localhost", "Port": 81});
    consul.put("agent/service/register", named).await;
    let six = json!({"Name": "a", "ID": "a3", "Address": "fd00::3", "Port": 82});
    consul.put("agent/service/register", six).await;
    let mut source = Source::start(config(&consul.address()));
    let catalog = source
        .catalog(BOUND, |catalog| ids(catalog, "a").len() == 3)
        .await;
    let [a1, a2, a3] = &*catalog.services["a"] else {
        panic!("{catalog:#?}")
    };
    assert_eq!(a1.container, Some(container));
    assert_eq!(a1.reach.published, "192.0.2.1:8080".parse().ok());
    assert_eq!(a1.reach.networks["front"], "172.18.0.2:80".parse().unwrap());
    assert!(a1.local && a1.meta.is_empty());
    assert!(a2.address.ip().is_loopback());
    assert_eq!(a3.address, "[fd00::3]:82".parse().unwrap());
    assert_eq!(catalog.problems, []);
    source.end().await;
}

fn keeping(address: &str, folder: &Path) -> Config {
    Config {
        saved: Some(consul::file_in(folder)),
        ..config(address)
    }
}

#[tokio::test]
async fn an_agent_that_starts_while_consul_is_away_serves_what_was_kept() {
    let mut consul = Consul::start().await;
    let folder = tempfile::tempdir().unwrap();
    consul.register("a", "a1", 1).await;
    consul.register("b", "b1", 1).await;
    let mut source = Source::start(keeping(&consul.address(), folder.path()));
    let last = source.until(BOUND, |state| state.catalog.is_some()).await;
    source.end().await;
    consul.kill();

    let mut source = Source::start(keeping(&consul.address(), folder.path()));
    let state = source.until(BOUND, |state| state.catalog.is_some()).await;
    let catalog = state.catalog.unwrap();
    assert_eq!(
        (ids(&catalog, "a"), ids(&catalog, "b")),
        (vec!["a1"], vec!["b1"])
    );
    assert!(state.kept, "what is not in it may be there all the same");
    let error = state.error.unwrap();
    assert!(error.starts_with("cannot reach Consul"), "{error}");
    assert!(
        error.contains("what was known when the last agent ended"),
        "{error}"
    );
    assert!(
        state.updated.is_some() && state.updated <= last.updated,
        "it is as old as that"
    );

    // Consul comes back with other services: they replace what was kept.
    consul.wipe().await;
    consul.register("b", "b2", 2).await;
    source
        .catalog(BOUND, |catalog| {
            ids(catalog, "b") == ["b2"] && ids(catalog, "a").is_empty()
        })
        .await;
    let state = source.until(SOON, |state| state.error.is_none()).await;
    assert!(!state.kept && state.updated > last.updated);
    source.end().await;

    // Another Consul's catalog is none of ours.
    consul.kill();
    let other = Config {
        datacenter: Some("dc2".to_owned()),
        ..keeping(&consul.address(), folder.path())
    };
    let mut source = Source::start(other);
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.catalog.is_none());
    source.end().await;
}

#[tokio::test]
async fn a_damaged_file_is_a_problem_and_no_more() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(consul::file_in(folder.path()), "{\"version\":1,\"val").unwrap();
    let mut source = Source::start(keeping(&fake.address(), folder.path()));
    let catalog = source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    let [problem] = &*catalog.problems else {
        panic!("{:?}", catalog.problems)
    };
    assert!(problem.message.contains("is damaged"), "{problem}");
    source.end().await;
}

#[tokio::test]
async fn a_list_of_checks_that_makes_no_sense_costs_no_service() {
    let fake = Fake::start().await;
    let mut source = Source::start(Config {
        max_watches: 1,
        ..config(&fake.address())
    });
    // The fake has no such list and answers 401.
    source
        .catalog(BOUND, |catalog| catalog.services.len() == 3)
        .await;
    // What the list of services tells is enough.
    fake.say(Answer::Nonsense);
    let catalog = source
        .catalog(SOON, |catalog| !catalog.problems.is_empty())
        .await;
    assert_eq!(ids(&catalog, "a"), ["a1"]);
    fake.say(Answer::Instance);
    source
        .catalog(SOON, |catalog| catalog.problems.is_empty())
        .await;
    source.end().await;
}

#[tokio::test]
async fn an_index_that_goes_backwards_is_followed() {
    let mut consul = Consul::start().await;
    for n in 0..50 {
        consul.register("a", &format!("a{n}"), 1).await;
    }
    let mut source = Source::start(config(&consul.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a").len() == 50)
        .await;
    consul.wipe().await;
    // Its index is far below the last one; a query for that would wait its full time.
    consul.register("a", "new", 1).await;
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["new"])
        .await;
    consul.register("a", "newer", 1).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["new", "newer"])
        .await;
    source.end().await;
}
