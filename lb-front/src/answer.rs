//! Why a request ended, and the answers that the front gives by itself.

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};

/// Why a request ended: the same word in log and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The backend's answer was passed on to its end.
    Ok,
    /// The request is not one that may be passed on.
    BadRequest,
    /// The body is longer than one may be.
    BodyTooLarge,
    /// The head did not come in time.
    HeaderTimeout,
    /// The body did not come in time.
    BodyTimeout,
    /// It took longer in all than a request may.
    RequestTimeout,
    /// The client went away.
    ClientAbort,
    /// It was still in flight when the front had to end.
    Draining,
    /// The routes have not come yet.
    Starting,
    /// No service answers to this name.
    NoRoute,
    /// The service keeps this client out.
    Denied,
    /// The client gave no name and password of a user, or wrong ones.
    Unauthorized,
    /// The users of whom the service asks a password are not known.
    NoUsers,
    /// The client asks more often than the service allows.
    RateLimited,
    /// The service has no usable backend.
    NoBackend,
    /// Too many requests wait for its backends, or no descriptor or port is left for one more connection.
    Limit,
    /// No backend had a place for it in time.
    QueueTimeout,
    /// The backend refused the connection.
    ConnectRefused,
    /// The backend did not accept in time, or cannot be reached.
    ConnectTimeout,
    /// The backend closed before it answered.
    BackendReset,
    /// The backend's answer is not HTTP, not one to this request, or coded in a way that cannot be passed on.
    ResponseInvalid,
    /// The backend did not answer in time.
    ResponseTimeout,
    /// The backend's answer ended too early.
    ResponseTruncated,
    /// The backend stopped in the middle of its answer.
    ResponseStalled,
    /// The backend was taken out, and its time was over.
    Cut,
    /// The request has been here before.
    Loop,
    /// The service is under maintenance.
    Maintenance,
    /// The service sends its clients elsewhere.
    Redirect,
    /// A browser asked whether its page may ask.
    Preflight,
    /// Nothing moved for too long after an upgrade.
    TunnelIdle,
}

impl Reason {
    /// The word in metrics, tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BadRequest => "bad_request",
            Self::BodyTooLarge => "body_too_large",
            Self::HeaderTimeout => "header_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::ClientAbort => "client_abort",
            Self::Draining => "draining",
            Self::Starting => "starting",
            Self::NoRoute => "no_route",
            Self::Denied => "denied",
            Self::Unauthorized => "unauthorized",
            Self::NoUsers => "no_users",
            Self::RateLimited => "rate_limited",
            Self::NoBackend => "no_backend",
            Self::Limit => "limit",
            Self::QueueTimeout => "queue_timeout",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::BackendReset => "backend_reset",
            Self::ResponseInvalid => "response_invalid",
            Self::ResponseTimeout => "response_timeout",
            Self::ResponseTruncated => "response_truncated",
            Self::ResponseStalled => "response_stalled",
            Self::Cut => "cut",
            Self::Loop => "loop",
            Self::Maintenance => "maintenance",
            Self::Redirect => "redirect",
            Self::Preflight => "preflight",
            Self::TunnelIdle => "tunnel_idle",
        }
    }

    /// Whether it was the client who ended it.
    fn is_clients(self) -> bool {
        matches!(
            self,
            Self::ClientAbort | Self::HeaderTimeout | Self::BodyTimeout | Self::BadRequest
        )
    }

    /// Whether a request that ended so with a status of this class, its first digit or 0 without one, has failed: not if it is
    /// the client who did not wait.
    pub(super) fn has_failed(self, class: u16) -> bool {
        class >= 5 || class == 0 && !self.is_clients()
    }

    /// The two letters that HAProxy's log would have: who ended it, and what it was doing.
    pub(super) fn haproxy(self, phase: Phase) -> &'static str {
        match self {
            Self::Ok | Self::Loop => "--",
            Self::Maintenance | Self::Redirect | Self::Preflight => "LR",
            Self::QueueTimeout => "sQ",
            Self::BadRequest
            | Self::BodyTooLarge
            | Self::Denied
            | Self::RateLimited
            | Self::Unauthorized
            | Self::NoUsers => "PR",
            Self::HeaderTimeout => "cR",
            Self::BodyTimeout | Self::TunnelIdle => "cD",
            Self::RequestTimeout => match phase {
                Phase::Asking => "cD",
                Phase::Queued => "sQ",
                Phase::Connecting => "sC",
                Phase::Sent => "sH",
                Phase::Answered => "PD",
            },
            Self::ClientAbort => match phase {
                Phase::Asking => "CR",
                Phase::Queued => "CQ",
                Phase::Connecting => "CC",
                Phase::Sent => "CH",
                Phase::Answered => "CD",
            },
            Self::Draining | Self::Starting | Self::Limit => "PC",
            Self::NoRoute | Self::NoBackend | Self::ConnectRefused => "SC",
            Self::ConnectTimeout => "sC",
            Self::BackendReset => "SH",
            Self::ResponseInvalid => "PH",
            Self::ResponseTimeout => "sH",
            Self::ResponseTruncated => "SD",
            Self::ResponseStalled => "sD",
            // An operator's doing.
            Self::Cut => match phase {
                Phase::Answered => "KD",
                _ => "KH",
            },
        }
    }
}

/// How far a request had come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not all of it has gone to a backend.
    Asking,
    /// It waits for a place at a backend, or to be tried again.
    Queued,
    /// It waits for a connection to a backend.
    Connecting,
    /// All of it has gone to a backend.
    Sent,
    /// The head of the backend's answer is there.
    Answered,
}

/// An answer of the front's own instead of the backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    /// One line for the person who sees it.
    pub(super) text: &'static str,
    /// Whether the connection ends with it.
    pub(super) close: bool,
}

impl Refusal {
    /// 400, which always ends the connection: who frames one message wrongly may frame the next one so too.
    pub(super) const fn bad_request(text: &'static str) -> Self {
        Self::closing(StatusCode::BAD_REQUEST, Reason::BadRequest, text)
    }

    pub(super) const fn closing(status: StatusCode, reason: Reason, text: &'static str) -> Self {
        Self {
            status,
            reason,
            text,
            close: true,
        }
    }

    /// The answer to a request that reached no backend, or got no usable answer from one.
    pub(super) fn of(reason: Reason) -> Self {
        let (status, text) = match reason {
            Reason::Starting => (503, "starting: the routes are not known yet\n"),
            Reason::Denied => (403, "denied: this client is not let in\n"),
            Reason::NoBackend => (503, "no_backend: no healthy instance\n"),
            Reason::Limit => (503, "limit: no room for another request to this service\n"),
            Reason::QueueTimeout => (503, "queue_timeout: no instance had room in time\n"),
            Reason::ConnectRefused => (502, "connect_refused: no instance accepts connections\n"),
            Reason::ConnectTimeout => (504, "connect_timeout: no instance accepts connections\n"),
            Reason::ResponseInvalid => (502, "response_invalid: the answer is not valid HTTP\n"),
            Reason::ResponseTimeout => (504, "response_timeout: the instance did not answer\n"),
            Reason::RequestTimeout => (504, "request_timeout: the request took too long\n"),
            Reason::Cut => (503, "cut: the instance was taken out\n"),
            Reason::Loop => (508, "loop: this request has been here before\n"),
            Reason::BodyTooLarge => (413, "body_too_large: the request body is too long\n"),
            Reason::BodyTimeout => (408, "body_timeout: the request body stopped coming\n"),
            Reason::BadRequest | Reason::ClientAbort => (
                400,
                "bad_request: the request body is malformed or incomplete\n",
            ),
            _ => (502, "backend_reset: the instance closed the connection\n"),
        };
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
            reason,
            text,
            close: matches!(
                reason,
                Reason::BodyTimeout
                    | Reason::BodyTooLarge
                    | Reason::BadRequest
                    | Reason::ClientAbort
            ),
        }
    }

    /// No service has this name. Peers answer 404, the demo this project re-creates 503: a choice.
    pub(super) fn no_route(status: StatusCode) -> Self {
        Self {
            status,
            reason: Reason::NoRoute,
            text: "no_route: no such name\n",
            close: false,
        }
    }

    pub(super) fn response(self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from_static(self.text.as_bytes()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static(METHODS));
        }
        response
    }
}

/// What RFC 9110 section 15.5.6 wants beside a 405; any method but CONNECT and TRACE is passed on.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The head came too slowly: written past hyper, which closes without a word.
pub(super) const HEADER_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// HTTP where TLS is spoken.
pub(super) const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 51\r\n\r\nbad_request: this port speaks TLS; ask with https:\n";

/// The same for a target so long that the guard has seen enough of it: hyper has only 431, for a whole head.
pub(super) const TARGET_TOO_LONG: &[u8] =
    b"HTTP/1.1 414 URI Too Long\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
