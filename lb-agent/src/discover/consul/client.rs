//! One request to Consul: address, token, pacing, time limits, and the headers that matter.
//!
//! It never interprets a body and never retries; those who ask do.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{StatusCode, Url, header::HeaderMap};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    config::{Config, Token},
    error::RequestError,
    metrics::{Metrics, Outcome},
    pace::Bucket,
};

/// Asks one Consul. All who share it share its pace of requests.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    config: Config,
    pace: Mutex<Bucket>,
    /// Told when Consul answers again, to end the waiting of everybody who failed meanwhile.
    pub(crate) recovered: watch::Sender<()>,
    pub(crate) metrics: Metrics,
}

/// How a read wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// By any server, also without a leader.
    Stale,
    /// By the leader.
    Leader,
}

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
    what: String,
    retry_after: Option<Duration>,
}

/// Bytes of an answer that are read: some 30,000 instances.
pub(super) const BODY_LIMIT: usize = 64 << 20;
/// For answers that Consul does not hold back on purpose.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(10);
/// Requests per second of all watches together.
const PACE: Duration = Duration::from_millis(10);
const PACE_BURST: u32 = 100;

impl Client {
    /// A client for the Consul of `config`.
    ///
    /// # Errors
    /// When no HTTP client can be made, which no configuration causes.
    pub(crate) fn new(config: Config, metrics: Metrics) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("lb-agent/", env!("CARGO_PKG_VERSION")))
            // Consul is asked directly, whatever HTTP_PROXY says to other programs.
            .no_proxy()
            // Consul redirects paths that it would clean; `a/../b` would silently become `b`.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self {
            http,
            config,
            pace: Mutex::new(Bucket::new(PACE_BURST, PACE)),
            recovered: watch::Sender::new(()),
            metrics,
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Reads `path` at once, or, given an index, as soon as it is passed or the wait is over.
    pub(crate) async fn read(
        &self,
        path: &[&str],
        index: Option<u64>,
        consistency: Consistency,
    ) -> Result<Answer, RequestError> {
        let mut url = self.url(path);
        if consistency == Consistency::Stale {
            url.query_pairs_mut().append_key_only("stale");
        }
        let limit = self.hold(&mut url, index);
        self.send(self.http.get(url.clone()), &url, limit).await
    }

    /// Like [`Client::read`] from the leader, for all keys below `prefix`.
    pub(crate) async fn read_keys(
        &self,
        prefix: &str,
        index: Option<u64>,
    ) -> Result<Answer, RequestError> {
        let mut url = self.key_url(prefix);
        url.query_pairs_mut().append_key_only("recurse");
        let limit = self.hold(&mut url, index);
        self.send(self.http.get(url.clone()), &url, limit).await
    }

    /// Stores `value` under `key` if there is no such key yet.
    pub(crate) async fn create_key(
        &self,
        key: &str,
        value: Vec<u8>,
    ) -> Result<Answer, RequestError> {
        let mut url = self.key_url(key);
        url.query_pairs_mut().append_pair("cas", "0");
        self.send(self.http.put(url.clone()).body(value), &url, AT_ONCE)
            .await
    }

    /// Any request below `/v1`. An answer of any status is an answer. `limit` bounds the whole exchange.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub(crate) async fn request(
        &self,
        method: reqwest::Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Answer, RequestError> {
        let mut url = self.url(path);
        for (key, value) in query {
            url.query_pairs_mut().append_pair(key, value);
        }
        let request = self.http.request(method, url.clone());
        let request = match body {
            Some(body) => request.body(body),
            None => request,
        };
        self.send(request, &url, limit).await
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.config.address.url().clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        if let Some(datacenter) = &self.config.datacenter {
            url.query_pairs_mut().append_pair("dc", datacenter);
        }
        url
    }

    fn key_url(&self, key: &str) -> Url {
        // The slashes of a key are part of the path.
        let path: Vec<_> = std::iter::once("kv").chain(key.split('/')).collect();
        self.url(&path)
    }

    /// Asks for an answer later than `index`, and says how long to wait for it.
    fn hold(&self, url: &mut Url, index: Option<u64>) -> Duration {
        let Some(index) = index else { return AT_ONCE };
        let wait = self.config.wait;
        url.query_pairs_mut()
            .append_pair("index", &index.to_string())
            .append_pair("wait", &format!("{}ms", wait.as_millis()));
        // Consul adds up to a sixteenth.
        AT_ONCE + wait * 17 / 16
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        url: &Url,
        limit: Duration,
    ) -> Result<Answer, RequestError> {
        let wait = self
            .pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now());
        sleep(wait).await;
        let request = match self.token().await? {
            Some(token) => request.header("X-Consul-Token", token.trim()),
            None => request,
        };
        let answer = self.receive(request.timeout(limit), url.path()).await;
        let result = match &answer {
            Err(_) => "error",
            Ok(answer) if answer.status.is_success() => "ok",
            Ok(answer) if answer.status.is_server_error() => "5xx",
            Ok(_) => "4xx",
        };
        self.metrics
            .requests
            .get_or_create(&Outcome { result })
            .inc();
        answer
    }

    async fn receive(
        &self,
        request: reqwest::RequestBuilder,
        what: &str,
    ) -> Result<Answer, RequestError> {
        let unreachable = |source: reqwest::Error| RequestError::Unreachable {
            address: self.config.address.to_string(),
            source: source.without_url(),
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                let what = what.to_owned();
                return Err(RequestError::TooLarge { what });
            }
            body.extend_from_slice(&chunk);
        }
        let headers = response.headers();
        Ok(Answer {
            status: response.status(),
            body,
            index: header(headers, "X-Consul-Index"),
            last_contact: header(headers, "X-Consul-LastContact").map(Duration::from_millis),
            known_leader: header(headers, "X-Consul-KnownLeader"),
            filtered: header(headers, "X-Consul-Results-Filtered-By-ACLs").unwrap_or(false),
            what: what.to_owned(),
            retry_after: header(headers, "Retry-After").map(Duration::from_secs),
        })
    }

    async fn token(&self) -> Result<Option<String>, RequestError> {
        match &self.config.token {
            None => Ok(None),
            Some(Token::Value(token)) => Ok(Some(token.clone())),
            Some(Token::File(path)) => match tokio::fs::read_to_string(path).await {
                Ok(token) => Ok(Some(token)),
                Err(source) => Err(RequestError::Token {
                    path: path.clone(),
                    source,
                }),
            },
        }
    }
}

impl Answer {
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

    /// Whether the answering server may have missed more than `max_stale`.
    pub(crate) fn is_stale(&self, max_stale: Duration) -> bool {
        self.known_leader == Some(false) || self.last_contact.is_some_and(|age| age > max_stale)
    }
}

fn header<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}
