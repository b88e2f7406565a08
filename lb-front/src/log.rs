//! The access log: one line for each request at its end, and for each stream that ended before it was one.
//!
//! Workers write lines into buffers that one thread takes away (`writer`). No request ever waits for it: what does not
//! fit any more is dropped and counted.

use std::{net::IpAddr, ops::RangeInclusive, rc::Rc, sync::Arc, time::Duration};

use hyper::{
    Method, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
    http::{request::Parts, uri::PathAndQuery},
};
use serde::{Deserialize, Serialize};

use super::answer::{Phase, Reason};

pub(super) use line::{Line, Times};
pub use writer::Log;

mod dates;
mod line;
mod values;
mod writer;

/// What the access log says, and about which requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSettings {
    /// How a line is written; `None`: not at all.
    pub format: Option<LogFormat>,
    /// Requests with a status in one of these have a line; 0 is the status of what got no answer.
    pub status: Vec<RangeInclusive<u16>>,
    /// Requests that took at least as long have a line.
    pub slower_than: Option<Duration>,
    /// Requests that were tried more than once have a line.
    pub retried: bool,
    /// Whether queries are left out, those of `Referer` included.
    pub redact_query: bool,
    /// Header fields of the request that a line in JSON has beside the usual ones, in lower case.
    pub headers: Vec<String>,
    /// Header fields whose values are left out, in lower case.
    pub redact: Vec<String>,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// The Common Log Format, and our own fields behind it.
    Common,
    /// The same with `Referer` and `User-Agent`, as Apache and nginx have it.
    Combined,
    /// One object.
    Json,
}

/// The settings as lines are written by them.
#[derive(Debug)]
struct Rules {
    format: LogFormat,
    status: Vec<RangeInclusive<u16>>,
    slower_than: Option<Duration>,
    retried: bool,
    redact_query: bool,
    headers: Vec<HeaderName>,
    redact: Vec<HeaderName>,
}

impl Rules {
    /// `None`: there is no log.
    fn new(settings: &LogSettings) -> Option<Self> {
        let names = |names: &[String]| {
            let names = names.iter();
            names.filter_map(|name| name.parse().ok()).collect()
        };
        let mut redact: Vec<HeaderName> = names(&settings.redact);
        redact.extend(SECRETS);
        Some(Self {
            format: settings.format?,
            status: settings.status.clone(),
            slower_than: settings.slower_than,
            retried: settings.retried,
            redact_query: settings.redact_query,
            headers: names(&settings.headers),
            redact,
        })
    }

    /// Whether this request has a line: everyone without filters, and with some whoever passes one of them.
    fn want(&self, line: &Line<'_>) -> bool {
        let all = self.status.is_empty() && self.slower_than.is_none() && !self.retried;
        let status = line.status.map_or(0, |status| status.as_u16());
        all || self.status.iter().any(|range| range.contains(&status))
            || self
                .slower_than
                .is_some_and(|limit| line.times.total >= limit)
            || self.retried && line.attempts > 1
    }
}

/// Never in a line, whoever asks for them.
const SECRETS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
];

/// What a client asked for, as a line needs it. There is none while the log is off.
pub(super) struct Asked {
    sink: Rc<Sink>,
    client: IpAddr,
    method: Method,
    /// Path and query alone: what comes before them may hold a password.
    target: Option<PathAndQuery>,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    agent: Option<HeaderValue>,
    /// Known once the backend's head is made.
    pub(super) id: Option<HeaderValue>,
    /// Whose password was right.
    pub(super) user: Option<HeaderValue>,
    /// In the order of the rules' names.
    headers: Vec<Option<HeaderValue>>,
    /// The service's label, once it is known.
    pub(super) service: Option<Arc<str>>,
}

/// One worker's way into the log.
pub(super) struct Sink {
    log: Arc<Log>,
    buffer: Arc<writer::Buffer>,
}

impl Sink {
    pub(super) fn new(log: &Arc<Log>) -> Self {
        Self {
            buffer: log.buffer(),
            log: log.clone(),
        }
    }

    /// What `parts` ask for; `None` while the log is off.
    pub(super) fn asked(self: &Rc<Self>, parts: &Parts, client: IpAddr) -> Option<Box<Asked>> {
        if !self.log.is_on() {
            return None;
        }
        let rules = self.log.rules();
        let headers = &parts.headers;
        let field = |name: &HeaderName| headers.get(name).cloned();
        Some(Box::new(Asked {
            sink: self.clone(),
            client,
            method: parts.method.clone(),
            target: parts.uri.path_and_query().cloned(),
            version: parts.version,
            // HTTP/2 has it in the target.
            host: field(&header::HOST).or_else(|| {
                let authority = parts.uri.authority()?.as_str();
                let plain = Some(authority).filter(|it| !it.contains('@'));
                HeaderValue::from_str(plain?).ok()
            }),
            referer: field(&header::REFERER),
            agent: field(&header::USER_AGENT),
            id: None,
            user: None,
            headers: rules
                .as_ref()
                .map_or_else(Vec::new, |rules| rules.headers.iter().map(field).collect()),
            service: None,
        }))
    }

    /// A line about a stream of `client` that ended before it was a request, by a `fault` of it.
    pub(super) fn refused(
        &self,
        client: IpAddr,
        reason: Reason,
        fault: &'static str,
        status: Option<StatusCode>,
        total: Duration,
    ) {
        if !self.log.is_on() {
            return;
        }
        self.write(&Line {
            client: client.to_canonical(),
            asked: None,
            fault: Some(fault),
            service: None,
            backend: None,
            status,
            reason,
            end: reason.haproxy(Phase::Asking),
            attempts: 0,
            reused: false,
            received: 0,
            sent: 0,
            times: Times {
                queue: None,
                connect: None,
                first_byte: None,
                total,
            },
        });
    }

    fn write(&self, line: &Line<'_>) {
        let rules = self.log.rules();
        let Some(rules) = rules.as_ref().filter(|rules| rules.want(line)) else {
            return;
        };
        self.log.add(&self.buffer, |buffer, dates| {
            line.write(rules, dates, buffer);
        });
    }
}

impl Asked {
    /// The line of this request.
    pub(super) fn write(&self, line: &Line<'_>) {
        self.sink.write(line);
    }

    pub(super) fn client(&self) -> IpAddr {
        self.client
    }
}

#[cfg(test)]
mod tests;
