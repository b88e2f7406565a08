//! What a token must be allowed to register containers.

use lb_agent::discover::consul::Token;

use crate::{
    kit::{World, config, container},
    support::{Consul, MASTER},
};

#[tokio::test]
async fn a_token_without_the_right_is_told_with_the_remedy_and_one_that_has_it_serves() {
    let mut world = World::at(Consul::start_guarded().await, config(), None).await;
    world.has(&[container("one", &[])]);
    let status = world
        .until_status(|status| !status.problems.is_empty())
        .await;
    let message = &status.problems[0].message;
    assert!(message.contains("service_prefix \"\" write"), "{message}");
    assert_eq!(world.ids().await, Vec::<String>::new());
    world.end().await;
    world.token = Some(Token::Value(MASTER.to_owned()));
    world.start(config());
    world.until_ids(&["lb-test:one:80"]).await;
    world.end().await;
}
