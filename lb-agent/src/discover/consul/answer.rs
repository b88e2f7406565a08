//! An answer of Consul: its status, the headers that matter, and a body of bounded size, read in bounded time.

use std::time::Duration;

use reqwest::{Response, StatusCode, header::HeaderMap};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::error::{Fault, RequestError};

/// An answer of any status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
    /// `X-Consul-Index`.
    pub(crate) index: Option<u64>,
    /// `X-Consul-LastContact`: how long the answering server has not heard of its leader.
    pub(crate) last_contact: Option<Duration>,
    /// `X-Consul-KnownLeader`; absent from the streaming backend.
    pub(crate) known_leader: Option<bool>,
    /// `X-Consul-Results-Filtered-By-ACLs`, sent by Consul 1.11 and later.
    pub(crate) filtered: bool,
    /// `Date`: its clock.
    pub(crate) date: Option<String>,
    what: String,
    retry_after: Option<Duration>,
}

/// Bytes of an answer that are read, unpacked: some 30,000 instances.
pub(super) const BODY_LIMIT: usize = 64 << 20;
/// Answers beyond this size are read one at a time, so that many at once cannot take all memory.
const LARGE: usize = 4 << 20;
static LARGE_ANSWERS: Semaphore = Semaphore::const_new(1);
/// How long we wait for a body in all, once Consul has begun to answer.
const BODY_TIME: Duration = Duration::from_secs(10);

impl Answer {
    /// Reads an answer to the end.
    pub(super) async fn receive(
        response: Response,
        address: &str,
        what: &str,
    ) -> Result<Self, RequestError> {
        let status = response.status();
        let headers = response.headers().clone();
        let unreachable = |fault| RequestError::Unreachable {
            address: address.to_owned(),
            fault,
        };
        let body =
            whole(response)
                .await
                .map_err(unreachable)?
                .ok_or_else(|| RequestError::TooLarge {
                    what: what.to_owned(),
                })?;
        Ok(Self {
            status,
            body,
            index: header(&headers, "X-Consul-Index"),
            last_contact: header(&headers, "X-Consul-LastContact").map(Duration::from_millis),
            known_leader: header(&headers, "X-Consul-KnownLeader"),
            filtered: header(&headers, "X-Consul-Results-Filtered-By-ACLs").unwrap_or(false),
            date: text(&headers, "Date"),
            what: what.to_owned(),
            retry_after: header(&headers, "Retry-After").map(Duration::from_secs),
        })
    }

    /// The answer, if it is a success.
    pub(crate) fn successful(self) -> Result<Self, RequestError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(&self.body);
        Err(RequestError::Refused {
            what: self.what,
            status: self.status,
            text: text
                .trim()
                .replace(char::is_control, " ")
                .chars()
                .take(200)
                .collect(),
            retry_after: self.retry_after,
        })
    }

    /// What to say when the body makes no sense.
    pub(crate) fn malformed(&self, source: serde_json::Error) -> RequestError {
        RequestError::Malformed {
            what: self.what.clone(),
            source,
        }
    }

    /// What to say when Consul does not show what is there.
    pub(super) fn hidden(self) -> RequestError {
        RequestError::Hidden { what: self.what }
    }

    /// Whether the answering server may have missed more than `max_stale`.
    pub(crate) fn is_stale(&self, max_stale: Duration) -> bool {
        self.known_leader == Some(false) || self.last_contact.is_some_and(|age| age > max_stale)
    }

    /// Whether this server cannot answer at the moment, while another may.
    pub(super) fn is_for_another(&self) -> bool {
        is_for_another(self.status)
    }
}

/// Whether who answers so cannot answer at the moment, while another may.
pub(super) fn is_for_another(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// The body; `None` when it is too large. Waiting for other large answers is not Consul's silence.
async fn whole(mut response: Response) -> Result<Option<Vec<u8>>, Fault> {
    let mut body = Vec::new();
    let mut turn = None;
    let mut left = BODY_TIME;
    loop {
        let began = Instant::now();
        let chunk = timeout(left, response.chunk())
            .await
            .map_err(|_| Fault::Silent)?
            .map_err(|error| Fault::of(&error))?;
        left = left.saturating_sub(began.elapsed());
        let Some(chunk) = chunk else {
            return Ok(Some(body));
        };
        if body.len() + chunk.len() > BODY_LIMIT {
            return Ok(None);
        }
        if body.len() + chunk.len() > LARGE && turn.is_none() {
            // Never closed, so never an error.
            turn = LARGE_ANSWERS.acquire().await.ok();
        }
        body.extend_from_slice(&chunk);
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn header<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}
