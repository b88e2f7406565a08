//! The paths of the admin interface and what answers them.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get, post},
};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tracing::warn;

use super::{
    action::{self, Counts},
    clients,
    configuration::{self, CONFIGURATION_PATH},
    events::{self, EVENTS_PATH, Events},
    explain::{self, EXPLAIN_PATH},
    exposition, flows,
    guard::{ANSWER_HEADERS, Access, Actor, Guard, Refusal, Who},
    history::{self, HISTORY_PATH, History},
    log,
    metrics::Texts,
    openapi::{OPENAPI, OPENAPI_PATH},
    packets::{self, FLUSH_PATH, PACKET_EXPLAIN_PATH, PACKET_TRACE_PATH},
    page::{
        self, ACTIONS, ACTIONS_PATH, ICON, ICON_PATH, SCRIPT, SCRIPT_PATH, STYLE, STYLE_PATH,
        wrong::{self, WRONG_PATH},
    },
    process,
    readiness::Readiness,
    refusals::refused,
    registered::{self, REGISTRAR_PATH},
    report::{
        ACTION_HEADER, CLIENTS_PATH, FLOWS_PATH, LOG_PATH, PIN_PATH, RELEASE_PATH, SESSION_PATH,
        SNAPSHOT_PATH, STATE_PATH, STATUS_PATH, Status, VIPS_PATH,
    },
    reports::{PATIENCE, ReportRequest, apart},
    session,
    stream::{self, STREAM_PATH, Streams},
    trace::{self, TRACE_PATH},
    vips,
};
use crate::{
    clients::Clients,
    config::Setting,
    last_lines::LastLines,
    order::OrderRequest,
    packet, registrar, removal,
    snapshot::Snapshot,
    sockets::Sockets,
    stats::{Kept, KeptRequest, StatsRequest},
    trace::TraceRequest,
    vip,
};

/// What the handlers share; nothing in it changes but through its channels and counters.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    pub(super) stats: mpsc::Sender<StatsRequest>,
    pub(super) reports: mpsc::Sender<ReportRequest>,
    pub(super) traces: mpsc::Sender<TraceRequest>,
    pub(super) kept: mpsc::Sender<KeptRequest>,
    pub(super) sockets: Sockets,
    pub(super) removal: watch::Receiver<removal::Status>,
    pub(super) front: watch::Receiver<Option<lb_front::FrontStats>>,
    pub(super) orders: mpsc::Sender<OrderRequest>,
    pub(super) followers: Vec<super::Follower>,
    pub(super) vips: mpsc::Sender<vip::Request>,
    pub(super) clients: watch::Receiver<Option<Arc<Clients>>>,
    pub(super) registrar: Option<watch::Receiver<registrar::Status>>,
    pub(super) packet: Option<packet::Handle>,
    pub(super) settings: Arc<[Setting]>,
    pub(super) pools: vip::Pools,
    pub(super) events: Events,
    pub(super) log: LastLines,
    pub(super) readiness: Readiness,
    pub(super) registry: Arc<Registry>,
    /// Whether single backends have metrics.
    pub(super) per_backend: bool,
    pub(super) hosts: Arc<super::HostNames>,
    pub(super) components: Arc<Vec<super::ComponentLine>>,
    pub(super) guard: Arc<Guard>,
    pub(super) counts: Counts,
    pub(super) history: Arc<History>,
    pub(super) streams: Arc<Streams>,
    pub(super) host: Arc<str>,
    pub(super) started: SystemTime,
}

/// Every path, behind the guard.
pub(super) fn router(desk: Desk) -> Router {
    paths()
        .router
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here\n") })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(desk.clone(), admit))
        .with_state(desk)
}

/// A router that knows its paths, so that a test can compare them with the document of the API.
#[derive(Default)]
pub(super) struct Paths {
    router: Router<Desk>,
    pub(super) paths: Vec<&'static str>,
}

impl Paths {
    fn route(mut self, path: &'static str, methods: MethodRouter<Desk>) -> Self {
        self.paths.push(path);
        self.router = self.router.route(path, methods);
        self
    }
}

/// Every path and what answers it.
pub(super) fn paths() -> Paths {
    Paths::default()
        .route("/", get(page::overview))
        .route("/service/{*name}", get(page::one))
        .route("/vips", get(page::vips::show))
        .route("/flows", get(page::flows::show))
        .route("/registrar", get(page::registrar::show))
        .route("/events", get(page::events))
        .route("/configuration", get(page::configuration::show))
        .route(STYLE_PATH, get(|| asset("text/css; charset=utf-8", STYLE)))
        .route(
            SCRIPT_PATH,
            get(|| asset("text/javascript; charset=utf-8", SCRIPT)),
        )
        .route(
            ACTIONS_PATH,
            get(|| asset("text/javascript; charset=utf-8", ACTIONS)),
        )
        .route(ICON_PATH, get(|| asset("image/svg+xml", ICON)))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .route(SNAPSHOT_PATH, get(snapshot))
        .route(STATUS_PATH, get(status))
        .route(STATE_PATH, post(action::order))
        .route(CLIENTS_PATH, get(clients::list))
        .route(FLOWS_PATH, get(flows::list))
        .route(EVENTS_PATH, get(events::list))
        .route(LOG_PATH, get(log::list))
        .route(EXPLAIN_PATH, get(explain::tell))
        .route(TRACE_PATH, get(trace::stream))
        .route(STREAM_PATH, get(stream::stream))
        .route(VIPS_PATH, get(vips::list))
        .route(
            SESSION_PATH,
            get(session::tell).post(session::open).delete(session::end),
        )
        .route(PIN_PATH, post(vips::pin))
        .route(FLUSH_PATH, post(packets::flush))
        .route(PACKET_EXPLAIN_PATH, get(packets::explain))
        .route(PACKET_TRACE_PATH, get(packets::trace))
        .route(RELEASE_PATH, post(vips::release))
        .route(HISTORY_PATH, get(history::tell))
        .route(WRONG_PATH, get(wrong::tell))
        .route(REGISTRAR_PATH, get(registered::tell))
        .route(CONFIGURATION_PATH, get(configuration::tell))
        .route(OPENAPI_PATH, get(|| asset("application/json", OPENAPI)))
}

/// The guard before every handler, and the headers behind it.
async fn admit(
    State(desk): State<Desk>,
    Extension(actor): Extension<Actor>,
    mut request: Request,
    next: Next,
) -> Response {
    let (method, uri) = (request.method(), request.uri());
    let verdict = match request.headers().contains_key(header::AUTHORIZATION)
        && desk.guard.guesses.is_crowded()
    {
        true => Err(Refusal::Crowded),
        false => desk.guard.admit(&actor, method, uri, request.headers()),
    };
    let mut answer = match verdict {
        Ok(access) => {
            if access.who == Who::Token {
                desk.guard.guesses.forget(access.client);
            }
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(refusal) => {
            let client = Guard::client_of(&actor, request.headers());
            turn_away(&desk, client, request.headers(), refusal).await
        }
    };
    for (name, value) in ANSWER_HEADERS {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        answer.headers_mut().insert(name, value);
    }
    answer
}

pub(super) async fn turn_away(
    desk: &Desk,
    client: Option<IpAddr>,
    headers: &HeaderMap,
    mut refusal: Refusal,
) -> Response {
    desk.counts.count_refusal();
    if refusal == Refusal::WrongToken {
        warn!(target: "audit", ?client, "a wrong token was shown");
        // Guessing costs time, and each connection guesses once at a time.
        if !desk.guard.guesses.wait(client).await {
            refusal = Refusal::Crowded;
        }
    }
    let mut answer = refused(refusal.status(), refusal.to_string());
    // Of a script's request the browser would ask in a window of its own, over the page that asks already.
    let script = headers.contains_key(ACTION_HEADER)
        || headers.get("sec-fetch-mode").is_some_and(|it| it == "cors");
    if answer.status() == StatusCode::UNAUTHORIZED && !script {
        let challenge = HeaderValue::from_static("Basic realm=\"lb-agent\"");
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn snapshot(State(desk): State<Desk>, Extension(access): Extension<Access>) -> Response {
    let report = desk.report_for(&access).await;
    apart(move || Json(&*report).into_response()).await
}

async fn status(State(desk): State<Desk>, Extension(access): Extension<Access>) -> Json<Status> {
    Json(Status::from(&*desk.report_for(&access).await))
}

async fn ready(State(desk): State<Desk>) -> Response {
    let reasons = desk.readiness.reasons();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    let text: String = reasons.iter().map(|reason| format!("{reason}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics_text(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    match desk.metrics().await {
        Ok((texts, _)) => exposition::answer(&headers, texts.whole()).await,
        Err(_) => {
            let text = "a metric cannot be written: see the agent's log\n";
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

impl Desk {
    /// All metrics of this moment, and the front's process with since when it counts, if it is there and that is known. What
    /// cannot be written is logged.
    pub(super) async fn metrics(
        &self,
    ) -> Result<(Texts, Option<(u32, SystemTime)>), std::fmt::Error> {
        let report = self.report().await;
        let (per_backend, registry) = (self.per_backend, Arc::clone(&self.registry));
        let pid = self.front.borrow().as_ref().map(|front| front.pid);
        let encode = move || {
            let process = process::figures(Path::new(process::OWN));
            let front = pid.map(|pid| process::figures(&Path::new("/proc").join(pid.to_string())));
            let front = front.unwrap_or_default();
            let since = pid.zip(process::started_at(&front));
            let texts = Texts::encode(&report, per_backend, process, front, &registry)?;
            Ok::<_, std::fmt::Error>((texts, since))
        };
        let encoded = apart(encode).await;
        encoded.inspect_err(|error| warn!(%error, "the metrics cannot be written"))
    }

    /// Where a client of the service with this address is kept; nothing if nobody says so.
    pub(super) async fn read_kept(&self, client: u64, vip: Ipv4Addr) -> Option<Vec<Kept>> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let request = KeptRequest { client, vip, reply };
            self.kept.send(request).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }
}

/// Bytes of a request's body.
const BODY_BYTES: usize = 16 * 1024;
