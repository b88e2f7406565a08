//! A fake Consul with the services `consul`, `a` and `b`, for the faults that a real one cannot be made to
//! show.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// How the fake answers about service `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One instance; a blocking query waits.
    Instance,
    /// The same, but nothing ever waits, and no index is given.
    InstanceAtOnce,
    /// Nothing, since the token may not see it.
    Filtered,
    /// Nothing, by a server that lost its leader.
    EmptyWithoutLeader,
    /// No JSON.
    Nonsense,
}

pub(crate) struct Fake {
    port: u16,
    world: World,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct World {
    /// With the index of the answer.
    answer: watch::Sender<(u64, Answer)>,
    requests: Arc<AtomicUsize>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let world = World {
            answer: watch::Sender::new((7, Answer::Instance)),
            requests: Arc::default(),
        };
        let routes = Router::new()
            .route("/v1/catalog/services", get(services))
            .route("/v1/health/service/{name}", get(health))
            .route("/v1/kv/{*key}", get(no_keys).put(lost_race))
            .fallback(|| async { (StatusCode::UNAUTHORIZED, "ACL support disabled") })
            .with_state(world.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            port,
            world,
            server,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn say(&self, answer: Answer) {
        self.world.answer.send_modify(|(index, now)| {
            *index += 1;
            *now = answer;
        });
    }

    pub(crate) fn requests(&self) -> usize {
        self.world.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    /// Holds a blocking query until there is an answer with a higher index.
    async fn wait(&self, query: Option<&str>) -> (u64, Answer) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let asked = query.and_then(|query| {
            let index = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("index="))?;
            index.parse::<u64>().ok()
        });
        let mut answer = self.answer.subscribe();
        let later = |now: &(u64, Answer)| {
            now.1 == Answer::InstanceAtOnce || asked.is_none_or(|asked| now.0 > asked)
        };
        let _ = tokio::time::timeout(Duration::from_secs(55), answer.wait_for(later)).await;
        *answer.borrow()
    }
}

async fn services(State(world): State<World>, RawQuery(query): RawQuery) -> Response {
    let now = world.wait(query.as_deref()).await;
    indexed(now, Json(json!({"consul": [], "a": [], "b": []}))).into_response()
}

async fn health(
    State(world): State<World>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let now = world.wait(query.as_deref()).await;
    let stale = query.is_some_and(|query| query.contains("stale"));
    let instance = json!([{
        "Node": {"Node": "n", "Address": "10.99.0.1"},
        "Service": {"ID": format!("{name}1"), "Port": 1}
    }]);
    match now.1 {
        Answer::Filtered if name == "a" => {
            let filtered = [("X-Consul-Results-Filtered-By-ACLs", "true")];
            (filtered, indexed(now, Json(json!([])))).into_response()
        }
        Answer::EmptyWithoutLeader if name == "a" && stale => {
            let headers = [
                ("X-Consul-KnownLeader", "false"),
                ("X-Consul-LastContact", "1000"),
            ];
            (headers, indexed(now, Json(json!([])))).into_response()
        }
        Answer::EmptyWithoutLeader if name == "a" => {
            (StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader").into_response()
        }
        Answer::Nonsense if name == "a" => indexed(now, "<html>").into_response(),
        _ => indexed(now, Json(instance)).into_response(),
    }
}

/// A token without the right to list keys.
async fn no_keys() -> Response {
    (StatusCode::FORBIDDEN, "Permission denied").into_response()
}

/// Somebody else has every key already.
async fn lost_race() -> &'static str {
    "false"
}

fn indexed((index, answer): (u64, Answer), body: impl IntoResponse) -> Response {
    let index = match answer {
        Answer::InstanceAtOnce => 0,
        _ => index,
    };
    ([("X-Consul-Index", index.to_string())], body).into_response()
}
