//! A cluster of three servers that lose each other, and ways to reach them.

use std::time::{Duration, Instant};

use lb_agent::{
    catalog::{Catalog, SourceState},
    discover::consul::{Address, Config},
};
use serde_json::json;

use crate::{
    kit::{SOON, Source, config, ids},
    support::{BOUND, Consul},
};

fn addresses(all: &[Consul]) -> Vec<Address> {
    all.iter().map(|it| it.address().parse().unwrap()).collect()
}

/// The index of the leader.
async fn leader(all: &[Consul]) -> usize {
    let told = all[0].get("status/leader").await;
    let is_leader = |it: &Consul| told == format!("127.0.0.1:{}", it.ports().server).as_str();
    all.iter().position(is_leader).unwrap()
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_dies_and_the_table_outlives_the_leader() {
    let mut all = Consul::start_three().await;
    all[1].register("a", "a1", 1).await;
    all[2].register("b", "b1", 1).await;
    let mut source = Source::start(Config {
        addresses: addresses(&all),
        max_stale: Duration::from_secs(2),
        // An answer tells how things were when its wait began.
        wait: Duration::from_secs(3),
        ..config(&all[0].address())
    });
    source
        .catalog(BOUND, |catalog| {
            ids(catalog, "a") == ["a1"] && ids(catalog, "b") == ["b1"]
        })
        .await;

    // The first dies. The rest has a leader, at once or after an election, and knows news.
    all[0].kill();
    all[1].register_when_led("a", "a2", 2).await;
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1", "a2"])
        .await;
    source.until(BOUND, |state| state.error.is_none()).await;

    // A follower applies what it was told only with the leader's next word.
    let deadline = Instant::now() + BOUND;
    while all[2]
        .get("health/service/a?stale")
        .await
        .as_array()
        .unwrap()
        .len()
        < 2
    {
        assert!(Instant::now() < deadline, "the third server learns nothing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    // The second dies, and with it the majority: there is no leader any more. What the last one answers is old, and
    // nothing is taken away for it.
    all[1].kill();
    let leaderless = |state: &SourceState| {
        let told = state.error.as_ref();
        told.is_some_and(|it| it.contains("No cluster leader"))
    };
    let state = source.until(2 * BOUND, leaderless).await;
    let catalog = state.catalog.unwrap();
    assert_eq!(ids(&catalog, "a"), ["a1", "a2"]);
    assert_eq!(ids(&catalog, "b"), ["b1"]);

    // They come back with what they knew.
    all[0].run().await;
    source.until(2 * BOUND, |state| state.error.is_none()).await;
    all[0].register_when_led("b", "b2", 2).await;
    source
        .catalog(BOUND, |catalog| ids(catalog, "b").len() == 2)
        .await;
    source.end().await;
}

#[tokio::test]
async fn a_follower_answers_while_its_cluster_elects_another_leader() {
    let mut all = Consul::start_three().await;
    all[0].register("a", "a1", 1).await;
    let gone = leader(&all).await;
    let asked = (gone + 1) % 3;
    let mut source = Source::start(config(&all[asked].address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    all[gone].kill();
    all[asked].register_when_led("a", "a2", 2).await;
    let catalog = source
        .catalog(BOUND, |catalog| ids(catalog, "a").contains(&"a2"))
        .await;
    assert_eq!(ids(&catalog, "a"), ["a1", "a2"]);
    source.end().await;
}

#[tokio::test]
async fn an_agent_that_restarts_takes_nothing_away_and_tells_news_again() {
    let server = Consul::start().await;
    let mut agent = Consul::start_client(&server).await;
    agent.register("a", "a1", 1).await;
    server.register("a", "a2", 2).await;
    let mut source = Source::start(config(&agent.address()));
    let of_agent = |catalog: &Catalog| {
        let all = catalog
            .services
            .get("a")
            .into_iter()
            .flat_map(|it| it.iter());
        all.filter(|it| it.local).count()
    };
    source
        .catalog(BOUND, |catalog| {
            ids(catalog, "a").len() == 2 && of_agent(catalog) == 1
        })
        .await;
    agent.kill();
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a").len(), 2);
    agent.run().await;
    source.until(BOUND, |state| state.error.is_none()).await;
    agent.register("a", "a3", 3).await;
    source
        .catalog(SOON, |catalog| {
            ids(catalog, "a").len() == 3 && of_agent(catalog) == 2
        })
        .await;
    source.end().await;
}

#[tokio::test]
async fn a_unix_socket_is_a_way_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("consul.sock");
    let http = format!("127.0.0.1 unix://{}", socket.display());
    let mut consul = Consul::start_with(|_| json!({"addresses": {"http": http}})).await;
    consul.register("a", "a1", 1).await;
    let address = format!("unix://{}", socket.display());
    let mut source = Source::start(config(&address));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    consul.register("a", "a2", 2).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1", "a2"])
        .await;
    consul.kill();
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    let error = state.error.unwrap();
    assert!(
        error.contains(&format!("cannot reach Consul at {address}: ")),
        "{error}"
    );
    source.end().await;
}
