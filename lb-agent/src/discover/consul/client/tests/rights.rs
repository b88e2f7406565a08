//! Tokens: which is sent, which is not known, and which right one lacks.

use super::*;
use crate::discover::consul::{BasicAuth, Token};

fn unknown_token() -> Response {
    let text = "rpc error making call: ACL not found";
    (StatusCode::FORBIDDEN, text).into_response()
}

#[tokio::test]
async fn the_right_that_is_missing_is_named() {
    let server = Server::start(forbidden).await;
    let client = client(&[&server.address]);
    for (path, right) in [
        (&["agent", "self"][..], "agent_prefix \"\" read"),
        (
            &["agent", "service", "register"],
            "service_prefix \"\" write",
        ),
        (&["kv", "lb-agent", "vip"], "key_prefix \"lb-agent/\" write"),
        (
            &["health", "service", "a"],
            "service_prefix \"\" and node_prefix \"\" read",
        ),
    ] {
        let answer = client.request(Method::GET, path, &[], None, AT_ONCE).await;
        let error = answer.and_then(Answer::successful).unwrap_err();
        assert!(error.is_forbidden());
        assert!(error.explain().ends_with(right), "{}", error.explain());
    }
}

#[tokio::test]
async fn a_token_that_consul_does_not_know_lacks_no_right() {
    let server = Server::start(unknown_token).await;
    let client = client(&[&server.address]);
    let answer = client.request(Method::GET, &["catalog"], &[], None, AT_ONCE);
    let error = answer.await.and_then(Answer::successful).unwrap_err();
    let told = error.explain();
    assert!(error.is_forbidden(), "{told}");
    assert!(
        told.contains("does not know this token: correct it"),
        "{told}"
    );
    assert!(!told.contains("give a token with"), "{told}");
}

#[tokio::test]
async fn a_token_file_is_read_at_every_request_and_an_empty_one_is_no_anonymity() {
    let server = Server::start(well).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let mut config = Config::new(server.address.clone());
    config.token = Some(Token::File(file.clone()));
    let client = Client::new(config).unwrap();
    for (text, told) in [
        ("one\n", None),
        ("", Some("the Consul token is empty")),
        ("a\u{7f}b", Some("bytes that cannot be sent")),
        (" two ", None),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = get(&client, &["catalog"]).await.err();
        let error = error.map(|error| error.explain());
        assert_eq!(error.is_some(), told.is_some(), "{text}: {error:?}");
        assert!(error.unwrap_or_default().contains(told.unwrap_or_default()));
    }
    std::fs::remove_file(&file).unwrap();
    let error = get(&client, &["catalog"]).await.unwrap_err();
    assert!(
        error.explain().contains("correct the token file"),
        "{error}"
    );
    assert_eq!(
        server.asked(),
        ["GET /v1/catalog one", "GET /v1/catalog two"]
    );
}

#[tokio::test]
async fn who_waits_asks_again_with_the_new_token_when_told() {
    let server = Server::start_holding().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "one").unwrap();
    let reload = watch::Sender::default();
    let mut config = Config::new(server.address.clone());
    config.token = Some(Token::File(file.clone()));
    config.reload = reload.subscribe();
    let client = Client::new(config).unwrap();
    let held = client.read(&["catalog"], Some(7), Consistency::Stale);
    let told = async {
        while server.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::fs::write(&file, "two").unwrap();
        reload.send_replace(());
    };
    let both = async { tokio::join!(held, told) };
    let (held, ()) = tokio::time::timeout(Duration::from_secs(5), both)
        .await
        .unwrap();
    assert_eq!(held.unwrap().status, StatusCode::OK);
    assert_eq!(
        server.asked(),
        [
            "GET /v1/catalog?stale=&index=7&wait=55000ms one",
            "GET /v1/catalog?stale= two"
        ]
    );
}

#[tokio::test]
async fn a_proxy_before_consul_gets_its_user_and_consul_its_token() {
    let server = Server::start(well).await;
    let mut config = Config::new(server.address.clone());
    config.token = Some(Token::Value("t".to_owned()));
    config.basic_auth = Some(BasicAuth::from_pair("u:p"));
    let client = Client::new(config).unwrap();
    get(&client, &["catalog"]).await.unwrap();
    assert_eq!(server.asked(), ["GET /v1/catalog t Basic dTpw"]);
}
