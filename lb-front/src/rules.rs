//! What a service asks of the front beside being routed to: the front's options, as the agent judged them. What is
//! done about it is in the module `policy`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// All that a service asks for. One that asks for nothing has no rules at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// `lb_auth`: the name of the list of users of whom a password is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// `lb_canary`: what the backends that state it get together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// `lb_maintenance`: a notice in place of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// `lb_redirect`: clients are sent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// `lb_compress`: whether its answers are compressed for clients that take that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// `lb_cors`: which pages of other origins may read its answers; `None` leaves that to its backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// `lb_path`: the prefix of paths that it has of its hosts, such as `/api`. Routes follow it, not the front's rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `lb_proxy_protocol`: how its backends are told which client a connection is for. Not over HTTP/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `lb_sticky`: the name of the cookie that keeps a client at its backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
    /// `lb_strip`: whether its backends are asked without that prefix.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip: bool,
    /// `lb_header_request_*`: fields of requests to its backends, in lower case; `None` is removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_headers: BTreeMap<String, Option<String>>,
    /// `lb_header_response_*`: the same of their answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub response_headers: BTreeMap<String, Option<String>>,
    /// `lb_rate`: how often each client may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// `lb_retries`: on how many more backends a request may be tried; `None` is as many as the front's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u8>,
    /// `lb_idle`: how long an answer, or what follows an upgrade, may be silent; `None` is as long as the front's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_milliseconds: Option<u64>,
    /// `lb_max_body`: bytes that a request's body may have; `None` is as many as with the front's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<u64>,
    /// `lb_timeout`: how long a backend may take to begin its answer; `None` is as long as the front's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_milliseconds: Option<u64>,
}

impl Rules {
    /// The most that a service may ask for in `retries`.
    pub const MOST_RETRIES: u8 = 5;
}

/// Whether a service may say what becomes of the field `name`, which is in lower case. It may not where the field
/// belongs to one connection, frames a message, decides about routing, or tells backends what the front knows.
pub fn may_be_ruled(name: &str) -> bool {
    !name.starts_with("x-forwarded-") && !OURS.contains(&name)
}

const OURS: [&str; 16] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];

/// How many requests canaries get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Of [`WHOLE`].
    pub share: u16,
    /// The field, in lower case, by which a request says `always` or `never`.
    pub field: Option<String>,
}

/// All requests, as the share of canaries counts them: hundredths of a percent.
pub const WHOLE: u16 = 10_000;

/// What clients are told of a service that is being worked on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// When to ask again.
    pub retry_after_seconds: Option<u64>,
    /// One line for whoever sees it; `None` is the usual one.
    pub notice: Option<String>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How often each client of a service may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// So many requests, at least one,
    pub requests: u32,
    /// in so many seconds.
    pub seconds: u64,
    /// How many may come at once, at least one.
    pub burst: u32,
}

/// Which pages may read a service's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cors {
    /// As browsers write them; `None` is all.
    pub origins: Option<BTreeSet<String>>,
    /// Whether those pages may send cookies and passwords along.
    pub credentials: bool,
}

/// Where clients are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// 301, 302, 307 or 308.
    pub status: u16,
    /// Where to.
    pub to: Target,
}

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The same URL by HTTPS, at this port.
    Https(Option<u16>),
    /// The same path at this scheme and authority: `https://www.example`.
    Site(String),
    /// This very URL.
    Url(String),
}
