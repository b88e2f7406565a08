//! The instances of an example: real ones, which answer as the document says.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::Response;
use lb_agent::{
    assemble::{self, Facts},
    catalog::SourceState,
    config,
    discover::file,
    options::Proto,
    routes::{Follower, RouteConfig},
    snapshot::{ProbeState, Snapshot},
};
use lb_front::routes::RoutesChange;

use crate::{
    kit::{Backend, Reply, Seen, ok, refusing},
    kit_h2::{Call, H2Backend},
};

/// The routes to `services`, whose instances are real ones in place of those in the text; and all problems.
pub(super) fn routes(services: &str, front: &config::Front) -> (RoutesChange, Vec<String>) {
    let catalog = file::parse(services).unwrap();
    let state = SourceState {
        catalog: Some(Arc::new(catalog)),
        ..SourceState::default()
    };
    let facts = Facts {
        vips: Arc::default(),
        verdicts: Arc::default(),
        orders: Arc::default(),
        departed: Arc::default(),
        ramps: Arc::default(),
        problems: Vec::new(),
        since: SystemTime::UNIX_EPOCH,
    };
    let sources = BTreeMap::from([("file".to_owned(), state)]);
    let mut snapshot = assemble::assemble(&sources, &facts);
    let mut instances = BTreeMap::new();
    let all: Vec<_> = snapshot
        .services
        .iter()
        .map(|(name, it)| (name.clone(), it.clone()))
        .collect();
    for (name, mut service) in all {
        let service_speaks = service.options.proto;
        for (key, backend) in &mut Arc::make_mut(&mut service).backends {
            let id = key.id.to_string();
            let h2c = service_speaks == Proto::H2c;
            let instance = instances
                .entry(backend.address)
                .or_insert_with(|| match h2c {
                    _ if id == "gone" => refusing(),
                    true => H2Backend::start(move |call| speak(id.clone(), call)).address,
                    false => Backend::start(move |seen| reply(&told(&id, "", seen))).address,
                });
            backend.address = *instance;
            backend.probe.state = ProbeState::Up;
        }
        snapshot.services.insert(name, service);
    }
    let config = RouteConfig {
        domains: front.domains.clone(),
        expose: front.expose,
        auth: front.auth.keys().cloned().collect(),
        ..RouteConfig::default()
    };
    let mut follower = Follower::new(config);
    let change = follower.follow(&Snapshot::default(), &snapshot, &[].into());
    let problems = snapshot.problems.iter().chain(follower.problems());
    (change, problems.map(ToString::to_string).collect())
}

/// The same of one that speaks HTTP/2.
async fn speak(id: String, mut call: Call) {
    let request = &call.request;
    let mut head = format!("{} {} HTTP/2\r\n", request.method(), request.uri().path());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    let seen = Seen {
        connection: 0,
        head,
        body: Vec::new(),
    };
    let text = told(&id, " HTTP/2", &seen);
    let known = Response::builder().header("content-length", text.len());
    let known = known.body(()).unwrap();
    let mut body = call.answer.send_response(known, false).unwrap();
    body.send_data(text.into(), true).unwrap();
}

/// What an instance answers, as the document says.
fn told(id: &str, version: &str, seen: &Seen) -> String {
    // Before the first request of a connection.
    let mut head = &*seen.head;
    let told = head
        .strip_prefix("PROXY ")
        .and_then(|it| it.split_once("\r\n"));
    if let Some((_, rest)) = told {
        head = rest;
    }
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut text = format!("{id}: {method} {path}{version}\n");
    if let Some((line, _)) = told {
        let words: Vec<_> = line.split(' ').take(3).collect();
        text.push_str(&format!("PROXY {}\n", words.join(" ")));
    }
    let mut fields: Vec<_> = lines.map(str::to_ascii_lowercase).collect();
    fields.retain(|field| {
        let begins = |with: &[&str]| with.iter().any(|it| field.starts_with(it));
        match path {
            "/fields" => begins(&["x-", "x_", "forwarded:"]),
            _ => begins(&["x-", "x_"]) && !begins(&["x-forwarded-", "x-request-id"]),
        }
    });
    fields.sort();
    for field in fields {
        text.push_str(&field);
        text.push('\n');
    }
    text
}

/// The same as HTTP/1.1, in its own time or never.
fn reply(text: &str) -> Reply {
    if text.contains(" /never") {
        return Reply::Stall(Vec::new());
    }
    if !text.contains(" /events") {
        return Reply::Keep(answer(text));
    }
    let mut begun = ok(&text.repeat(2));
    let rest = begun.split_off(begun.len() - text.len());
    Reply::Rest(begun, Duration::from_millis(1500), rest)
}

/// The same as HTTP/1.1.
fn answer(text: &str) -> Vec<u8> {
    if text.contains(" /long") {
        let text = text.repeat(200);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length:";
        return format!("{head} {}\r\n\r\n{text}", text.len()).into();
    }
    ok(text)
}
