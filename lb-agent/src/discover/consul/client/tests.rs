mod rights;
mod waiting;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::discover::consul::Address;

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
async fn an_agent_that_is_away_does_not_stay_the_first() {
    let server = Server::start(well).await;
    let client = client(&[&nowhere(), &server.address]);
    assert!(client.agent().await.is_err());
    assert_eq!(client.agent().await.unwrap().node, "n");
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
