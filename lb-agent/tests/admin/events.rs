//! What happened, and who did it.

use std::time::SystemTime;

use lb_agent::{
    admin::events::{Happened, Kind},
    order::{Mode, Order, OrderOutcome},
};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    agent::{Agent, status},
    values::key,
};

async fn read(agent: &Agent, query: &str) -> Value {
    let answer = agent.get(&format!("/api/v1/events{query}")).await;
    status(&answer, 200);
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn events_are_read_from_a_number_on_and_a_wrong_question_is_refused_in_words() {
    let agent = Agent::start().await;
    let none = read(&agent, "").await;
    assert_eq!(none["last"], 0);
    assert_eq!(none["events"].as_array().unwrap().len(), 0);
    for to in ["l4_down", "usable"] {
        agent.events.add(Happened {
            kind: Kind::Backend,
            subject: "instance n/a of service www_hello".to_owned(),
            from: None,
            to: Some(to.to_owned()),
            cause: None,
            actor: None,
        });
    }
    let all = read(&agent, "?after=0").await;
    assert_eq!(all["events"][0]["number"], 1);
    assert_eq!(all["events"][0]["kind"], "backend");
    assert_eq!(all["events"][0]["to"], "l4_down");
    assert_eq!(all["missed"], false);
    let newest = read(&agent, "?limit=1").await;
    assert_eq!(newest["events"][0]["to"], "usable");
    let answer = agent.get("/api/v1/events?after=x").await;
    status(&answer, 400);
    assert!(answer.contains(r#"{"error":""#), "{answer}");
    agent.end().await;
}

#[tokio::test]
async fn a_change_is_an_event_with_its_actor_and_with_before_and_after_as_far_as_they_are_known() {
    let mut agent = Agent::start().await;
    let headers = format!(
        "Content-Type: application/json\r\nX-LB-Action: 1\r\nAuthorization: Bearer {}\r\n",
        agent.token
    );
    let mut orders = std::mem::replace(&mut agent.orders, mpsc::channel(1).1);
    let stage = async {
        let outcome = OrderOutcome {
            matched: vec![key("a")],
            order: Order::new(Mode::Drain, None, SystemTime::now()),
            snapshot: 1,
        };
        for answer in [Ok(outcome), Err("the disk is full".to_owned())] {
            orders.recv().await.unwrap().reply.send(answer).unwrap();
        }
        // Nobody answers what was taken.
        drop(orders.recv().await.unwrap());
    };
    let orders = async {
        status(&agent.post_order(&headers).await, 200);
        status(&agent.post_order(&headers).await, 422);
        let unknown = agent.post_order(&headers).await;
        status(&unknown, 503);
        assert!(unknown.contains("it may still happen"), "{unknown}");
    };
    tokio::join!(orders, stage);
    let list = read(&agent, "").await;
    let [done, refused, unknown] = [0, 1, 2].map(|at| &list["events"][at]);
    assert_eq!(done["kind"], "change");
    assert_eq!(done["subject"], "instance a of service www_hello");
    assert_eq!(done["from"], format!("{} usable", key("a")));
    assert_eq!(done["to"], format!("{} draining", key("a")));
    assert_eq!(done["actor"], "token");
    assert_eq!(done["cause"], "drain from 127.0.0.1");
    assert_eq!(
        refused["cause"],
        "drain from 127.0.0.1 was refused: the disk is full"
    );
    assert_eq!(refused["actor"], "token");
    assert_eq!(unknown["to"], "unknown");
    let cause = unknown["cause"].as_str().unwrap();
    assert!(
        cause.starts_with("drain from 127.0.0.1: no answer in time"),
        "{cause}"
    );
    let metrics = agent.get("/metrics").await;
    for result in ["ok", "refused", "unknown"] {
        let line = format!("lb_admin_actions_total{{action=\"drain\",result=\"{result}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
    agent.end().await;
}
