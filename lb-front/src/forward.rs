//! What a backend is told about who asks: the fields of forwarding, and the request's id.
//!
//! Anybody can write these fields. What came in them is believed from trusted proxies alone, and taken away from
//! everybody else.

use std::{
    cell::Cell,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
};

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What is configured about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Forwarding {
    /// Whose fields of forwarding are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whose connections begin with a header of the PROXY protocol, and are of the client it names.
    pub proxy_protocol: Vec<IpNet>,
    /// Whether `Forwarded` (RFC 7239) is sent beside `X-Forwarded-*`.
    pub forwarded: bool,
    /// Whether every request gets an id, unless a trusted proxy has given it one.
    pub request_id: bool,
    /// Whether fields with `_` in their names pass, unless they may be read as another one that the front writes.
    pub underscores: bool,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            forwarded: false,
            request_id: true,
            underscores: false,
        }
    }
}

impl Forwarding {
    /// Whether a connection from `peer` is a trusted proxy's.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }

    /// Whether a connection from `peer` begins with who the client is.
    pub(super) fn announces(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.proxy_protocol.iter().any(|net| net.contains(&peer))
    }

    /// The client behind `peer`: the peer itself or, behind trusted proxies, the nearest address that is none of
    /// theirs.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let entries = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
        for entry in entries {
            // Whatever lies behind one that is none is not theirs to say; nor is our own host, by the address of theirs.
            let own = |it: &IpAddr| it.is_loopback() && !peer.to_canonical().is_loopback();
            let Some(address) = address(entry).filter(|it| !own(it)) else {
                return client;
            };
            client = address;
            if !self.trusts(client) {
                return client;
            }
        }
        client
    }

    /// Whether the client behind a connection of `peer` speaks HTTPS: to us, or as a trusted proxy says.
    pub(super) fn is_secure(&self, peer: Peer<'_>, headers: &HeaderMap) -> bool {
        let told = match self.trusts(peer.address) {
            true => told_secure(headers),
            false => None,
        };
        told.unwrap_or(peer.secure)
    }

    /// The id that a request from `peer` gets; `None` if it has one that is believed, or needs none.
    pub(super) fn id(&self, peer: IpAddr, headers: &HeaderMap, ids: &Ids) -> Option<HeaderValue> {
        let told = || self.trusts(peer) && only(headers, &X_REQUEST_ID).is_some_and(is_id);
        (self.request_id && !told()).then(|| ids.next())
    }

    /// Which fields of a request from `peer` its backend may get. Not what only a trusted proxy may say, nor names with
    /// `_`, which servers read in different ways: where these pass, none that may be read as what we say ourselves.
    pub(super) fn passes(&self, peer: IpAddr) -> impl Fn(&HeaderName) -> bool {
        let trusted = self.trusts(peer);
        // Without our own element it would end too early.
        let forwarded = trusted && self.forwarded;
        let underscores = self.underscores;
        move |name| {
            let text = name.as_str();
            let forwarding = text.starts_with("x-forwarded-") || text == "x-real-ip";
            (!text.contains('_') || (underscores && !imitates_ours(text)))
                && (trusted || !forwarding)
                && (forwarded || *name != header::FORWARDED)
        }
    }

    /// Puts the fields of forwarding into `headers`, which have passed and go to the backend as the request for `authority`
    /// of a peer. It gets this `id`, if any.
    pub(super) fn tell(
        &self,
        headers: &mut HeaderMap,
        peer: Peer<'_>,
        authority: &HeaderValue,
        id: Option<&HeaderValue>,
    ) {
        if self.forwarded {
            let element = element(peer, authority);
            join(headers, header::FORWARDED, &element);
        }
        if self.trusts(peer.address) {
            self.append(headers, peer, authority);
        } else {
            headers.insert(X_FORWARDED_FOR, peer.text.clone());
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.proto()));
            headers.insert(X_FORWARDED_PORT, port(authority, peer.secure));
            headers.insert(X_FORWARDED_HOST, authority.clone());
        }
        if let Some(id) = id {
            headers.insert(X_REQUEST_ID, id.clone());
        }
    }

    /// The same behind a trusted proxy, which says what it saw of the client.
    fn append(&self, headers: &mut HeaderMap, peer: Peer<'_>, authority: &HeaderValue) {
        join(headers, X_FORWARDED_FOR, peer.text.as_bytes());
        let secure = told_secure(headers);
        if secure.is_none() {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.proto()));
        }
        if only(headers, &X_FORWARDED_HOST).is_none() {
            headers.insert(X_FORWARDED_HOST, authority.clone());
        }
        let is_port = |value: &HeaderValue| port_number(value.as_bytes()).is_some();
        if !only(headers, &X_FORWARDED_PORT).is_some_and(is_port) {
            let port = port(
                headers.get(X_FORWARDED_HOST).unwrap_or(authority),
                secure.unwrap_or(peer.secure),
            );
            headers.insert(X_FORWARDED_PORT, port);
        }
    }
}

/// Whether the name may be read as one of those that we write, beside those that are refused with a request.
fn imitates_ours(name: &str) -> bool {
    let read = |ours: &str| {
        let plain = name
            .bytes()
            .map(|byte| if byte == b'_' { b'-' } else { byte });
        plain.eq(ours.bytes())
    };
    read(X_REQUEST_ID.as_str()) || read("x-real-ip")
}

/// Whose connection a request came on.
#[derive(Clone, Copy)]
pub(super) struct Peer<'a> {
    pub(super) address: IpAddr,
    /// The same as a header has it.
    pub(super) text: &'a HeaderValue,
    /// Whether it is over TLS.
    pub(super) secure: bool,
}

impl Peer<'_> {
    fn proto(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// Makes ids of 128 bits that nobody can tell beforehand: a count under a secret key.
#[derive(Default)]
pub(super) struct Ids {
    key: RandomState,
    count: Cell<u64>,
}

impl Ids {
    fn next(&self) -> HeaderValue {
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        let half = |half: u8| self.key.hash_one((count, half)).to_be_bytes();
        let mut text = [0; 32];
        for (place, byte) in half(0).into_iter().chain(half(1)).enumerate() {
            text[2 * place] = HEX[usize::from(byte >> 4)];
            text[2 * place + 1] = HEX[usize::from(byte & 15)];
        }
        // Digits are always legal.
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// Whether a proxy's client speaks HTTPS, as far as it says so.
fn told_secure(headers: &HeaderMap) -> Option<bool> {
    match only(headers, &X_FORWARDED_PROTO)?.as_bytes() {
        proto if is(proto, &[b"https", b"wss"]) => Some(true),
        proto if is(proto, &[b"http", b"ws"]) => Some(false),
        _ => None,
    }
}

/// The value of `name` if there is exactly one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// One line with all values of `name` and `last` behind them.
fn join(headers: &mut HeaderMap, name: HeaderName, last: &[u8]) {
    let mut all = Vec::new();
    for value in headers.get_all(&name) {
        all.extend_from_slice(value.as_bytes());
        all.extend_from_slice(b", ");
    }
    all.extend_from_slice(last);
    // Made of values: it is one.
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(name, value);
    }
}

/// What we saw, as RFC 7239 section 4 writes it. An authority has no letter that a quoted string would have to mask.
fn element(peer: Peer<'_>, authority: &HeaderValue) -> Vec<u8> {
    let mut element = b"for=".to_vec();
    match peer.address.to_canonical() {
        IpAddr::V4(peer) => element.extend_from_slice(peer.to_string().as_bytes()),
        IpAddr::V6(peer) => element.extend_from_slice(format!("\"[{peer}]\"").as_bytes()),
    }
    element.extend_from_slice(b";host=\"");
    element.extend_from_slice(authority.as_bytes());
    element.extend_from_slice(b"\";proto=");
    element.extend_from_slice(peer.proto().as_bytes());
    element
}

/// An entry of X-Forwarded-For: an address, with a port behind it from some proxies.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bare = || {
        let inner = entry.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse().ok().map(IpAddr::V6)
    };
    let address = entry.parse().ok().or_else(bare);
    let address = address.or_else(|| Some(entry.parse::<std::net::SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

/// The port in `authority`, or the usual one.
fn port(authority: &HeaderValue, secure: bool) -> HeaderValue {
    let usual = HeaderValue::from_static(if secure { "443" } else { "80" });
    let authority = authority.as_bytes();
    // Not the last group of an IPv6 address, which ends in a bracket.
    let port = authority.iter().rposition(|&byte| byte == b':');
    let port = port.map(|at| &authority[at + 1..]);
    let port = port.filter(|port| port_number(port).is_some());
    let port = port.and_then(|port| HeaderValue::from_bytes(port).ok());
    port.unwrap_or(usual)
}

fn port_number(text: &[u8]) -> Option<u16> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok().filter(|&port| port > 0)
}

fn is(value: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Whether an id can go on: one that is short, and harmless in any log.
fn is_id(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
    (1..=128).contains(&value.len()) && value.iter().all(harmless)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[cfg(test)]
mod tests;
