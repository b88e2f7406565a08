//! A fake Consul with the services `consul`, `a` and `b`, for the faults that a real one cannot be made to
//! show.

use std::{
    io::{self, Write as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

mod agent;

use agent::Agent;

/// How the fake answers about service `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One instance; a blocking query waits.
    Instance,
    /// The same, but nothing ever waits, and no index is given.
    InstanceAtOnce,
    /// Nothing, since the token may not see it.
    Filtered,
    /// Nothing; there is none any more, or the token may not see it and Consul does not say so. The token is known.
    Empty,
    /// Nothing, by a server that lost its leader.
    EmptyWithoutLeader,
    /// Another instance, by a server that has just started from an old snapshot and knows no leader.
    OlderWithoutLeader,
    /// Another instance with a lower index, by a server that is behind its leader; the leader answers as
    /// [`Answer::Instance`].
    Behind,
    /// The same, and the leader is lost, which the server does not know yet.
    BehindOfNobody,
    /// The same as [`Answer::Instance`], by a server that lost its leader, as only a question without a wait shows.
    LostDuringWait,
    /// No JSON.
    Nonsense,
    /// A body of which a byte comes each second.
    Slow,
    /// A body that ends in its middle.
    Cut,
    /// A whole body with a part of the JSON.
    Truncated,
    /// The same as an answer about the list of services, which has lost one.
    TruncatedList,
    /// A hundred megabytes.
    Huge,
    /// A hundred megabytes that are small on the wire.
    Bomb,
    /// Too many requests; ask again in two seconds.
    TooMany,
    /// Somewhere else.
    Moved,
}

pub(crate) struct Fake {
    port: u16,
    world: World,
    pub(crate) agent: Agent,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct World {
    /// With the index of the answer.
    answer: watch::Sender<(u64, Answer)>,
    requests: Arc<AtomicUsize>,
    /// When service `a` was asked about, and with which parameters.
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
    version: watch::Sender<&'static str>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let world = World {
            answer: watch::Sender::new((7, Answer::Instance)),
            requests: Arc::default(),
            asked: Arc::default(),
            version: watch::Sender::new("1.8.7"),
        };
        let agent = Agent::default();
        let routes = Router::new()
            .route("/v1/agent/{*what}", any(agent::answer))
            .with_state(agent.clone())
            .route("/v1/catalog/services", get(services))
            .route("/v1/health/service/{name}", get(health))
            .route("/v1/agent/self", get(itself))
            .route("/v1/acl/token/self", get(own_token))
            .route("/v1/kv/{*key}", get(no_keys).put(lost_race))
            .fallback(|| async { (StatusCode::UNAUTHORIZED, "ACL support disabled") })
            .with_state(world.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            port,
            world,
            agent,
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

    /// Makes it another version of Consul.
    pub(crate) fn upgrade(&self, version: &'static str) {
        self.world.version.send_replace(version);
    }

    /// When service `a` was asked about, and with which parameters.
    pub(crate) fn asked(&self) -> Vec<(Instant, String)> {
        self.world.asked.lock().unwrap().clone()
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
        let wait = query.and_then(|query| {
            let wait = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("wait="))?;
            wait.strip_suffix("ms")?.parse().ok()
        });
        let wait = Duration::from_millis(wait.unwrap_or(55_000));
        let _ = tokio::time::timeout(wait, answer.wait_for(later)).await;
        *answer.borrow()
    }
}

async fn services(State(world): State<World>, RawQuery(query): RawQuery) -> Response {
    let now = world.wait(query.as_deref()).await;
    if now.1 == Answer::TruncatedList {
        return indexed(now, "{\"consul\": [], \"a\": []").into_response();
    }
    let query = query.unwrap_or_default();
    if now.1 == Answer::LostDuringWait && !query.contains("stale") {
        return (StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader").into_response();
    }
    if now.1 == Answer::LostDuringWait && !query.contains("index=") {
        let names = Json(json!({"consul": [], "a": [], "b": []}));
        return ([("X-Consul-KnownLeader", "false")], indexed(now, names)).into_response();
    }
    indexed(now, Json(json!({"consul": [], "a": [], "b": []}))).into_response()
}

async fn health(
    State(world): State<World>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    if name == "a" {
        let asked = (Instant::now(), query.clone().unwrap_or_default());
        world.asked.lock().unwrap().push(asked);
    }
    let now = world.wait(query.as_deref()).await;
    let stale = query.is_some_and(|query| query.contains("stale"));
    let instance = json!([{
        "Node": {"Node": "n", "Address": "10.99.0.1"},
        "Service": {"ID": format!("{name}1"), "Port": 1, "Meta": {"lb-registrar": "h"}}
    }]);
    let older = json!([{
        "Node": {"Node": "n", "Address": "10.99.0.1"},
        "Service": {"ID": "a0", "Port": 1}
    }]);
    match now.1 {
        // The service `consul` lies in another namespace.
        Answer::Empty if name != "b" => indexed(now, Json(json!([]))).into_response(),
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
        Answer::OlderWithoutLeader if name == "a" && stale => {
            let headers = [("X-Consul-KnownLeader", "false")];
            (headers, indexed((1, now.1), Json(older))).into_response()
        }
        Answer::Behind | Answer::BehindOfNobody if name == "a" && stale => {
            indexed((1, now.1), Json(older)).into_response()
        }
        Answer::EmptyWithoutLeader | Answer::OlderWithoutLeader | Answer::BehindOfNobody
            if name == "a" =>
        {
            (StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader").into_response()
        }
        Answer::Nonsense if name == "a" => indexed(now, "<html>").into_response(),
        Answer::Slow if name == "a" => indexed(now, slow()).into_response(),
        Answer::Cut if name == "a" => indexed(now, cut()).into_response(),
        Answer::Truncated if name == "a" => {
            let text = instance.to_string();
            indexed(now, text[..text.len() - 1].to_owned()).into_response()
        }
        Answer::Huge if name == "a" => indexed(now, huge()).into_response(),
        Answer::Bomb if name == "a" => {
            ([("Content-Encoding", "gzip")], indexed(now, bomb())).into_response()
        }
        Answer::TooMany if name == "a" => {
            let again = [("Retry-After", TOO_MANY_SECONDS.to_string())];
            (StatusCode::TOO_MANY_REQUESTS, again, "slow down").into_response()
        }
        Answer::Moved if name == "a" => {
            let elsewhere = [("Location", "/v1/health/service/b")];
            (StatusCode::MOVED_PERMANENTLY, elsewhere).into_response()
        }
        _ => indexed(now, Json(instance)).into_response(),
    }
}

/// How long [`Answer::TooMany`] asks for.
pub(crate) const TOO_MANY_SECONDS: u64 = 2;

const MEGABYTES: usize = 100;

fn slow() -> Body {
    let bytes = stream::iter(b"[                                                         ]");
    let bytes = bytes.then(|byte| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, io::Error>(vec![*byte])
    });
    Body::from_stream(bytes)
}

fn cut() -> Body {
    let half = Ok(b"[{\"Node\": {\"Node\": \"n\"".to_vec());
    Body::from_stream(stream::iter([half, Err(io::Error::other("cut"))]))
}

fn huge() -> Body {
    let spaces = stream::repeat_with(|| Ok::<_, io::Error>(vec![b' '; 1 << 20]));
    Body::from_stream(spaces.take(MEGABYTES))
}

fn bomb() -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..MEGABYTES {
        packed.write_all(&[b' '; 1 << 20]).unwrap();
    }
    packed.finish().unwrap()
}

async fn itself(State(world): State<World>) -> Json<Value> {
    let version = *world.version.borrow();
    Json(json!({"Config": {"Version": version, "NodeName": "n", "Datacenter": "dc1"}}))
}

async fn own_token(State(world): State<World>) -> Response {
    match world.answer.borrow().1 {
        Answer::Empty => Json(json!({"AccessorID": "known"})).into_response(),
        _ => (StatusCode::UNAUTHORIZED, "ACL support disabled").into_response(),
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
