//! Our name in Via.

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};

use super::has;

/// Our name in Via (RFC 9110 section 7.6.3), one entry for each version that a request may have come in.
#[derive(Clone, Debug)]
pub(crate) struct Via {
    name: String,
    pub(super) http_10: HeaderValue,
    pub(super) http_11: HeaderValue,
    pub(super) http_2: HeaderValue,
}

impl Via {
    /// `None` when `name` is not a token and thus no pseudonym.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        (!name.is_empty() && name.bytes().all(legal)).then_some(())?;
        Some(Self {
            http_10: HeaderValue::from_str(&format!("1.0 {name}")).ok()?,
            http_11: HeaderValue::from_str(&format!("1.1 {name}")).ok()?,
            http_2: HeaderValue::from_str(&format!("2.0 {name}")).ok()?,
            name: name.to_owned(),
        })
    }

    /// The name while none is configured.
    pub(crate) fn fallback() -> Self {
        Self {
            name: "lb-agent".into(),
            http_10: HeaderValue::from_static("1.0 lb-agent"),
            http_11: HeaderValue::from_static("1.1 lb-agent"),
            http_2: HeaderValue::from_static("2.0 lb-agent"),
        }
    }

    /// Whether a request has been here before.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        if !has(headers, &header::VIA) {
            return false;
        }
        let fields = headers.get_all(header::VIA).iter();
        let mut entries = fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b','));
        entries.any(|entry| {
            let words = entry.trim_ascii().split(u8::is_ascii_whitespace);
            words.filter(|word| !word.is_empty()).nth(1) == Some(self.name.as_bytes())
        })
    }
}
