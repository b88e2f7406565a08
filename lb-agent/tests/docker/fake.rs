//! A fake engine on a unix socket, for the faults that a real one cannot be made to show.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use lb_agent::docker::Address;
use serde_json::json;
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::kit::LIMIT;

pub(crate) struct Fake {
    folder: tempfile::TempDir,
    pub(crate) world: World,
    server: JoinHandle<()>,
}

#[derive(Clone)]
pub(crate) struct World {
    /// The containers, by id: the text that describes each.
    pub(crate) containers: Arc<Mutex<BTreeMap<String, String>>>,
    /// Whether lists are answered; else they wait.
    pub(crate) lists: watch::Sender<bool>,
    /// The stream of events of the last subscriber; dropped, it ends.
    events: watch::Sender<Option<mpsc::UnboundedSender<String>>>,
    /// The events of the time before.
    pub(crate) past: Arc<Mutex<Vec<String>>>,
    /// The versions that were asked for, in the path.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    oldest: &'static str,
    newest: &'static str,
}

impl Fake {
    /// An engine that speaks these versions.
    pub(crate) fn start(oldest: &'static str, newest: &'static str) -> Self {
        let world = World {
            containers: Arc::default(),
            lists: watch::Sender::new(true),
            events: watch::Sender::new(None),
            past: Arc::default(),
            asked: Arc::default(),
            oldest,
            newest,
        };
        let routes = Router::new()
            .route("/version", get(version))
            .route("/{api}/info", get(info))
            .route("/{api}/events", get(events))
            .route("/{api}/containers/json", get(list))
            .route("/{api}/networks", get(networks))
            .route("/{api}/containers/{id}/json", get(inspect))
            .with_state(world.clone());
        let folder = tempfile::Builder::new()
            .prefix("lb-fake-")
            .tempdir()
            .unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let server = async { axum::serve(listener, routes).await.unwrap() };
        Self {
            folder,
            world,
            server: tokio::spawn(server),
        }
    }

    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.folder.path().join("docker.sock"))
    }

    /// Makes the container `id` exist, without a word about it.
    pub(crate) fn put(&self, id: &str, state: &str) {
        let text = json!({"Id": id, "Name": format!("/{id}"), "Created": "2026-01-01T00:00:00Z",
            "State": {"Status": state, "StartedAt": "2026-01-01T00:00:00Z"},
            "Config": {"Image": "web"}, "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}}});
        self.put_text(id, &text.to_string());
    }

    /// Makes the container `id` exist and run with this process.
    pub(crate) fn put_running(&self, id: &str, pid: u32) {
        let text = json!({"Id": id, "Name": format!("/{id}"), "Created": "2026-01-01T00:00:00Z",
            "State": {"Status": "running", "StartedAt": "2026-01-01T00:00:00Z", "Pid": pid},
            "Config": {"Image": "web"}, "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}}});
        self.put_text(id, &text.to_string());
    }

    pub(crate) fn put_text(&self, id: &str, text: &str) {
        let mut all = self.world.containers.lock().unwrap();
        all.insert(id.to_owned(), text.to_owned());
    }

    pub(crate) fn remove(&self, id: &str) {
        self.world.containers.lock().unwrap().remove(id);
    }

    /// Sends a line to whoever has subscribed.
    pub(crate) fn say(&self, line: &str) {
        let events = self.world.events.borrow();
        events.as_ref().unwrap().send(format!("{line}\n")).unwrap();
    }

    pub(crate) fn tell(&self, id: &str, action: &str, attributes: &serde_json::Value) {
        self.say(&event(NOW, id, action, attributes));
    }

    /// Has sent `signal` to the container `id` some seconds before anybody asks for events.
    pub(crate) fn sent(&self, id: &str, signal: &str, seconds: u64) {
        let time = BEGUN - seconds * 1_000_000_000;
        let sent = event(time, id, "kill", &json!({"signal": signal}));
        self.world.past.lock().unwrap().push(sent);
    }

    /// Waits until somebody listens to the events.
    pub(crate) async fn subscribed(&self) {
        let mut events = self.world.events.subscribe();
        let heard = timeout(LIMIT, events.wait_for(Option::is_some)).await;
        heard.unwrap().unwrap();
    }

    /// Ends the stream of events.
    pub(crate) fn cut(&self) {
        self.world.events.send_replace(None);
    }
}

fn event(time: u64, id: &str, action: &str, attributes: &serde_json::Value) -> String {
    let event = json!({"Type": "container", "Action": action, "timeNano": time,
                       "Actor": {"ID": id, "Attributes": attributes}});
    event.to_string()
}

/// What the clock says here, in nanoseconds since 1970.
const BEGUN: u64 = 1_795_305_600_000_000_000;

/// Later than every start of a container here.
const NOW: u64 = 1_800_000_000_000_000_000;

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn version(State(world): State<World>) -> Json<serde_json::Value> {
    Json(json!({"ApiVersion": world.newest, "MinAPIVersion": world.oldest}))
}

async fn info(State(world): State<World>, Path(api): Path<String>) -> Response {
    world.asked.lock().unwrap().push(api);
    Json(json!({"Name": "lb-fake", "SystemTime": "2026-11-22T00:00:00Z"})).into_response()
}

async fn list(State(world): State<World>) -> Json<serde_json::Value> {
    // What is there when the list is asked for, however long it takes.
    let ids: Vec<_> = world.containers.lock().unwrap().keys().cloned().collect();
    let mut lists = world.lists.subscribe();
    lists.wait_for(|answered| *answered).await.unwrap();
    Json(ids.into_iter().map(|id| json!({"Id": id})).collect())
}

async fn networks() -> Json<serde_json::Value> {
    Json(json!([{"Name": "bridge", "Internal": false}]))
}

async fn inspect(State(world): State<World>, Path((_, id)): Path<(String, String)>) -> Response {
    match world.containers.lock().unwrap().get(&id) {
        Some(text) => text.clone().into_response(),
        None => (StatusCode::NOT_FOUND, r#"{"message":"no such container"}"#).into_response(),
    }
}

async fn events(State(world): State<World>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if query.contains("since=1795305000.000000000&until=1795305600.000000000&") {
        return world.past.lock().unwrap().join("\n").into_response();
    }
    assert!(
        query.contains("since=1795305600.000000000&filters"),
        "{query}"
    );
    let (sender, receiver) = mpsc::unbounded_channel();
    world.events.send_replace(Some(sender));
    let lines = futures_util::stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(line)), receiver))
    });
    Body::from_stream(lines).into_response()
}

/// Long enough that nothing in a test comes about by it.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);
