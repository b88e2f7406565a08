//! What a token must be allowed to register containers, as the documentation says it.

use lb_agent::{
    discover::consul::Token,
    docker::{Health, State},
};
use serde_json::{Value, json};

use crate::{
    kit::{World, config, container, poll},
    support::{Consul, MASTER},
};

const DOCUMENT: &str = include_str!("../../../docs/consul.md");

/// The rules that the document gives the registrar, one by one.
fn documented() -> Vec<String> {
    let (_, rest) = DOCUMENT.split_once("```hcl\n# lb-registrar.hcl\n").unwrap();
    let (rules, _) = rest.split_once("```").unwrap();
    let rules: Vec<_> = rules.split_inclusive("}\n").map(str::to_owned).collect();
    assert!(rules.iter().all(|it| it.contains("policy")), "{rules:?}");
    rules
}

/// A token with these rules and no other.
async fn token(consul: &Consul, rules: &str) -> Token {
    let policy = json!({"Name": "registrar", "Rules": rules});
    consul.put("acl/policy", policy).await;
    let token = json!({"Policies": [{"Name": "registrar"}]});
    let token: Value = consul.put("acl/token", token).await;
    Token::Value(token["SecretID"].as_str().unwrap().to_owned())
}

async fn allowed(rules: &str) -> World {
    let consul = Consul::start_guarded().await;
    let token = token(&consul, rules).await;
    World::at(consul, config(), Some(token)).await
}

#[tokio::test]
async fn the_documented_policy_is_enough_for_a_whole_life() {
    let mut world = allowed(&documented().concat()).await;
    let words = [("SERVICE_CHECK_1_TCP", "1"), ("SERVICE_NAME", "shop")];
    let mut one = container("one", &words);
    one.health = Some(Health::Healthy);
    world.has(std::slice::from_ref(&one));
    world.until_ids(&["lb-test:one:80"]).await;
    let healthy = async || {
        let (status, _) = world.check("service:lb-test:one:80:docker").await?;
        (status == "passing").then_some(())
    };
    poll(healthy).await.unwrap();
    // It has come to the servers, too.
    let in_catalog = async || Some(world.modified("shop").await).filter(|it| !it.is_null());
    poll(in_catalog).await.unwrap();
    let status = world.until_status(|status| status.synced.is_some()).await;
    assert_eq!((status.problems, status.error), (Vec::new(), None));
    assert_eq!(status.host.as_deref(), Some("lb-test"));
    one.state = State::Paused;
    world.has(std::slice::from_ref(&one));
    let paused = async || world.maintenance("lb-test:one:80").await;
    poll(paused).await.unwrap();
    // What is dangling is seen with it and removed.
    world.end().await;
    world.has(&[]);
    world.start(config());
    world.until_ids(&[]).await;
    let status = world.until_status(|status| status.synced.is_some()).await;
    assert_eq!((status.problems, status.error), (Vec::new(), None));
    world.end().await;
}

#[tokio::test]
async fn none_of_the_documented_rules_can_be_left_out() {
    let rules = documented();
    for left_out in 0..rules.len() {
        let mut less = rules.clone();
        let gone = less.remove(left_out);
        let mut world = allowed(&less.concat()).await;
        world.has(&[container("one", &[])]);
        let status = world
            .until_status(|status| !status.problems.is_empty())
            .await;
        let kind = gone.split_whitespace().next().unwrap();
        let message = &status.problems[0].message;
        assert!(message.contains(&format!("{kind} \"\"")), "{gone}{message}");
        world.end().await;
    }
}

#[tokio::test]
async fn who_may_only_read_or_write_something_else_is_told_what_is_missing() {
    let agent = "agent_prefix \"\" { policy = \"read\" }\n";
    let read = "service_prefix \"\" { policy = \"read\" }\n";
    let other =
        "service_prefix \"\" { policy = \"read\" } service \"shop\" { policy = \"write\" }\n";
    for (rules, registered) in [(read, &[][..]), (other, &["lb-test:two:80"])] {
        let mut world = allowed(&[agent, rules].concat()).await;
        let two = container("two", &[("SERVICE_NAME", "shop")]);
        world.has(&[container("one", &[]), two]);
        world.until_ids(registered).await;
        let status = world.until_status(|status| status.synced.is_some()).await;
        assert_eq!(
            status.problems.len(),
            2 - registered.len(),
            "{:?}",
            status.problems
        );
        let problem = &status.problems[0];
        assert_eq!(problem.subject, "registration lb-test:one:80");
        assert!(
            problem.message.contains("service_prefix \"\" write"),
            "{problem}"
        );
        world.end().await;
    }
}

#[tokio::test]
async fn a_token_without_the_right_is_told_with_the_remedy_and_one_that_has_it_serves() {
    let mut world = World::at(Consul::start_guarded().await, config(), None).await;
    world.has(&[container("one", &[])]);
    let status = world
        .until_status(|status| !status.problems.is_empty())
        .await;
    let told = |part: &str| status.problems.iter().any(|it| it.message.contains(part));
    assert!(told("service_prefix \"\" write"), "{:?}", status.problems);
    assert_eq!(world.ids().await, Vec::<String>::new());
    world.end().await;
    world.token = Some(Token::Value(MASTER.to_owned()));
    world.start(config());
    world.until_ids(&["lb-test:one:80"]).await;
    world.end().await;
}
