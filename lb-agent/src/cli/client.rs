//! Talks HTTP to the agent's admin socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use crate::admin::{
    explain::{EXPLAIN_PATH, Told},
    report::{
        ACTION_HEADER, API, CLIENTS_PATH, DRAIN_PATH, DrainAnswer, DrainOrder, FLOWS_PATH,
        FlowList, PIN_PATH, PinOrder, RELEASE_PATH, Refused, ReleaseOrder, Report, SNAPSHOT_PATH,
        VIPS_PATH,
    },
    text::visible,
};
use crate::{clients, vip::Entry};

/// An agent, by its socket.
pub(super) struct Client {
    socket: PathBuf,
}

/// Why the agent's answer was not had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(
        "no agent answers at {}: start it with `lb-agent run`, or name its socket with --socket or LB_SOCKET",
        socket.display()
    )]
    NotThere { socket: PathBuf },
    #[error(
        "may not use {}: run this as root or as the user that the agent runs as",
        socket.display()
    )]
    NotAllowed { socket: PathBuf },
    #[error("cannot talk to the agent at {}: {why}", socket.display())]
    Broken { socket: PathBuf, why: String },
    #[error(
        "the agent at {} did not answer within {} s: see its log",
        socket.display(),
        patience.as_secs()
    )]
    Silent { socket: PathBuf, patience: Duration },
    #[error("{}", visible(why))]
    Refused { why: String },
    #[error(
        "the agent at {} speaks version {theirs} of the API, this command {API}: use the agent's own lb-agent",
        socket.display()
    )]
    Version { socket: PathBuf, theirs: u64 },
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    pub(super) async fn report(&self, patience: Duration) -> Result<Report, ClientError> {
        let answer = self.ask(Method::GET, SNAPSHOT_PATH, None, patience).await?;
        let body = self.success(answer)?;
        let value: serde_json::Value = self.parse(&body)?;
        match value["api"].as_u64() {
            Some(version) if version == u64::from(API) => {}
            theirs => {
                return Err(ClientError::Version {
                    socket: self.socket.clone(),
                    theirs: theirs.unwrap_or(0),
                });
            }
        }
        serde_json::from_value(value).map_err(|error| self.broken(error))
    }

    pub(super) async fn drain(
        &self,
        order: &DrainOrder,
        patience: Duration,
    ) -> Result<DrainAnswer, ClientError> {
        self.change(DRAIN_PATH, order, patience).await
    }

    pub(super) async fn clients(
        &self,
        patience: Duration,
    ) -> Result<Vec<clients::Client>, ClientError> {
        let answer = self.ask(Method::GET, CLIENTS_PATH, None, patience).await?;
        let body = self.success(answer)?;
        self.parse(&body)
    }

    pub(super) async fn flows(
        &self,
        service: Option<&str>,
        patience: Duration,
    ) -> Result<FlowList, ClientError> {
        let path = match service {
            None => FLOWS_PATH.to_owned(),
            Some(service) => format!("{FLOWS_PATH}?service={}", escaped(service)),
        };
        let answer = self.ask(Method::GET, &path, None, patience).await?;
        let body = self.success(answer)?;
        self.parse(&body)
    }

    pub(super) async fn explain(
        &self,
        client: &str,
        service: &str,
        patience: Duration,
    ) -> Result<Told, ClientError> {
        let (client, service) = (escaped(client), escaped(service));
        let path = format!("{EXPLAIN_PATH}?client={client}&service={service}");
        let answer = self.ask(Method::GET, &path, None, patience).await?;
        let body = self.success(answer)?;
        self.parse(&body)
    }

    pub(super) async fn vips(&self, patience: Duration) -> Result<Vec<Entry>, ClientError> {
        let answer = self.ask(Method::GET, VIPS_PATH, None, patience).await?;
        let body = self.success(answer)?;
        self.parse(&body)
    }

    pub(super) async fn pin(
        &self,
        order: &PinOrder,
        patience: Duration,
    ) -> Result<Vec<Entry>, ClientError> {
        self.change(PIN_PATH, order, patience).await
    }

    pub(super) async fn release(
        &self,
        order: &ReleaseOrder,
        patience: Duration,
    ) -> Result<Vec<Entry>, ClientError> {
        self.change(RELEASE_PATH, order, patience).await
    }

    async fn change<T: DeserializeOwned>(
        &self,
        path: &str,
        order: &impl Serialize,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(order).map_err(|error| self.broken(error))?;
        let answer = self.ask(Method::POST, path, Some(body), patience).await?;
        let body = self.success(answer)?;
        self.parse(&body)
    }

    /// Whether the agent is ready, or the reasons why it is not.
    pub(super) async fn ready(
        &self,
        patience: Duration,
    ) -> Result<Result<(), String>, ClientError> {
        let (status, body) = self.ask(Method::GET, "/ready", None, patience).await?;
        if status.is_success() {
            return Ok(Ok(()));
        }
        let text = String::from_utf8_lossy(&body);
        let lines: Vec<_> = text.lines().map(visible).collect();
        Ok(Err(lines.join("\n")))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        timeout(patience, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| {
                Err(ClientError::Silent {
                    socket: self.socket.clone(),
                    patience,
                })
            })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // It ends with the exchange; what goes wrong on it is seen there.
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost");
        if body.is_some() {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .header(ACTION_HEADER, "1");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.broken(error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| self.broken(error))?;
        drop(sender);
        connection.abort();
        Ok((status, body.to_bytes()))
    }

    fn success(&self, (status, body): (StatusCode, Bytes)) -> Result<Bytes, ClientError> {
        if status.is_success() {
            return Ok(body);
        }
        let why = serde_json::from_slice::<Refused>(&body).map_or_else(
            |_| format!("the agent answered {status}"),
            |refused| refused.error,
        );
        Err(ClientError::Refused { why })
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.broken(error))
    }

    fn unreachable(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotThere { socket }
            }
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket },
            _ => self.broken(error),
        }
    }

    fn broken(&self, why: impl std::fmt::Display) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            why: why.to_string(),
        }
    }
}

/// `text` as a part of a query.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Bytes of an answer: room for ten thousand services.
const ANSWER_BYTES: usize = 256 << 20;
