use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::discover::consul::{Address, metrics::Outcome};

/// A store of one record, as who may read it sees it, and as who may not.
struct Store {
    keys: Keys,
    address: Address,
    world: Arc<Mutex<World>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct World {
    stored: BTreeMap<String, &'static str>,
    may_read: bool,
    may_write: bool,
    index: u64,
}

impl Store {
    async fn start(may_read: bool, may_write: bool) -> Self {
        let world = Arc::new(Mutex::new(World {
            may_read,
            may_write,
            index: 1,
            ..World::default()
        }));
        let routes = Router::new().fallback(answer).with_state(world.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let config = Config {
            wait: Duration::from_millis(100),
            ..Config::new(Address::clone(&address))
        };
        let keys = Keys::new(config, "p/").unwrap();
        Self {
            keys,
            address,
            world,
            task,
        }
    }

    fn change(&self, how: impl FnOnce(&mut World)) {
        how(&mut self.world.lock().unwrap());
    }

    async fn next(&self, cursor: &mut Cursor) -> Result<Vec<String>, RequestError> {
        let read = self.keys.next(cursor).await;
        read.map(|(keys, _)| keys.into_keys().collect())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(world): State<Arc<Mutex<World>>>, request: Request) -> Response {
    let mut world = world.lock().unwrap();
    let key = request
        .uri()
        .path()
        .trim_start_matches("/v1/kv/")
        .to_owned();
    if request.method() == Method::PUT {
        if !world.may_write {
            return StatusCode::FORBIDDEN.into_response();
        }
        world.index += 1;
        let is_new = world.stored.insert(key, "").is_none();
        return is_new.to_string().into_response();
    }
    let shown = world.stored.iter().filter(|_| world.may_read);
    let shown: Vec<_> = shown
        .filter(|(stored, _)| stored.starts_with(&key))
        .map(|(key, value)| json!({"Key": key, "Value": value, "ModifyIndex": 1}))
        .collect();
    let index = [("X-Consul-Index", world.index.to_string())];
    if shown.is_empty() {
        return (StatusCode::NOT_FOUND, index).into_response();
    }
    (index, Json(shown)).into_response()
}

#[tokio::test]
async fn what_is_asked_of_the_store_is_counted_with_all_else() {
    let store = Store::start(true, true).await;
    let config = store.keys.client.config().clone();
    let counted = || {
        let requests = &config.metrics.requests;
        let of_keys = Outcome::new(&["kv"], "ok");
        requests.get_or_create(&of_keys).get()
    };
    let before = counted();
    assert!(store.keys.create("a", Vec::new()).await.unwrap());
    assert_eq!(counted(), before + 1);
}

#[tokio::test]
async fn what_the_token_may_not_read_is_not_taken_for_empty() {
    let store = Store::start(true, true).await;
    let mut cursor = Cursor::default();
    assert_eq!(
        store.next(&mut cursor).await.unwrap(),
        [""; 0],
        "truly empty"
    );
    store.change(|world| {
        world.stored.insert("p/a".to_owned(), "eA==");
    });
    assert_eq!(store.next(&mut cursor).await.unwrap(), ["a"]);
    assert!(store.keys.read("b").await.unwrap().is_none());
    // First the right to read is lost, then all.
    for may_write in [true, false] {
        store.change(|world| (world.may_read, world.may_write) = (false, may_write));
        let error = store.next(&mut cursor).await.unwrap_err();
        assert!(error.is_forbidden(), "{error}");
        let told = error.explain();
        assert!(told.contains("key_prefix \"lb-agent/\" write"), "{told}");
        assert!(store.keys.read("a").await.unwrap_err().is_forbidden());
    }
    store.change(|world| world.may_read = true);
    assert_eq!(store.next(&mut cursor).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_asked_for_again_at_once() {
    let store = Store::start(true, true).await;
    let mut cursor = Cursor::default();
    store.change(|world| {
        world.stored.insert("p/a".to_owned(), "no base64!");
    });
    let error = store.next(&mut cursor).await.unwrap_err();
    assert!(matches!(error, RequestError::Malformed { .. }), "{error}");
    assert_eq!(cursor.index.ask(), None);
    store.change(|world| {
        world.stored.insert("p/a".to_owned(), "eA==");
    });
    assert_eq!(store.next(&mut cursor).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn a_server_that_hangs_leaves_time_to_write_to_another() {
    let store = Store::start(true, true).await;
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = (hung.local_addr().unwrap().to_string(), hung);
    let mut config = Config::new(hung.0.parse().unwrap());
    config.addresses.push(store.address.clone());
    let keys = Keys::new(config, "p/").unwrap();
    let created = tokio::time::timeout(PATIENCE, keys.create("a", Vec::new())).await;
    assert!(created.unwrap().unwrap());
}
