//! `lb_redirect`: the URL that a client is sent to.

use std::{borrow::Cow, fmt::Write as _};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
    http::{request::Parts, uri::PathAndQuery},
};

use super::{Answer, text};
use crate::{
    answer::Reason,
    request::Checked,
    rules::{self, Target},
};

pub(super) struct Redirect {
    status: StatusCode,
    to: Target,
}

impl Redirect {
    pub(super) fn new(rule: &rules::Redirect) -> Self {
        Self {
            status: StatusCode::from_u16(rule.status).unwrap_or(StatusCode::TEMPORARY_REDIRECT),
            to: rule.to.clone(),
        }
    }

    /// Where to go instead; `None` for a request that is there already, or for no URL at all.
    pub(super) fn answer(&self, parts: &Parts, checked: &Checked, secure: bool) -> Option<Answer> {
        let host = &checked.host;
        let port = port(&checked.authority);
        let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let path = match path {
            // The server as a whole has no URL (RFC 9110 section 7.1).
            "*" => Cow::Borrowed("/"),
            // An absolute target may have a query and no path.
            _ if path.starts_with('?') => Cow::Owned(format!("/{path}")),
            _ => Cow::Borrowed(path),
        };
        let path = encoded(&path);
        let location = match &self.to {
            Target::Https(None) => format!("https://{host}{path}"),
            Target::Https(Some(port)) => format!("https://{host}:{port}{path}"),
            Target::Site(site) => format!("{site}{path}"),
            Target::Url(url) => url.clone(),
        };
        let here = match secure {
            true => ("https://", 443),
            false => ("http://", 80),
        };
        if is_here(&location, here, host, port, &path) {
            return None;
        }
        let mut response = text(self.status, Bytes::from_static(b"redirect: see Location\n"));
        let location = HeaderValue::try_from(location).ok()?;
        response.headers_mut().insert(header::LOCATION, location);
        Some(Answer {
            reason: Reason::Redirect,
            response,
        })
    }
}

/// As a URL has it: a target may hold bytes that are no ASCII, which hyper lets pass.
fn encoded(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return path.into();
    }
    let mut encoded = String::with_capacity(path.len() * 3);
    for byte in path.bytes() {
        match byte.is_ascii_graphic() {
            true => encoded.push(char::from(byte)),
            // Into a String, which never fails.
            false => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded.into()
}

/// Whether `location` is what was asked for: else a service whose other names lead to one of its own would never be reached.
fn is_here(
    location: &str,
    (scheme, usual): (&str, u16),
    host: &str,
    port: Option<u16>,
    path: &str,
) -> bool {
    let Some(rest) = location.strip_prefix(scheme) else {
        return false;
    };
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, wanted) = rest.split_at(at);
    let (name, wanted_port) = match split_port(authority) {
        Some((name, port)) => (name, Some(port)),
        None => (authority, None),
    };
    let port_of = |port: Option<u16>| port.unwrap_or(usual);
    name.eq_ignore_ascii_case(host) && port_of(wanted_port) == port_of(port) && wanted == path
}

/// The port in a Host field, which was found to be one.
fn port(field: &HeaderValue) -> Option<u16> {
    let field = field.to_str().ok()?;
    split_port(field).map(|(_, port)| port)
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    let (name, port) = authority.rsplit_once(':')?;
    // Not within an address of IPv6, whose bracket cannot be read as part of a number.
    Some((name, port.parse().ok()?))
}
