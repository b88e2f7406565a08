//! One line in each of the formats.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use hyper::{
    StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
};

use super::{
    Asked, LogFormat, Rules,
    dates::Dates,
    values::{display, escaped, json_escaped, milliseconds, number, string, word},
};
use crate::answer::Reason;

/// What there is to say about a request, or about what was to become one.
pub(crate) struct Line<'a> {
    pub(crate) client: IpAddr,
    /// `None`: it did not become a request.
    pub(crate) asked: Option<&'a Asked>,
    /// What was wrong with what did not become a request.
    pub(crate) fault: Option<&'static str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) backend: Option<SocketAddr>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) reason: Reason,
    /// The same in the letters of HAProxy.
    pub(crate) end: &'static str,
    pub(crate) attempts: u16,
    pub(crate) reused: bool,
    /// Bytes of the request's body, or of what a tunnel carried up.
    pub(crate) received: u64,
    /// Bytes of the answer's body, or of what a tunnel carried down.
    pub(crate) sent: u64,
    pub(crate) times: Times,
}

/// How long it took from the head of the request on.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// Of that, in queues before it was sent.
    pub(crate) queue: Option<Duration>,
    /// Until there was a connection to the backend.
    pub(crate) connect: Option<Duration>,
    /// Until the backend's head had come.
    pub(crate) first_byte: Option<Duration>,
    /// Until the end.
    pub(crate) total: Duration,
}

impl Line<'_> {
    /// Appends the line to `out`.
    pub(super) fn write(&self, rules: &Rules, dates: &mut Dates, out: &mut Vec<u8>) {
        let now = SystemTime::now();
        let began = now.checked_sub(self.times.total).unwrap_or(now);
        let since = began.duration_since(SystemTime::UNIX_EPOCH);
        dates.tell(since.unwrap_or_default(), rules.format);
        match rules.format {
            LogFormat::Json => self.json(rules, dates, out),
            LogFormat::Common | LogFormat::Combined => self.text(rules, dates, out),
        }
        out.push(b'\n');
    }

    fn text(&self, rules: &Rules, dates: &Dates, out: &mut Vec<u8>) {
        display(self.client, out);
        out.extend_from_slice(b" - ");
        match self.asked.and_then(|asked| asked.user.as_ref()) {
            Some(user) => word(user.as_bytes(), out),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b" [");
        out.extend_from_slice(&dates.text);
        out.extend_from_slice(b"] \"");
        match self.asked {
            Some(asked) => {
                escaped(asked.method.as_str().as_bytes(), out);
                out.push(b' ');
                asked.target(rules, out);
                out.push(b' ');
                out.extend_from_slice(version(asked.version).as_bytes());
            }
            None => out.push(b'-'),
        }
        out.extend_from_slice(b"\" ");
        match self.status {
            Some(status) => out.extend_from_slice(status.as_str().as_bytes()),
            None => out.push(b'-'),
        }
        out.push(b' ');
        number(self.sent, out);
        if rules.format == LogFormat::Combined {
            let quoted = |name: HeaderName, value: Option<&HeaderValue>, out: &mut Vec<u8>| {
                out.extend_from_slice(b" \"");
                match value {
                    Some(value) => escaped(rules.shown(&name, value), out),
                    None => out.push(b'-'),
                }
                out.push(b'"');
            };
            let asked = self.asked;
            let referer = asked.and_then(|asked| asked.referer.as_ref());
            quoted(header::REFERER, referer, out);
            let agent = asked.and_then(|asked| asked.agent.as_ref());
            quoted(header::USER_AGENT, agent, out);
        }
        out.push(b' ');
        out.extend_from_slice(self.reason.as_str().as_bytes());
        if let Some(fault) = self.fault {
            out.push(b':');
            out.extend_from_slice(fault.as_bytes());
        }
        out.push(b' ');
        out.extend_from_slice(self.end.as_bytes());
        out.push(b' ');
        match self.service {
            // Labels are names, and names have no spaces.
            Some(service) => escaped(service.as_bytes(), out),
            None => out.push(b'-'),
        }
        out.push(b' ');
        match self.backend {
            Some(backend) => display(backend, out),
            None => out.push(b'-'),
        }
        out.extend_from_slice(match (self.times.connect, self.reused) {
            (None, _) => b" - ",
            (Some(_), true) => b" reused ",
            (Some(_), false) => b" new ",
        });
        number(u64::from(self.retries()), out);
        out.push(b' ');
        number(self.received, out);
        for time in [
            self.times.queue,
            self.times.connect,
            self.times.first_byte,
            Some(self.times.total),
        ] {
            out.push(b' ');
            match time {
                Some(time) => milliseconds(time, out),
                None => out.push(b'-'),
            }
        }
    }

    fn json(&self, rules: &Rules, dates: &Dates, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(&dates.text);
        out.extend_from_slice(b"\",\"client\":\"");
        display(self.client, out);
        out.push(b'"');
        if let Some(asked) = self.asked {
            out.extend_from_slice(b",\"method\":");
            string(asked.method.as_str().as_bytes(), out);
            out.extend_from_slice(b",\"target\":\"");
            asked.json_target(rules, out);
            out.extend_from_slice(b"\",\"version\":\"");
            out.extend_from_slice(version(asked.version).as_bytes());
            out.push(b'"');
            let mut field = |key: &str, name: HeaderName, value: &Option<HeaderValue>| {
                if let Some(value) = value {
                    out.extend_from_slice(b",\"");
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b"\":");
                    string(rules.shown(&name, value), out);
                }
            };
            field("host", header::HOST, &asked.host);
            field("referer", header::REFERER, &asked.referer);
            field("user_agent", header::USER_AGENT, &asked.agent);
            let id = HeaderName::from_static("x-request-id");
            field("request_id", id, &asked.id);
            let user = HeaderName::from_static("x-forwarded-user");
            field("user", user, &asked.user);
        }
        out.extend_from_slice(b",\"status\":");
        match self.status {
            Some(status) => out.extend_from_slice(status.as_str().as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        let mut word = |key: &str, value: &str| {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":\"");
            out.extend_from_slice(value.as_bytes());
            out.push(b'"');
        };
        word("reason", self.reason.as_str());
        if let Some(fault) = self.fault {
            word("fault", fault);
        }
        word("end", self.end);
        if let Some(service) = self.service {
            out.extend_from_slice(b",\"service\":");
            string(service.as_bytes(), out);
        }
        if let Some(backend) = self.backend {
            out.extend_from_slice(b",\"backend\":\"");
            display(backend, out);
            out.extend_from_slice(b"\",\"reused\":");
            let reused: &[u8] = if self.reused { b"true" } else { b"false" };
            out.extend_from_slice(reused);
            out.extend_from_slice(b",\"retries\":");
            number(u64::from(self.retries()), out);
        }
        out.extend_from_slice(b",\"received\":");
        number(self.received, out);
        out.extend_from_slice(b",\"sent\":");
        number(self.sent, out);
        for (key, time) in [
            ("queue_ms", self.times.queue),
            ("connect_ms", self.times.connect),
            ("first_byte_ms", self.times.first_byte),
            ("total_ms", Some(self.times.total)),
        ] {
            if let Some(time) = time {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(b"\":");
                milliseconds(time, out);
            }
        }
        self.json_headers(rules, out);
        out.push(b'}');
    }

    fn json_headers(&self, rules: &Rules, out: &mut Vec<u8>) {
        let headers = self.asked.map_or(&[][..], |asked| &asked.headers);
        // As many as there were names when the request came.
        let present = rules.headers.iter().zip(headers);
        let present = present.filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let mut open = false;
        for (name, value) in present {
            let before: &[u8] = if open { b"," } else { b",\"headers\":{" };
            open = true;
            out.extend_from_slice(before);
            string(name.as_str().as_bytes(), out);
            out.push(b':');
            string(rules.shown(name, value), out);
        }
        if open {
            out.push(b'}');
        }
    }

    fn retries(&self) -> u16 {
        self.attempts.saturating_sub(1)
    }
}

impl Asked {
    fn parts<'a>(&'a self, rules: &Rules) -> (&'a [u8], &'static [u8]) {
        let Some(target) = &self.target else {
            return (b"-", b"");
        };
        match rules.redact_query {
            true if target.query().is_some() => (target.path().as_bytes(), QUERY),
            _ => (target.as_str().as_bytes(), b""),
        }
    }

    fn target(&self, rules: &Rules, out: &mut Vec<u8>) {
        let (shown, rest) = self.parts(rules);
        escaped(shown, out);
        out.extend_from_slice(rest);
    }

    fn json_target(&self, rules: &Rules, out: &mut Vec<u8>) {
        let (shown, rest) = self.parts(rules);
        json_escaped(shown, out);
        out.extend_from_slice(rest);
    }
}

impl Rules {
    /// What may be shown of the field `name`.
    fn shown<'a>(&self, name: &HeaderName, value: &'a HeaderValue) -> &'a [u8] {
        let value = value.as_bytes();
        if self.redact.contains(name) {
            return REDACTED;
        }
        if name == header::REFERER {
            let host = value.splitn(4, |&byte| byte == b'/').nth(2);
            // A password in front of the host.
            if host.is_some_and(|host| host.contains(&b'@')) {
                return REDACTED;
            }
            let query = value.iter().position(|&byte| byte == b'?');
            return match query {
                Some(query) if self.redact_query => &value[..query],
                _ => value,
            };
        }
        value
    }
}

const REDACTED: &[u8] = b"REDACTED";
const QUERY: &[u8] = b"?REDACTED";

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/?",
    }
}
