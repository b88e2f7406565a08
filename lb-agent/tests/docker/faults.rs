//! What an engine may do wrong, and what the follower makes of it.

use std::time::Duration;

use lb_agent::docker::{Config, State};
use serde_json::json;

use crate::{
    fake::{Fake, NEVER},
    kit::{Follower, named, states},
};

fn follow(fake: &Fake) -> Follower {
    Follower::start_with(Config {
        longest_pause: Duration::from_millis(50),
        resync: NEVER,
        ..Config::new(fake.address())
    })
}

#[tokio::test]
async fn an_engine_that_wants_a_newer_version_gets_it() {
    for (oldest, newest, spoken) in [("1.44", "1.52", "v1.51"), ("1.12", "1.41", "v1.41")] {
        let fake = Fake::start(oldest, newest);
        let mut follower = follow(&fake);
        let known = follower.until(|engine| engine.containers.is_some()).await;
        assert_eq!(known.name.as_deref(), Some("lb-fake"));
        assert_eq!(*fake.world.asked.lock().unwrap(), [spoken]);
    }
}

#[tokio::test]
async fn what_happened_while_the_stream_was_cut_is_found_by_the_next_list() {
    let fake = Fake::start("1.12", "1.41");
    fake.put("a", "running");
    fake.put("b", "running");
    let mut follower = follow(&fake);
    follower
        .until_container("b", |it| it.state == State::Running)
        .await;
    fake.remove("a");
    fake.put("b", "exited");
    fake.put("c", "running");
    fake.cut();
    let known =
        follower.until(|engine| named(engine, "c").is_some() && named(engine, "a").is_none());
    known.await;
    follower
        .until_container("b", |it| it.state == State::Exited(0))
        .await;
    follower.until(|engine| engine.error.is_none()).await;
    let departed: Vec<String> = follower.departed.borrow().iter().cloned().collect();
    assert_eq!(departed, ["a", "b"]);
}

#[tokio::test]
async fn a_container_that_began_to_end_when_nobody_listened_is_ending_from_the_first_word() {
    let fake = Fake::start("1.12", "1.41");
    for id in ["a", "b", "c", "d"] {
        fake.put(id, "running");
    }
    fake.sent("a", "15", 5);
    fake.sent("b", "15", 400);
    fake.sent("c", "1", 5);
    fake.sent("gone", "9", 5);
    let mut follower = follow(&fake);
    let known = follower.until(|engine| engine.containers.is_some()).await;
    let ending = |id: &str| named(&known, id).unwrap().state == State::Ending;
    assert_eq!(
        ["a", "b", "c", "d"].map(ending),
        [true, false, false, false]
    );
    assert!(follower.departed.borrow().contains("a"));
    // The same when the stream was cut.
    fake.sent("d", "15", 1);
    fake.cut();
    follower
        .until_container("d", |it| it.state == State::Ending)
        .await;
}

#[tokio::test]
async fn garbage_in_the_stream_is_told_and_followed_by_a_new_list() {
    let fake = Fake::start("1.12", "1.41");
    fake.put("a", "running");
    let mut follower = follow(&fake);
    follower
        .until_container("a", |it| it.state == State::Running)
        .await;
    fake.put("b", "running");
    fake.say("{\"Type\": \"container\", oops");
    follower
        .until_container("b", |it| it.state == State::Running)
        .await;
    follower.until(|engine| engine.error.is_none()).await;
    assert_eq!(states(&follower.engine.borrow()).len(), 2);
}

#[tokio::test]
async fn the_end_of_a_container_is_heard_while_a_list_is_slow() {
    let fake = Fake::start("1.12", "1.41");
    fake.put("a", "running");
    let mut follower = follow(&fake);
    follower
        .until_container("a", |it| it.state == State::Running)
        .await;
    fake.world.lists.send_replace(false);
    fake.cut();
    follower.until(|engine| engine.error.is_some()).await;
    // The new session lists, and waits for the answer.
    fake.subscribed().await;
    fake.tell("a", "kill", &json!({"signal": "9"}));
    follower
        .until_container("a", |it| it.state == State::Ending)
        .await;
    assert!(follower.departed.borrow().contains("a"));
    fake.put("a", "exited");
    fake.tell("a", "die", &json!({"exitCode": "137"}));
    follower
        .until_container("a", |it| it.state == State::Exited(137))
        .await;
    fake.world.lists.send_replace(true);
    follower.until(|engine| engine.error.is_none()).await;
}

#[tokio::test]
async fn a_container_that_cannot_be_read_is_told_and_breaks_no_other() {
    let fake = Fake::start("1.12", "1.41");
    fake.put_text("bad", "{\"Id\": 7}");
    fake.put("good", "running");
    let mut follower = follow(&fake);
    let known = follower.until(|engine| engine.containers.is_some()).await;
    assert!(named(&known, "good").is_some() && named(&known, "bad").is_none());
    assert_eq!(known.unread, ["bad".to_owned()].into());
    let error = known.error.unwrap();
    assert!(error.contains("container bad"), "{error}");
    fake.put("bad", "running");
    fake.tell("bad", "start", &json!({}));
    follower
        .until(|engine| {
            engine.error.is_none() && engine.unread.is_empty() && named(engine, "bad").is_some()
        })
        .await;
}

#[tokio::test]
async fn nothing_is_known_before_the_first_list() {
    let fake = Fake::start("1.12", "1.41");
    fake.put("a", "running");
    fake.world.lists.send_replace(false);
    let mut follower = follow(&fake);
    fake.subscribed().await;
    // An event is a hint to look, but one container is not all of them.
    fake.put("b", "running");
    fake.tell("b", "start", &json!({}));
    let known = follower.until(|engine| engine.name.is_some()).await;
    assert_eq!(known.containers, None);
    fake.world.lists.send_replace(true);
    let known = follower.until(|engine| engine.containers.is_some()).await;
    assert_eq!(states(&known).len(), 2);
}
