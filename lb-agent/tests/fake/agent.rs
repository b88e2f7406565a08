//! The agent's own endpoints of the fake: what is registered with it, and what it was asked.

use std::sync::{Arc, Mutex};

use axum::{
    Json,
    body::to_bytes,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

#[derive(Clone, Default)]
pub(crate) struct Agent(Arc<Mutex<Held>>);

#[derive(Clone, Default)]
struct Held {
    services: Map<String, Value>,
    checks: Map<String, Value>,
    asked: Vec<String>,
}

impl Agent {
    /// Every request: its method, its path and its query.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap().services.keys().cloned().collect()
    }

    /// The status of a check.
    pub(crate) fn check(&self, id: &str) -> Option<String> {
        let held = self.0.lock().unwrap();
        Some(held.checks.get(id)?["Status"].as_str()?.to_owned())
    }
}

pub(super) async fn answer(State(agent): State<Agent>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut held = agent.0.lock().unwrap();
    held.asked.push(format!("{} {}", head.method, head.uri));
    let path: Vec<_> = head.uri.path().split('/').skip(3).collect();
    match path[..] {
        ["services"] => return Json(held.services.clone()).into_response(),
        ["checks"] => return Json(held.checks.clone()).into_response(),
        ["service", "register"] => held.register(&body),
        ["service", "deregister", id] => _ = held.services.remove(id),
        ["service", "maintenance", id] => {
            let check = json!({"ServiceID": id, "Status": "critical"});
            held.checks
                .insert(format!("_service_maintenance:{id}"), check);
        }
        ["check", "update", id] => held.checks[id]["Status"] = body["Status"].clone(),
        _ => return StatusCode::NOT_FOUND.into_response(),
    }
    StatusCode::OK.into_response()
}

impl Held {
    fn register(&mut self, body: &Value) {
        let id = body["ID"].as_str().unwrap();
        for check in body["Checks"].as_array().unwrap() {
            let held = json!({"ServiceID": id, "Status": check["Status"]});
            self.checks
                .insert(check["CheckID"].as_str().unwrap().to_owned(), held);
        }
        let mut service = body.clone();
        service["Service"] = body["Name"].clone();
        self.services.insert(id.to_owned(), service);
    }
}
