//! `lb_strip`: backends are asked without the prefix that routed to them.

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
    http::{request::Parts, uri::PathAndQuery},
};

use crate::routes::lies_under;

pub(super) struct Strip {
    prefix: String,
    field: HeaderValue,
}

impl Strip {
    /// `None` for what is no prefix.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let field = HeaderValue::from_str(prefix).ok()?;
        Some(Self {
            prefix: prefix.to_owned(),
            field,
        })
    }

    /// Takes the prefix off the target, and tells the backend so, which may have to write links with it.
    pub(super) fn apply(&self, parts: &mut Parts) {
        if !lies_under(parts.uri.path(), &self.prefix) {
            return;
        }
        let whole = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let rest = &whole[self.prefix.len()..];
        let rest = match rest.starts_with('/') {
            true => PathAndQuery::try_from(rest),
            // Nothing, or a query.
            false => PathAndQuery::try_from(format!("/{rest}")),
        };
        if let Ok(rest) = rest {
            parts.uri = Uri::from(rest);
            parts.headers.insert(X_FORWARDED_PREFIX, self.field.clone());
        }
    }
}

const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
