//! `[front.tls]`: plain HTTP is sent to HTTPS, and who has been there is told to stay.

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
    http::request::Parts,
};
use serde::{Deserialize, Serialize};

use super::{Answer, redirect::Redirect};
use crate::{request::Checked, rules};

/// What is configured about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpsSettings {
    /// Where requests without TLS are sent, of all services.
    pub redirect: Option<rules::Redirect>,
    /// What `Strict-Transport-Security` says in answers over TLS.
    pub hsts: Option<String>,
}

/// The same, ready to be followed.
pub(crate) struct Https {
    redirect: Option<Redirect>,
    hsts: Option<HeaderValue>,
}

impl Https {
    /// `None` when nothing is asked for.
    pub(crate) fn new(settings: &HttpsSettings) -> Option<Self> {
        let hsts = settings.hsts.as_deref();
        let https = Self {
            redirect: settings.redirect.as_ref().map(Redirect::new),
            hsts: hsts.and_then(|value| HeaderValue::from_str(value).ok()),
        };
        (https.redirect.is_some() || https.hsts.is_some()).then_some(https)
    }

    /// Where a request without TLS goes instead.
    pub(crate) fn redirect(&self, parts: &Parts, checked: &Checked) -> Option<Answer> {
        self.redirect.as_ref()?.answer(parts, checked, false)
    }

    /// What an answer over TLS says beside the rest.
    pub(crate) fn hsts(&self) -> Option<HeaderValue> {
        self.hsts.clone()
    }
}

/// Says it in an answer that does not say so itself.
pub(crate) fn tell_hsts(headers: &mut HeaderMap, hsts: Option<HeaderValue>) {
    if let Some(hsts) = hsts {
        headers
            .entry(header::STRICT_TRANSPORT_SECURITY)
            .or_insert(hsts);
    }
}
