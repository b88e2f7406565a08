//! One push: the messages to the receiver, and what it says.

use std::{fmt, io::Write as _, time::Duration};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use reqwest::Url;
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    Config,
    batches::{About, Batches},
    headers,
};
use crate::{
    admin::{metrics::Texts, text::visible},
    discover::consul::Tls,
};

/// What was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Points that were sent.
    pub(super) points: usize,
    /// Those of them that the receiver did not want.
    pub(super) rejected: u64,
    /// Why it did not.
    pub(super) why: Option<String>,
}

/// Why a push failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The headers cannot be had, or nobody answered: it may go well any time.
    Unreachable(String),
    /// The receiver is busy, and may say for how long.
    Busy(StatusCode, Option<Duration>),
    /// The receiver does not take it, and will not the next time either.
    Refused(StatusCode),
    /// It did not take so many messages of so many, and has the others.
    Partly(StatusCode, usize, usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Busy(status, _) => write!(f, "it answered {status}; it is asked again later"),
            Self::Refused(status) => {
                let remedy = match *status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        "correct what headers_file holds"
                    }
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                        "correct the path of `endpoint`"
                    }
                    StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                        "see whether it takes OTLP over HTTP in protobuf; `compression = \"none\"` sends it plain"
                    }
                    _ => "see its log",
                };
                write!(f, "it answered {status}; {remedy}")
            }
            Self::Partly(status, refused, all) => write!(
                f,
                "it answered {status} to {refused} of {all} messages; see its log"
            ),
        }
    }
}

/// A client for pushes, which asks nobody but the receiver and follows nowhere.
///
/// # Errors
/// What is wrong with the files of TLS.
pub(super) fn client(config: &Config) -> Result<reqwest::Client, String> {
    let tls = Tls {
        ca_file: config.ca_file.clone(),
        // Never used there; the library wants one all the same.
        trust_anybody: config.endpoint.scheme() == "http",
        ..Tls::default()
    };
    let tls = tls.load().map_err(|error| error.to_string())?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("lb-agent/", env!("CARGO_PKG_VERSION")))
        .timeout(config.timeout)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())
}

/// Sends everything, one message after another: a receiver takes so much at a time, and so does our memory.
pub(super) async fn push(
    config: &Config,
    client: &reqwest::Client,
    texts: Texts,
    about: About,
) -> Result<Taken, Failure> {
    let headers = match config.headers_file.clone() {
        None => HeaderMap::new(),
        Some(path) => {
            let read = spawn_blocking(move || headers::read(&path)).await;
            let read = read.unwrap_or_else(|error| Err(error.to_string()));
            read.map_err(Failure::Unreachable)?
        }
    };
    let mut all = Taken::default();
    let (mut sent, mut refused) = (0, None);
    let mut messages = messages(texts, about, config.compress);
    while let Some(message) = messages.recv().await {
        let mut headers = headers.clone();
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        if config.compress {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        sent += 1;
        match send(client, &config.endpoint, headers, message.body).await {
            Ok(taken) => {
                all.points += message.points;
                all.rejected = all.rejected.saturating_add(taken.rejected);
                all.why = all.why.or(taken.why);
            }
            // It may be what is in this one.
            Err(Failure::Refused(status)) if !is_for_all(status) => {
                let (_, many) = refused.get_or_insert((status, 0));
                *many += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
    match refused {
        None => Ok(all),
        Some((status, many)) if many == sent => Err(Failure::Refused(status)),
        Some((status, many)) => Err(Failure::Partly(status, many, sent)),
    }
}

/// Whether whoever answers so to one message does to all of them.
fn is_for_all(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 404 | 405 | 415) || status.is_redirection()
}

/// A message as it is sent.
struct Message {
    points: usize,
    body: Vec<u8>,
}

/// All of them, the next one made while one is sent. Taking megabytes of text apart and packing them would hold up a thread of
/// everybody.
fn messages(texts: Texts, about: About, compress: bool) -> mpsc::Receiver<Message> {
    let (made, messages) = mpsc::channel(1);
    spawn_blocking(move || {
        for batch in Batches::new(&texts, &about) {
            let points = batch.points;
            let body = batch.message(&about).encode_to_vec();
            let body = match compress {
                true => gzip(&body),
                false => body,
            };
            // Nobody wants more after a failure.
            if made.blocking_send(Message { points, body }).is_err() {
                return;
            }
        }
    });
    messages
}

async fn send(
    client: &reqwest::Client,
    endpoint: &Url,
    headers: HeaderMap,
    body: Vec<u8>,
) -> Result<Taken, Failure> {
    let request = client.post(endpoint.clone()).headers(headers).body(body);
    let unreachable = |error: reqwest::Error| {
        let why = match error.is_timeout() {
            true => "no answer in time".to_owned(),
            // The URL is told beside it.
            false => crate::causes::error_chain(&error.without_url()),
        };
        Failure::Unreachable(format!("{why}; start it, or correct `endpoint`"))
    };
    let mut answer = request.send().await.map_err(unreachable)?;
    let status = answer.status();
    if !status.is_success() {
        let seconds = answer.headers().get(header::RETRY_AFTER);
        let seconds = seconds.and_then(|it| it.to_str().ok()?.trim().parse().ok());
        return Err(match status.as_u16() {
            // OTLP 1.3, "Retryable Response Codes".
            429 | 502 | 503 | 504 => Failure::Busy(status, seconds.map(Duration::from_secs)),
            _ => Failure::Refused(status),
        });
    }
    let is_protobuf = answer.headers().get(header::CONTENT_TYPE) == Some(&PROTOBUF);
    let mut said = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(unreachable)? {
        // Nobody has that much to say.
        if said.len() + piece.len() > MOST_SAID {
            return Ok(Taken::default());
        }
        said.extend_from_slice(&piece);
    }
    let said = match is_protobuf {
        true => ExportMetricsServiceResponse::decode(&*said).unwrap_or_default(),
        false => ExportMetricsServiceResponse::default(),
    };
    let partial = said.partial_success.unwrap_or_default();
    let why: String = partial.error_message.chars().take(200).collect();
    Ok(Taken {
        points: 0,
        rejected: u64::try_from(partial.rejected_data_points).unwrap_or(0),
        why: (!why.is_empty()).then(|| visible(&why).into_owned()),
    })
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    // A vector takes everything.
    let written = out.write_all(body).and_then(|()| out.finish());
    written.unwrap_or_default()
}

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const MOST_SAID: usize = 64 * 1024;

#[cfg(test)]
mod tests;
