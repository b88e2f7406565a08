use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::discover::consul::{Address, Token};

/// A server that writes down what it is asked, and answers everything the same.
struct Server {
    address: Address,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(answer: fn() -> Response) -> Self {
        Self::start_with(answer, false).await
    }

    /// One that answers no blocking query.
    async fn start_holding() -> Self {
        Self::start_with(well, true).await
    }

    async fn start_with(answer: fn() -> Response, holds: bool) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let log = asked.clone();
        let routes = Router::new().fallback(move |request: Request| {
            let mut line = format!("{} {}", request.method(), request.uri());
            for name in ["X-Consul-Token", "Authorization"] {
                if let Some(value) = request.headers().get(name) {
                    line = format!("{line} {}", value.to_str().unwrap());
                }
            }
            let waits = holds && line.contains("index=");
            log.lock().unwrap().push(line);
            async move {
                match waits {
                    true => std::future::pending().await,
                    false => answer(),
                }
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            address,
            asked,
            task,
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "busy").into_response()
}

fn well() -> Response {
    "{\"Config\": {\"Version\": \"1.8.7\", \"NodeName\": \"n\", \"Datacenter\": \"d\"}}"
        .into_response()
}

fn forbidden() -> Response {
    (StatusCode::FORBIDDEN, "Permission denied").into_response()
}

fn unknown_token() -> Response {
    let text = "rpc error making call: ACL not found";
    (StatusCode::FORBIDDEN, text).into_response()
}

fn client(addresses: &[&Address]) -> Client {
    let mut config = Config::new(addresses[0].clone());
    config.addresses = addresses.iter().map(|&it| it.clone()).collect();
    Client::new(config).unwrap()
}

/// Where nobody listens.
fn nowhere() -> Address {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string().parse().unwrap()
}

async fn get(client: &Client, path: &[&str]) -> Result<StatusCode, RequestError> {
    let answer = client.request(Method::GET, path, &[], None, AT_ONCE).await;
    answer.map(|answer| answer.status)
}

#[tokio::test]
async fn names_and_values_are_encoded() {
    let server = Server::start(well).await;
    let client = client(&[&server.address]);
    let path = ["agent", "service", "maintenance", "a/b c?"];
    let query = [("enable", "true"), ("reason", "disk & more")];
    client
        .request(Method::PUT, &path, &query, Some(Vec::new()), AT_ONCE)
        .await
        .unwrap();
    let expected =
        "PUT /v1/agent/service/maintenance/a%2Fb%20c%3F?enable=true&reason=disk+%26+more";
    assert_eq!(server.asked(), [expected]);
}

#[tokio::test]
async fn a_server_is_left_when_it_fails_and_kept_while_it_answers() {
    let (first, second) = (Server::start(busy).await, Server::start(well).await);
    let client = client(&[&nowhere(), &first.address, &second.address]);
    for _ in 0..3 {
        assert_eq!(get(&client, &["catalog"]).await.unwrap(), StatusCode::OK);
    }
    assert_eq!((first.asked().len(), second.asked().len()), (1, 3));
    assert_eq!(client.metrics().failovers.get(), 2);
}

#[tokio::test]
async fn one_that_speaks_says_more_than_one_that_is_away() {
    let server = Server::start(busy).await;
    for order in [[&nowhere(), &server.address], [&server.address, &nowhere()]] {
        let status = get(&client(&order), &["catalog"]).await.unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let error = get(&client(&[&nowhere(), &nowhere()]), &["catalog"]).await;
    assert!(
        error
            .unwrap_err()
            .explain()
            .contains("start it or correct its address")
    );
}

#[tokio::test]
async fn what_concerns_an_agent_is_never_put_to_another_but_the_next_request_is() {
    let server = Server::start(well).await;
    let client = client(&[&nowhere(), &server.address]);
    assert!(get(&client, &["agent", "services"]).await.is_err());
    assert_eq!(server.asked(), [""; 0]);
    assert!(get(&client, &["agent", "services"]).await.is_ok());
    // An agent that refuses is still the agent that was meant.
    let refusing = Server::start(busy).await;
    let client = self::client(&[&refusing.address, &server.address]);
    for _ in 0..2 {
        let status = get(&client, &["agent", "services"]).await.unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn a_refusal_is_no_reason_to_ask_another() {
    let (first, second) = (Server::start(forbidden).await, Server::start(well).await);
    let client = client(&[&first.address, &second.address]);
    assert_eq!(
        get(&client, &["catalog"]).await.unwrap(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(second.asked(), [""; 0]);
}

#[tokio::test]
async fn an_agent_is_asked_once_what_it_is() {
    let server = Server::start(well).await;
    let client = client(&[&server.address]);
    for _ in 0..2 {
        let info = client.agent().await.unwrap();
        assert_eq!((info.node.as_str(), info.datacenter.as_str()), ("n", "d"));
    }
    assert_eq!(server.asked(), ["GET /v1/agent/self"]);
    assert_eq!(client.multiplexes(), Some(false), "it is plain HTTP");
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
    config.basic_auth = Some(crate::discover::consul::BasicAuth::from_pair("u:p"));
    let client = Client::new(config).unwrap();
    get(&client, &["catalog"]).await.unwrap();
    assert_eq!(server.asked(), ["GET /v1/catalog t Basic dTpw"]);
}

/// Takes connections as the kernel does, and never answers.
fn hung() -> (std::net::TcpListener, Address) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, address)
}

#[tokio::test]
async fn who_waits_at_a_server_that_fails_another_is_taken_along() {
    let ((_hung, first), second) = (hung(), Server::start(well).await);
    let client = client(&[&first, &second.address]);
    let held = client.read(&["held"], Some(7), Consistency::Stale);
    let limit = Duration::from_millis(100);
    let other = client.request(Method::GET, &["other"], &[], None, limit);
    let both = async { tokio::join!(held, other) };
    let (held, other) = tokio::time::timeout(Duration::from_secs(5), both)
        .await
        .unwrap();
    assert!(held.is_ok() && other.is_ok());
    let mut asked = second.asked();
    asked.sort();
    assert_eq!(asked, ["GET /v1/held?stale=", "GET /v1/other"]);
}

#[tokio::test]
async fn who_waits_goes_on_waiting_while_all_refuse_another() {
    fn nobody_leads() -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader").into_response()
    }
    let first = Server::start_with(nobody_leads, true).await;
    let second = Server::start(nobody_leads).await;
    let client = client(&[&first.address, &second.address]);
    let held = client.read(&["held"], Some(7), Consistency::Stale);
    let refused = async {
        while first.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        let answer = client.read(&["led"], None, Consistency::Leader).await;
        assert_eq!(answer.unwrap().status, StatusCode::INTERNAL_SERVER_ERROR);
    };
    tokio::select! {
        biased;
        _ = held => panic!("it does not wait any more"),
        () = refused => {}
    }
    assert_eq!(client.asked(), 0);
    assert_eq!(second.asked(), ["GET /v1/led?leader="]);
}

#[tokio::test]
async fn an_agent_that_is_away_does_not_stay_the_first() {
    let server = Server::start(well).await;
    let client = client(&[&nowhere(), &server.address]);
    assert!(client.agent().await.is_err());
    assert_eq!(client.agent().await.unwrap().node, "n");
}

#[tokio::test]
async fn an_error_at_the_end_of_a_wait_is_repeated_where_it_was_said() {
    fn once_busy() -> Response {
        static SAID: std::sync::Once = std::sync::Once::new();
        let mut answer = well();
        SAID.call_once(|| answer = busy());
        answer
    }
    let (first, second) = (Server::start(once_busy).await, Server::start(well).await);
    let mut config = Config::new(first.address.clone());
    config.addresses.push(second.address.clone());
    config.wait = Duration::ZERO;
    let client = Client::new(config).unwrap();
    let answer = client.read(&["catalog"], Some(7), Consistency::Stale).await;
    assert_eq!(answer.unwrap().status, StatusCode::OK);
    assert_eq!((first.asked().len(), second.asked().len()), (2, 0));
}

#[tokio::test]
async fn a_server_that_cannot_say_what_it_is_is_left() {
    fn enterprise() -> Response {
        r#"{"Config": {"Version": "1.8.7+ent", "NodeName": "n", "Datacenter": "d"}}"#
            .into_response()
    }
    let (first, second) = (Server::start(busy).await, Server::start(enterprise).await);
    let mut config = Config::new(first.address.clone());
    config.addresses.push(second.address.clone());
    config.namespace = Some("team".to_owned());
    let client = Client::new(config).unwrap();
    assert_eq!(get(&client, &["catalog"]).await.unwrap(), StatusCode::OK);
    assert_eq!(second.asked().last().unwrap(), "GET /v1/catalog?ns=team");
    assert_eq!(first.asked(), ["GET /v1/agent/self"]);
}

#[tokio::test]
async fn a_list_is_not_asked_for_behind_thousands_of_services() {
    let server = Server::start(well).await;
    let client = client(&[&server.address]);
    let thousands = (0..PACE_BURST + 1000).map(|_| client.pace.pass());
    let thousands = futures_util::future::join_all(thousands);
    let limit = Duration::from_secs(5);
    let few = async {
        let service = ["health", "service", "a"];
        let watch = client.read(&service, None, Consistency::Stale);
        assert!(tokio::time::timeout(limit / 10, watch).await.is_err());
        for path in [&["catalog", "services"][..], &["agent", "self"]] {
            let asked = tokio::time::timeout(limit, get(&client, path)).await;
            assert_eq!(asked.unwrap().unwrap(), StatusCode::OK);
        }
    };
    tokio::select! {
        // They stand in line first.
        biased;
        _ = thousands => panic!("they have passed"),
        () = few => {}
    }
}
