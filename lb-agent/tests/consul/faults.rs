//! What a Consul, or something in its place, may answer instead of an answer.

use std::time::{Duration, Instant};

use lb_agent::{
    catalog::SourceState,
    discover::consul::{Address, Config},
};

use serde_json::json;

use crate::{
    fake::{Answer, Fake, TOO_MANY_SECONDS},
    kit::{Source, config, ids, knowing},
    support::{BOUND, Consul, Ports, until},
};

/// `a` is answered so; what is known stays, the trouble is told, and all is well with the next answer.
async fn survives(answer: Answer, told: &str) {
    let fake = Fake::start().await;
    let mut source = knowing(config(&fake.address())).await;
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
async fn a_filtered_answer_keeps_what_is_known() {
    let fake = Fake::start().await;
    let mut source = knowing(config(&fake.address())).await;
    fake.say(Answer::Filtered);
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    fake.say(Answer::Instance);
    source.until(BOUND, |state| state.error.is_none()).await;
    source.end().await;
}

#[tokio::test]
async fn a_server_without_a_leader_empties_nothing() {
    survives(Answer::EmptyWithoutLeader, "No cluster leader").await;
}

#[tokio::test]
async fn a_server_that_knows_no_leader_and_has_an_older_state_changes_nothing() {
    survives(Answer::OlderWithoutLeader, "No cluster leader").await;
}

/// As after the loss of the leader that alone had said that an instance is gone.
#[tokio::test]
async fn a_server_that_is_behind_brings_nothing_back_while_nobody_leads() {
    survives(Answer::BehindOfNobody, "No cluster leader").await;
}

#[tokio::test]
async fn a_server_that_is_behind_is_not_believed_where_its_leader_knows_better() {
    let fake = Fake::start().await;
    let source = knowing(config(&fake.address())).await;
    let before = fake.asked().len();
    fake.say(Answer::Behind);
    let of_leader = |(_, query): &(_, String)| query.contains("consistent");
    // The next one is asked when the answer to that has been told.
    let is_next = |asked: &[(_, String)]| {
        let mut later = asked[before..].iter();
        later.any(of_leader) && later.next().is_some()
    };
    until(BOUND, || is_next(&fake.asked())).await;
    let state = source.state.borrow().clone();
    assert_eq!(state.error, None);
    assert_eq!(ids(&state.catalog.unwrap(), "a"), ["a1"]);
    source.end().await;
}

#[tokio::test]
async fn a_server_that_loses_its_leader_during_a_wait_is_found_out_after_it() {
    let fake = Fake::start().await;
    let mut source = knowing(Config {
        wait: Duration::from_secs(1),
        ..config(&fake.address())
    })
    .await;
    fake.say(Answer::LostDuringWait);
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.error.unwrap().contains("No cluster leader"));
    fake.say(Answer::Instance);
    source.until(BOUND, |state| state.error.is_none()).await;
    source.end().await;
}

#[tokio::test]
async fn nonsense_is_told_and_keeps_what_is_known() {
    let fake = Fake::start().await;
    let mut source = knowing(config(&fake.address())).await;
    fake.say(Answer::Nonsense);
    let catalog = source
        .catalog(BOUND, |catalog| !catalog.problems.is_empty())
        .await;
    assert_eq!(ids(&catalog, "a"), ["a1"]);
    let problem = catalog.problems[0].to_string();
    assert!(problem.contains("cannot be read"), "{problem}");
    source.end().await;
}

#[tokio::test]
async fn a_consul_that_answers_every_query_at_once_is_not_asked_in_a_busy_loop() {
    let fake = Fake::start().await;
    let mut source = knowing(config(&fake.address())).await;
    fake.say(Answer::InstanceAtOnce);
    let window = Duration::from_secs(3);
    let before = fake.requests();
    let began = Instant::now();
    let updated = source.state.borrow_and_update().updated;
    // Real time passes here because the number of requests in it is what is asserted.
    tokio::time::sleep(window).await;
    // Three watches, each a burst of five and one a second; a busy machine takes longer to look.
    let asked = fake.requests() - before;
    let seconds = began.elapsed().as_secs() + 1;
    let bound = 3 * (5 + usize::try_from(seconds).unwrap());
    assert!((3..=bound + 3).contains(&asked), "{asked} requests");
    assert!(
        !source.state.has_changed().unwrap(),
        "the answers are the same"
    );
    assert!(source.state.borrow().updated > updated);
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
    let mut source = knowing(config(&fake.address())).await;
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
    let source = knowing(Config {
        addresses: both.into(),
        ..config(&busy.address())
    })
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
