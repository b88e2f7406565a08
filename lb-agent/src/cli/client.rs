//! Talks HTTP to the agent's admin socket.

mod exchange;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    admin::{
        events::{EVENTS_PATH, EventList},
        explain::{EXPLAIN_PATH, Told},
        packets::{FLUSH_PATH, FlushOrder, Flushed, PACKET_EXPLAIN_PATH, PACKET_TRACE_PATH, Way},
        report::{
            API, CLIENTS_PATH, FLOWS_PATH, FlowList, PIN_PATH, PinOrder, RELEASE_PATH, Refused,
            ReleaseOrder, Report, SNAPSHOT_PATH, STATE_PATH, STATUS_PATH, StateAnswer, StateOrder,
            Status, VIPS_PATH,
        },
        text::visible,
        trace::TRACE_PATH,
    },
    clients,
    vip::Entry,
};
pub(super) use exchange::Lines;

/// An agent, by its socket.
pub(crate) struct Client {
    socket: PathBuf,
}

/// Why the agent's answer was not had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "no agent answers at {}: start it with `lb-agent run`, or name its socket with --socket or LB_SOCKET",
        socket.display()
    )]
    NotThere { socket: PathBuf },
    #[error(
        "may not use {}: run this as root, as the user that the agent runs as, or as one of `[admin] allow_uids`",
        socket.display()
    )]
    NotAllowed { socket: PathBuf },
    #[error("cannot talk to the agent at {}: {}", socket.display(), visible(why))]
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
    Version { socket: PathBuf, theirs: u32 },
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    pub(crate) async fn report(&self, patience: Duration) -> Result<Report, ClientError> {
        let body = self.text(SNAPSHOT_PATH, patience).await?;
        self.current(&body, |report: &Report| report.api)
    }

    pub(super) async fn status(&self, patience: Duration) -> Result<Status, ClientError> {
        let body = self.text(STATUS_PATH, patience).await?;
        self.current(&body, |status: &Status| status.api)
    }

    /// What is of our version; one of another may read otherwise, or not at all.
    pub(super) fn current<T: DeserializeOwned>(
        &self,
        body: &[u8],
        api: impl Fn(&T) -> u32,
    ) -> Result<T, ClientError> {
        let read = self.parse(body);
        if read.as_ref().is_ok_and(|it| api(it) == API) {
            return read;
        }
        match self.parse::<Version>(body)?.api {
            API => read,
            theirs => {
                let socket = self.socket.clone();
                Err(ClientError::Version { socket, theirs })
            }
        }
    }

    /// The body of `path` as it comes.
    pub(crate) async fn text(&self, path: &str, patience: Duration) -> Result<Bytes, ClientError> {
        let answer = self.ask(Method::GET, path, None, patience).await?;
        self.success(answer)
    }

    pub(super) async fn order(
        &self,
        order: &StateOrder,
        patience: Duration,
    ) -> Result<StateAnswer, ClientError> {
        self.change(STATE_PATH, order, patience).await
    }

    pub(super) async fn clients(
        &self,
        patience: Duration,
    ) -> Result<Vec<clients::Client>, ClientError> {
        self.get(CLIENTS_PATH, patience).await
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
        self.get(&path, patience).await
    }

    pub(super) async fn explain(
        &self,
        client: &str,
        service: &str,
        patience: Duration,
    ) -> Result<Told, ClientError> {
        let (client, service) = (escaped(client), escaped(service));
        let path = format!("{EXPLAIN_PATH}?client={client}&service={service}");
        self.get(&path, patience).await
    }

    /// At most `limit` events after number `after`, or the newest.
    pub(super) async fn events(
        &self,
        after: Option<u64>,
        limit: usize,
        patience: Duration,
    ) -> Result<EventList, ClientError> {
        let after = after.map(|after| format!("&after={after}"));
        let path = format!("{EVENTS_PATH}?limit={limit}{}", after.unwrap_or_default());
        self.get(&path, patience).await
    }

    pub(super) async fn vips(&self, patience: Duration) -> Result<Vec<Entry>, ClientError> {
        self.get(VIPS_PATH, patience).await
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

    /// Forgets flows of the packet path.
    pub(super) async fn flush(
        &self,
        order: &FlushOrder,
        patience: Duration,
    ) -> Result<Flushed, ClientError> {
        self.change(FLUSH_PATH, order, patience).await
    }

    /// Where a packet would go.
    pub(super) async fn packet(
        &self,
        (client, vip): (&str, &str),
        protocol: &str,
        patience: Duration,
    ) -> Result<Way, ClientError> {
        let (client, vip) = (escaped(client), escaped(vip));
        let path = format!("{PACKET_EXPLAIN_PATH}?client={client}&vip={vip}&protocol={protocol}");
        self.get(&path, patience).await
    }

    /// Packets of the packet path, as they come.
    pub(super) async fn packets(
        &self,
        service: Option<&str>,
        sample: u32,
        patience: Duration,
    ) -> Result<Lines, ClientError> {
        let service = service.map(|it| format!("&service={}", escaped(it)));
        let service = service.unwrap_or_default();
        let path = format!("{PACKET_TRACE_PATH}?sample={sample}{service}");
        self.lines(&path, patience).await
    }

    /// The decisions for a service, as they come.
    pub(super) async fn trace(
        &self,
        service: &str,
        patience: Duration,
    ) -> Result<Lines, ClientError> {
        let path = format!("{TRACE_PATH}?service={}", escaped(service));
        self.lines(&path, patience).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, ClientError> {
        self.parse(&self.text(path, patience).await?)
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

    fn success(&self, (status, body): (StatusCode, Bytes)) -> Result<Bytes, ClientError> {
        if status.is_success() {
            return Ok(body);
        }
        Err(self.refused(status, &body))
    }

    pub(super) fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let why = serde_json::from_slice::<Refused>(body).map_or_else(
            |_| format!("the agent answered {status}"),
            |refused| refused.error,
        );
        ClientError::Refused { why }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.broken(error))
    }

    fn broken(&self, why: impl std::fmt::Display) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            why: why.to_string(),
        }
    }
}

/// What of a report is read in every version.
#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    api: u32,
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
