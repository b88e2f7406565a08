//! Pure rules for one request: is it one we may pass on, where does it want to go, and which head does the
//! backend get.
//!
//! Rows and reasons are those of RFC 9110 and RFC 9112; framing is checked on the raw bytes by
//! [`super::guard`], and is never copied from one side to the other.

mod hops;
mod host;
mod via;

use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri, Version,
    header::{self, HeaderName, HeaderValue},
    http::{request::Parts, uri::PathAndQuery},
};

use self::{
    hops::{HOP_BY_HOP, KEPT, hop_by_hop, nominated, nominated_names},
    host::{BAD_HOST, host_field, normal_host, target_authority},
};
pub(super) use self::{
    hops::{is_last, is_plainly_coded, strip_hop_by_hop},
    via::Via,
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
/// One with the path `/` cannot be told from it: a parsed URI has that path in both cases. One with a query alone gets a path, without
/// which HTTP/2 has no target (RFC 9113 section 8.3.1).
pub(super) fn origin_form(uri: &Uri, method: &Method) -> Uri {
    let server = *method == Method::OPTIONS
        && uri.authority().is_some()
        && uri.path() == "/"
        && uri.query().is_none();
    let path = match uri.path_and_query() {
        _ if server => PathAndQuery::from_static("*"),
        Some(path) if path.as_str().starts_with('?') => {
            // Legal parts make a legal whole.
            let whole = PathAndQuery::try_from(format!("/{}", path.as_str()));
            whole.unwrap_or_else(|_| PathAndQuery::from_static("/"))
        }
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    };
    Uri::from(path)
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

/// Bytes of path and query. Far longer ones never come here: they fill the whole head, and hyper answers 431.
const TARGET_LIMIT: usize = 8 * 1024;

/// Fields that a backend gets from us: of forwarding six, Host, Via, and two of framing or upgrading.
const OWN_FIELDS: usize = 10;

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
