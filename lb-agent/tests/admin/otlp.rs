//! Metrics pushed by OTLP, to a receiver that can be made to fail. A real one is in `tests/agent`.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Read as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::{any, post},
};
use lb_agent::{
    admin::otlp,
    cli::{Ask, Output},
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{metric::Data, number_data_point},
};
use prost::Message as _;
use tokio::{net::TcpListener, sync::mpsc};

use crate::agent::Agent;

/// What a receiver says to one message: status, a header and a body.
type Say = (StatusCode, (&'static str, &'static str), Vec<u8>);

const NOTHING: (&str, &str) = ("x-nothing", "");

/// A message, and where it was sent to.
type Heard = (String, HeaderMap, Bytes);

#[derive(Clone)]
struct Receiver {
    /// What it says first; after that it takes everything.
    says: Arc<Mutex<VecDeque<Say>>>,
    heard: mpsc::UnboundedSender<Heard>,
}

async fn hear(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let _ = receiver.heard.send((uri.path().to_owned(), headers, body));
    let said = receiver.says.lock().unwrap().pop_front();
    let (status, header, body) = said.unwrap_or((StatusCode::OK, NOTHING, Vec::new()));
    let kind = ("content-type", "application/x-protobuf");
    (status, [kind, header], body).into_response()
}

/// Its messages, and where it listens.
async fn receiver(says: impl IntoIterator<Item = Say>) -> (mpsc::UnboundedReceiver<Heard>, String) {
    let (heard, messages) = mpsc::unbounded_channel();
    let receiver = Receiver {
        says: Arc::new(Mutex::new(says.into_iter().collect())),
        heard,
    };
    let router = Router::new()
        .route("/v1/metrics", post(hear))
        .route("/elsewhere", any(hear))
        .with_state(receiver);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (messages, url)
}

pub(crate) fn config(url: &str) -> otlp::Config {
    otlp::Config {
        endpoint: url.parse().unwrap(),
        interval: Duration::from_millis(200),
        timeout: Duration::from_secs(5),
        headers_file: None,
        ca_file: None,
        compress: true,
    }
}

async fn next(
    messages: &mut mpsc::UnboundedReceiver<Heard>,
) -> (HeaderMap, ExportMetricsServiceRequest) {
    let heard = tokio::time::timeout(Duration::from_secs(10), messages.recv()).await;
    let (path, headers, body) = heard.unwrap().unwrap();
    assert_eq!(path, "/v1/metrics");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let mut plain = Vec::new();
    match headers.get("content-encoding") {
        Some(coding) => {
            assert_eq!(coding, "gzip");
            let mut unpacked = flate2::read::GzDecoder::new(&*body);
            unpacked.read_to_end(&mut plain).unwrap();
        }
        None => plain = body.to_vec(),
    }
    let message = ExportMetricsServiceRequest::decode(&*plain).unwrap();
    (headers, message)
}

fn labels(attributes: &[KeyValue]) -> String {
    let one = |it: &KeyValue| match it.value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => format!("{}={text:?}", it.key),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(one).collect::<Vec<_>>().join(",")
}

/// Each value by the name and labels that a scrape has.
fn pushed(message: ExportMetricsServiceRequest) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let resources = message.resource_metrics.into_iter();
    let metrics = resources
        .flat_map(|it| it.scope_metrics)
        .flat_map(|it| it.metrics);
    for metric in metrics {
        let name = metric.name;
        match metric.data.unwrap() {
            Data::Gauge(gauge) => all.extend(numbers(&name, gauge.data_points)),
            Data::Sum(sum) => all.extend(numbers(&name, sum.data_points)),
            Data::Histogram(histogram) => {
                for point in histogram.data_points {
                    let labels = labels(&point.attributes);
                    let mut up_to = 0;
                    let bounds = point.explicit_bounds.iter().map(f64::to_string);
                    let bounds = bounds.chain(["+Inf".to_owned()]);
                    for (bound, count) in bounds.zip(point.bucket_counts) {
                        up_to += count;
                        let of = format!("{name}_bucket{{le=\"{bound}\",{labels}}}");
                        all.insert(of, up_to as f64);
                    }
                    all.insert(format!("{name}_sum{{{labels}}}"), point.sum.unwrap());
                    all.insert(format!("{name}_count{{{labels}}}"), point.count as f64);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    all
}

fn numbers(
    name: &str,
    points: Vec<opentelemetry_proto::tonic::metrics::v1::NumberDataPoint>,
) -> impl Iterator<Item = (String, f64)> {
    points.into_iter().map(move |point| {
        let labels = labels(&point.attributes);
        let of = match labels.as_str() {
            "" => name.to_owned(),
            labels => format!("{name}{{{labels}}}"),
        };
        let value = match point.value.unwrap() {
            number_data_point::Value::AsDouble(value) => value,
            number_data_point::Value::AsInt(value) => value as f64,
        };
        (of, value)
    })
}

/// The same of a scrape.
fn scraped(answer: &str) -> BTreeMap<String, f64> {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let split = lines.filter_map(|line| line.rsplit_once(' '));
    split
        .map(|(of, value)| (of.to_owned(), value.parse().unwrap()))
        .collect()
}

/// What is another one whenever it is read.
fn moves(of: &str) -> bool {
    [
        "process_",
        "lb_otlp_",
        "lb_source_data_age",
        "lb_front_process",
    ]
    .iter()
    .any(|it| of.starts_with(it))
}

#[tokio::test]
async fn what_is_pushed_is_what_a_scrape_shows() {
    let (mut messages, url) = receiver([]).await;
    let agent = Agent::start_pushing(config(&url)).await;
    next(&mut messages).await;
    let scraped = scraped(&agent.get("/metrics").await);
    let pushed = pushed(next(&mut messages).await.1);
    let settled = |all: BTreeMap<String, f64>| {
        let all = all.into_iter().filter(|(of, _)| !moves(of));
        all.collect::<BTreeMap<_, _>>()
    };
    let names = |all: &BTreeMap<String, f64>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&pushed), names(&scraped));
    let (pushed, scraped) = (settled(pushed), settled(scraped));
    assert!(pushed.len() > 50, "{pushed:#?}");
    assert_eq!(pushed, scraped);
    agent.end().await;
}

#[tokio::test]
async fn the_headers_of_the_file_are_sent_and_never_shown_and_may_change() {
    let (mut messages, url) = receiver([]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("headers");
    std::fs::write(&file, "Authorization: Bearer s3cret-1\n").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).unwrap();
    let config = otlp::Config {
        headers_file: Some(file.clone()),
        compress: false,
        ..config(&url)
    };
    assert!(!format!("{config:?}").contains("s3cret"));
    let agent = Agent::start_pushing(config).await;
    let (headers, _) = next(&mut messages).await;
    assert_eq!(headers["authorization"], "Bearer s3cret-1");
    assert!(!headers.contains_key("content-encoding"));
    std::fs::write(&file, "Authorization: Bearer s3cret-2\n").unwrap();
    while next(&mut messages).await.0["authorization"] != "Bearer s3cret-2" {}
    std::fs::write(&file, "Bearer s3cret-3\n").unwrap();
    let detail = agent.line_that(|it| it.contains("headers:1")).await;
    assert!(detail.contains("write `Name: value`"), "{detail}");
    for page in ["/", "/metrics", "/api/v1/snapshot"] {
        assert!(!agent.get(page).await.contains("s3cret"));
    }
    agent.end().await;
}

#[tokio::test]
async fn a_receiver_that_fails_is_counted_and_told_until_it_takes_them_again() {
    let busy = (
        StatusCode::SERVICE_UNAVAILABLE,
        ("retry-after", "0"),
        Vec::new(),
    );
    // Nobody else is shown what is for this one.
    let elsewhere = (
        StatusCode::TEMPORARY_REDIRECT,
        ("location", "/elsewhere"),
        Vec::new(),
    );
    let refused = (StatusCode::UNAUTHORIZED, NOTHING, Vec::new());
    let (mut messages, url) = receiver([busy, elsewhere, refused]).await;
    let agent = Agent::start_pushing(config(&url)).await;
    agent.line_that(|it| it.contains("it answered 401")).await;
    let (_, out, _) = agent.ask(Output::Table, Ask::Status).await;
    assert!(out.contains("correct what headers_file holds"), "{out}");
    let detail = agent.line_that(|it| it.starts_with("pushed ")).await;
    assert!(detail.contains(&url), "{detail}");
    for _ in 0..4 {
        next(&mut messages).await;
    }
    let metrics = scraped(&agent.get("/metrics").await);
    assert_eq!(metrics["lb_otlp_pushes_total{result=\"failed\"}"], 3.0);
    assert!(metrics["lb_otlp_pushes_total{result=\"ok\"}"] >= 1.0);
    agent.end().await;
}

#[tokio::test]
async fn nobody_at_the_endpoint_holds_up_nobody() {
    let url = "http://127.0.0.1:1/v1/metrics";
    let agent = Agent::start_pushing(config(url)).await;
    let detail = agent.line_that(|it| it.starts_with("cannot push")).await;
    assert!(detail.contains("refused"), "{detail}");
    assert!(
        detail.ends_with("start it, or correct `endpoint`"),
        "{detail}"
    );
    agent.end().await;
}

#[tokio::test]
async fn points_that_the_receiver_does_not_want_are_told() {
    let said = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 4,
            error_message: "out of order\u{1b}[2J".to_owned(),
        }),
    };
    let says = (0..1_000).map(|_| (StatusCode::OK, NOTHING, said.encode_to_vec()));
    let (_messages, url) = receiver(says).await;
    let agent = Agent::start_pushing(config(&url)).await;
    let detail = agent.line_that(|it| it.contains("4 not taken")).await;
    assert!(detail.ends_with("out of order\\u{1b}[2J"), "{detail}");
    let metrics = scraped(&agent.get("/metrics").await);
    assert!(metrics["lb_otlp_rejected_points_total"] >= 4.0);
    agent.end().await;
}
