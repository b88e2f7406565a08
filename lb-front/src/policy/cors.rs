//! `lb_cors`: which pages of other origins may read the answers of a service, as the Fetch standard has it.

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};

use super::Answer;
use crate::{answer::Reason, rules};

pub(super) struct Cors {
    /// `None` is every origin.
    origins: Option<Box<[HeaderValue]>>,
    credentials: bool,
}

/// What a page is told, decided when its request comes.
pub(super) enum Told {
    /// The origin that may read the answer: its own, or `*`.
    Allowed(HeaderValue),
    Nothing,
}

impl Cors {
    pub(super) fn new(rule: &rules::Cors) -> Self {
        let ready = |origin: &String| HeaderValue::from_str(origin).ok();
        let origins = rule.origins.as_ref();
        Self {
            origins: origins.map(|origins| origins.iter().filter_map(ready).collect()),
            credentials: rule.credentials,
        }
    }

    /// What the page behind the request is told in the answer.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Told {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Told::Nothing;
        };
        match &self.origins {
            None => Told::Allowed(HeaderValue::from_static("*")),
            Some(origins) if origins.contains(origin) => Told::Allowed(origin.clone()),
            Some(_) => Told::Nothing,
        }
    }

    /// The answer to a preflight request: the browser asks whether it may ask.
    pub(super) fn preflight(&self, parts: &Parts) -> Option<Answer> {
        let headers = &parts.headers;
        let method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if parts.method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
            return None;
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let told = self.judge(headers);
        let answer = response.headers_mut();
        // The service says who may ask, not what: that is its own matter, request by request.
        if matches!(told, Told::Allowed(_)) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
            if let Some(fields) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields.clone());
            }
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE));
        }
        self.tell(answer, told);
        Some(Answer {
            reason: Reason::Preflight,
            response,
        })
    }

    /// Writes it, whatever a backend says of it.
    pub(super) fn tell(&self, headers: &mut HeaderMap, told: Told) {
        headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        if let Told::Allowed(origin) = told {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            if self.credentials {
                let yes = HeaderValue::from_static("true");
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
        }
        // A cache must not give one page what another one was told, nor what was told nobody.
        if self.origins.is_some() {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }
}

/// Seconds for which a browser does not ask again.
const MAX_AGE: u16 = 600;
