//! Which host a request asks for.

use std::borrow::Cow;

use hyper::{
    Method, Version,
    header::{self, HeaderValue},
    http::request::Parts,
};

use crate::answer::Refusal;

/// RFC 9112 section 3.2: exactly one, and in HTTP/1.0 at most one.
pub(super) fn host_field(parts: &Parts) -> Result<Option<&HeaderValue>, Refusal> {
    let mut fields = parts.headers.get_all(header::HOST).iter();
    match (fields.next(), fields.next()) {
        (_, Some(_)) => Err(Refusal::bad_request("bad_request: more than one Host\n")),
        (None, _) if parts.version == Version::HTTP_11 || is_h2_without_authority(parts) => {
            Err(Refusal::bad_request("bad_request: no Host\n"))
        }
        (field, None) => Ok(field),
    }
}

/// RFC 9113 section 8.3.1: `:authority` may stand for Host.
fn is_h2_without_authority(parts: &Parts) -> bool {
    parts.version == Version::HTTP_2 && parts.uri.authority().is_none()
}

/// The authority of an absolute-form target; an error when the form does not belong to the method.
pub(super) fn target_authority(parts: &Parts) -> Result<Option<&str>, Refusal> {
    let form = Refusal::bad_request("bad_request: this form of target is not for this method\n");
    match (parts.uri.scheme_str(), parts.uri.authority()) {
        (None, None) if parts.uri.path().starts_with('/') => Ok(None),
        (None, None) if parts.uri.path() == "*" && parts.method == Method::OPTIONS => Ok(None),
        (Some("http" | "https"), Some(authority)) => Ok(Some(authority.as_str())),
        _ => Err(form),
    }
}

/// The name in a Host field, in lower case, without port and without one trailing dot. `None` when it is
/// not one: more is legal in a URI than in a name that is routed by.
pub(super) fn normal_host(field: &[u8]) -> Option<Cow<'_, str>> {
    if field.len() > HOST_LIMIT {
        return None;
    }
    let field = std::str::from_utf8(field).ok()?;
    let (name, port) = if let Some(inner) = field.strip_prefix('[') {
        let (address, port) = inner.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        let port = (!port.is_empty()).then(|| port.strip_prefix(':'));
        (
            &field[..address.len() + 2],
            port.map_or(Some(None), |port| port.map(Some))?,
        )
    } else {
        let (name, port) = field
            .split_once(':')
            .map_or((field, None), |(name, port)| (name, Some(port)));
        // With two dots in a row, what is left of two names that are one would be two, as of `a..` and `a.`.
        let mut last = 0;
        let legal = name.bytes().all(|byte| {
            let doubled = byte == b'.' && last == b'.';
            last = byte;
            (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) && !doubled
        });
        legal.then_some((name.strip_suffix('.').unwrap_or(name), port))?
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port_is_legal = |port: &str| digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if name.is_empty() || !port.is_none_or(port_is_legal) {
        return None;
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Some(Cow::Owned(name.to_ascii_lowercase()))
    } else {
        Some(Cow::Borrowed(name))
    }
}

pub(super) const BAD_HOST: Refusal =
    Refusal::bad_request("bad_request: Host is not a name or address\n");

/// The longest name of DNS, its dot and a port. What looks for a route takes time with the length.
pub(super) const HOST_LIMIT: usize = 253 + 1 + 6;
