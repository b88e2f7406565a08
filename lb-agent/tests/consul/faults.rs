//! What a Consul, or something in its place, may answer instead of an answer.

use std::time::Duration;

use lb_agent::{
    catalog::SourceState,
    discover::consul::{Address, Config},
};

use serde_json::json;

use crate::{
    fake::{Answer, Fake, TOO_MANY_SECONDS},
    source::{Source, config, ids},
    support::{BOUND, Consul, Ports, until},
};

/// A source that knows the one instance of `a`.
async fn knowing(fake: &Fake) -> Source {
    let mut source = Source::start(config(&fake.address()));
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    source
}

/// `a` is answered so; what is known stays, the trouble is told, and all is well with the next answer.
async fn survives(answer: Answer, told: &str) {
    let fake = Fake::start().await;
    let mut source = knowing(&fake).await;
    fake.say(answer);
    let tells = |state: &SourceState| {
        let problems = state.catalog.iter().flat_map(|it| &it.problems);
        let texts = problems.map(ToString::to_string);
        texts
            .chain(state.error.clone())
            .any(|text| text.contains(told))
    };
    let state = source.until(BOUND, tells).await;
    let catalog = state.catalog.unwrap();
    assert_eq!(ids(&catalog, "a"), ["a1"]);
    assert_eq!(ids(&catalog, "b"), ["b1"]);
    fake.say(Answer::Instance);
    source
        .until(BOUND, |state| {
            let catalog = state.catalog.as_ref().unwrap();
            state.error.is_none() && catalog.problems.is_empty()
        })
        .await;
    source.end().await;
}

#[tokio::test]
async fn a_body_of_a_byte_each_second_is_not_waited_for() {
    survives(Answer::Slow, "no answer in time").await;
}

#[tokio::test]
async fn a_body_that_ends_in_its_middle_is_no_answer() {
    survives(Answer::Cut, "the connection ended before the answer").await;
}

#[tokio::test]
async fn truncated_json_is_no_answer() {
    survives(Answer::Truncated, "EOF while parsing a list").await;
    survives(Answer::TruncatedList, "EOF while parsing an object").await;
}

#[tokio::test]
async fn a_hundred_megabytes_are_not_held_in_memory() {
    survives(Answer::Huge, "larger than 64 MiB").await;
}

#[tokio::test]
async fn a_hundred_megabytes_that_were_packed_are_not_either() {
    survives(Answer::Bomb, "larger than 64 MiB").await;
}

#[tokio::test]
async fn a_redirection_is_told_and_not_followed() {
    survives(Answer::Moved, "301 Moved Permanently").await;
}

#[tokio::test]
async fn a_consul_that_asks_for_patience_gets_it() {
    let fake = Fake::start().await;
    let mut source = knowing(&fake).await;
    fake.say(Answer::TooMany);
    let told = |state: &SourceState| state.error.as_ref().is_some_and(|it| it.contains("429"));
    let state = source.until(BOUND, told).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    let before = fake.asked().len();
    until(BOUND, || fake.asked().len() >= before + 2).await;
    let asked = fake.asked();
    let gap = asked[before + 1].0 - asked[before].0;
    assert!(gap >= Duration::from_secs(TOO_MANY_SECONDS), "{gap:?}");
    source.end().await;
}

#[tokio::test]
async fn a_consul_that_asks_for_patience_is_left_for_another_at_once() {
    let (busy, idle) = (Fake::start().await, Fake::start().await);
    let both = [&busy, &idle].map(|fake| fake.address().parse::<Address>().unwrap());
    let mut source = Source::start(Config {
        addresses: both.into(),
        ..config(&busy.address())
    });
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    assert_eq!(idle.requests(), 0, "the first is asked while it answers");
    busy.say(Answer::TooMany);
    let waits = |(_, query): &(_, String)| query.contains("index=");
    until(BOUND, || idle.asked().iter().any(waits)).await;
    // Indexes of one mean nothing to the other.
    assert!(!idle.asked()[0].1.contains("index="), "{:?}", idle.asked());
    let state = source.state.borrow().clone();
    assert_eq!(
        (state.error, ids(&state.catalog.unwrap(), "a")),
        (None, vec!["a1"])
    );
    source.end().await;
}

#[tokio::test]
async fn a_consul_that_closes_connections_beyond_its_limit_is_told_with_the_limit() {
    let limit = |_: &Ports| json!({"limits": {"http_max_conns_per_client": 6}});
    let consul = Consul::start_with(limit).await;
    for n in 0..12 {
        consul.register(&format!("s{n}"), &format!("i{n}"), 1).await;
    }
    let mut source = Source::start(config(&consul.address()));
    let told = |state: &SourceState| {
        let error = state.error.as_ref();
        error.is_some_and(|it| it.contains("raise limits.http_max_conns_per_client in Consul"))
    };
    source.until(BOUND, told).await;
    source.end().await;
}
