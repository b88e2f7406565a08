//! Pure rules for one request: is it one we may pass on, where does it want to go, and which head does the
//! backend get.
//!
//! Rows and reasons are those of RFC 9110 and RFC 9112; framing is checked on the raw bytes by
//! [`super::guard`], and is never copied from one side to the other.

use std::borrow::Cow;

use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri, Version,
    header::{self, HeaderName, HeaderValue},
    http::{request::Parts, uri::PathAndQuery},
};

use super::{
    answer::{Reason, Refusal},
    forward::{Forwarding, Peer},
};

/// A request that may be passed on.
#[derive(Debug)]
pub(super) struct Checked {
    /// The host asked for: lower case, without port and trailing dot. Empty in HTTP/1.0 without Host, and no
    /// service's then.
    pub(super) host: String,
    /// What to send as Host.
    pub(super) authority: HeaderValue,
    /// Whether the client asks to leave HTTP.
    pub(super) upgrade: bool,
}

/// What the backend is told about the client and about us.
pub(super) struct Sender<'a> {
    pub(super) peer: Peer<'a>,
    pub(super) forwarding: &'a Forwarding,
    /// The id that the request gets.
    pub(super) id: Option<&'a HeaderValue>,
    /// What we add to Via.
    pub(super) via: &'a Via,
}

/// Our name in Via (RFC 9110 section 7.6.3), one entry for each version that a request may have come in.
#[derive(Clone, Debug)]
pub(super) struct Via {
    name: String,
    http_10: HeaderValue,
    http_11: HeaderValue,
    http_2: HeaderValue,
}

impl Via {
    /// `None` when `name` is not a token and thus no pseudonym.
    pub(super) fn new(name: &str) -> Option<Self> {
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
    pub(super) fn fallback() -> Self {
        Self {
            name: "lb-agent".into(),
            http_10: HeaderValue::from_static("1.0 lb-agent"),
            http_11: HeaderValue::from_static("1.1 lb-agent"),
            http_2: HeaderValue::from_static("2.0 lb-agent"),
        }
    }

    /// Whether a request has been here before.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
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

/// Checks the head of a request.
pub(super) fn check(parts: &Parts) -> Result<Checked, Refusal> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::closing(
            StatusCode::METHOD_NOT_ALLOWED,
            Reason::BadRequest,
            "bad_request: this method is not passed on\n",
        ));
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    if target > TARGET_LIMIT {
        return Err(Refusal::closing(
            StatusCode::URI_TOO_LONG,
            Reason::BadRequest,
            "bad_request: the request target is too long\n",
        ));
    }
    check_expectation(&parts.headers)?;
    check_names(&parts.headers)?;
    let field = host_field(parts)?;
    let host = field.map(|field| normal_host(field.as_bytes()).ok_or(BAD_HOST));
    let (host, authority) = match (target_authority(parts)?, host.transpose()?) {
        (None, host) => (
            host.unwrap_or_default(),
            field.cloned().unwrap_or(HeaderValue::from_static("")),
        ),
        (Some(target), host) => {
            let wanted = normal_host(target.as_bytes()).ok_or(BAD_HOST)?;
            // RFC 9112 section 3.2.2 lets the target win; two different names are a way around routing.
            if host.is_some_and(|host| host != wanted) {
                return Err(Refusal::bad_request(
                    "bad_request: Host and target differ\n",
                ));
            }
            let authority = HeaderValue::from_str(target).map_err(|_| BAD_HOST)?;
            (wanted, authority)
        }
    };
    Ok(Checked {
        host: host.into_owned(),
        authority,
        upgrade: wants_upgrade(parts),
    })
}

/// Whether there is a field called `name`, of those that mostly are not there: comparing few names costs less than the
/// hash of one.
pub(super) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|present| present == name)
}

/// RFC 9112 section 3.2: exactly one, and in HTTP/1.0 at most one.
fn host_field(parts: &Parts) -> Result<Option<&HeaderValue>, Refusal> {
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
fn target_authority(parts: &Parts) -> Result<Option<&str>, Refusal> {
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
fn normal_host(field: &[u8]) -> Option<Cow<'_, str>> {
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

/// RFC 9110 section 10.1.1: there is one expectation, any other is refused.
fn check_expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !has(headers, &header::EXPECT) || headers.get_all(header::EXPECT).iter().all(known) {
        return Ok(());
    }
    Err(Refusal::closing(
        StatusCode::EXPECTATION_FAILED,
        Reason::BadRequest,
        "bad_request: unknown expectation\n",
    ))
}

/// A name with `_` that some servers read as one of the fields we rely on is an attack, not a field.
fn check_names(headers: &HeaderMap) -> Result<(), Refusal> {
    let with_underscore = headers.keys().filter(|name| name.as_str().contains('_'));
    for name in with_underscore {
        let read = name.as_str().replace('_', "-");
        if read.starts_with("x-forwarded-") || RELIED_ON.contains(&read.as_str()) {
            return Err(Refusal::bad_request(
                "bad_request: a field name imitates another one with an underscore\n",
            ));
        }
    }
    Ok(())
}

fn wants_upgrade(parts: &Parts) -> bool {
    if !has(&parts.headers, &header::UPGRADE) {
        return false;
    }
    let mut protocols = parts.headers.get_all(header::UPGRADE).iter();
    // The last line counts, as it does for the guard.
    let protocol = protocols.next_back();
    parts.version == Version::HTTP_11
        && protocol.is_some_and(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && nominated(&parts.headers).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether the client sends nothing after this request (RFC 9112 section 9.6).
pub(super) fn is_last<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let says = |word: &str| {
        let mut tokens = nominated(headers);
        tokens.any(|token| token.eq_ignore_ascii_case(word.as_bytes()))
    };
    match has(headers, &header::CONNECTION) {
        true => says("close") || request.version() == Version::HTTP_10 && !says("keep-alive"),
        false => request.version() == Version::HTTP_10,
    }
}

/// The tokens of all Connection fields.
fn nominated(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(header::CONNECTION).iter();
    fields.flat_map(|field| {
        field
            .as_bytes()
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
    })
}

/// Whether a head is gRPC's, over whatever encoding of messages; gRPC-Web is something else.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| rest.first().is_none_or(|next| b"+; ".contains(next)))
}

/// The head that the backend gets in place of the client's. Made anew, since what is left of the client's is then there
/// for another attempt, and since removing a dozen fields costs more than leaving them behind.
pub(super) fn rewrite(
    client: &Parts,
    checked: &Checked,
    sender: &Sender<'_>,
    body: BodyKind,
) -> Parts {
    let mut headers = HeaderMap::with_capacity(client.headers.len() + OWN_FIELDS);
    let authority = &checked.authority;
    headers.insert(header::HOST, authority.clone());
    let nominated = nominated_names(&client.headers);
    let passes = sender.forwarding.passes(sender.peer.address);
    for (name, value) in &client.headers {
        let stays = HOP_BY_HOP.contains(name) || nominated.contains(name);
        if !stays && *name != header::HOST && *name != header::EXPECT && passes(name) {
            headers.append(name, value.clone());
        }
    }
    let (peer, id) = (sender.peer, sender.id);
    sender.forwarding.tell(&mut headers, peer, authority, id);
    let via = match client.version {
        Version::HTTP_10 => &sender.via.http_10,
        Version::HTTP_2 => &sender.via.http_2,
        _ => &sender.via.http_11,
    };
    headers.append(header::VIA, via.clone());
    match (body, &client.method) {
        // hyper sends no body with these unless it is told that one comes.
        (BodyKind::Unknown, &Method::GET | &Method::HEAD) => {
            headers.insert(
                header::TRANSFER_ENCODING,
                HeaderValue::from_static("chunked"),
            );
        }
        // RFC 9110 section 8.6; some servers answer 411 otherwise.
        (BodyKind::Empty, &Method::POST | &Method::PUT | &Method::PATCH) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        _ => {}
    }
    if checked.upgrade {
        let mut protocols = client.headers.get_all(header::UPGRADE).iter();
        if let Some(protocol) = protocols.next_back() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol.clone());
        }
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = client.method.clone();
    parts.uri = origin_form(&client.uri, &client.method);
    parts.version = Version::HTTP_11;
    parts.headers = headers;
    parts
}

/// What is known about the length of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    Empty,
    Known,
    Unknown,
}

/// Path and query alone; `*` stays, and stands for an absolute OPTIONS without path (RFC 9112 section 3.2.4).
/// One with the path `/` cannot be told from it: a parsed URI has that path in both cases.
fn origin_form(uri: &Uri, method: &Method) -> Uri {
    let path = uri.path_and_query().cloned();
    let server = *method == Method::OPTIONS
        && uri.authority().is_some()
        && uri.path() == "/"
        && uri.query().is_none();
    let path = if server {
        PathAndQuery::from_static("*")
    } else {
        path.unwrap_or_else(|| PathAndQuery::from_static("/"))
    };
    Uri::from(path)
}

/// Removes what belongs to one connection only, in either direction (RFC 9110 section 7.6.1), and the
/// framing, which hyper makes anew from the body.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in nominated_names(headers) {
        headers.remove(name);
    }
    // One look at each name: most are not there, and a look for each would cost ten times as much.
    let there = headers.keys().filter_map(hop_by_hop);
    let there = there.fold(0_u16, |there, place| there | 1 << place);
    for (place, name) in HOP_BY_HOP.iter().enumerate() {
        if there & 1 << place != 0 {
            headers.remove(name);
        }
    }
}

/// What of a client's trailers a backend may get (RFC 9110 section 6.5.1): nothing that frames, routes, gives rights or tells of
/// clients, nor what belongs to one connection only, with which HTTP/2 would send none of them.
pub(super) fn passable_trailers(trailers: HeaderMap) -> HeaderMap {
    let passes = |name: &HeaderName| {
        let text = name.as_str();
        let told = RELIED_ON.contains(&text) || text.starts_with("x-forwarded-");
        let told = told || text == "x-real-ip" || text == "x-request-id" || text.contains('_');
        hop_by_hop(name).is_none() && !told && !KEPT.contains(name)
    };
    let mut passed = HeaderMap::with_capacity(trailers.len());
    for (name, value) in &trailers {
        if passes(name) {
            passed.append(name, value.clone());
        }
    }
    passed
}

fn hop_by_hop(name: &HeaderName) -> Option<usize> {
    HOP_BY_HOP.iter().position(|hop| hop == name)
}

/// The names in Connection. A client must not make us remove what decides about routing or rights.
fn nominated_names(headers: &HeaderMap) -> Vec<HeaderName> {
    if !has(headers, &header::CONNECTION) {
        return Vec::new();
    }
    let names = nominated(headers).filter_map(|token| HeaderName::from_bytes(token).ok());
    names.filter(|name| !KEPT.contains(name)).collect()
}

/// Whether the body of an answer is in no coding but `chunked`, which is all that hyper undoes: with another one
/// the client would get bytes that nobody tells it how to read.
pub(super) fn is_plainly_coded(headers: &HeaderMap) -> bool {
    if !has(headers, &header::TRANSFER_ENCODING) {
        return true;
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next();
    first.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

const BAD_HOST: Refusal = Refusal::bad_request("bad_request: Host is not a name or address\n");

/// Bytes of path and query. Far longer ones never come here: they fill the whole head, and hyper answers 431.
const TARGET_LIMIT: usize = 8 * 1024;

/// The longest name of DNS, its dot and a port. What looks for a route takes time with the length.
const HOST_LIMIT: usize = 253 + 1 + 6;

/// Fields that a backend gets from us: of forwarding six, Host, Via, and two of framing or upgrading.
const OWN_FIELDS: usize = 10;

static HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

static KEPT: [HeaderName; 3] = [header::HOST, header::AUTHORIZATION, header::COOKIE];

/// Fields that decide about framing, routing or trust.
const RELIED_ON: [&str; 13] = [
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "forwarded",
    "via",
];

#[cfg(test)]
mod tests;
