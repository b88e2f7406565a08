//! Fields that belong to one connection, and how a message is framed on it.

use hyper::{
    HeaderMap, Request, Version,
    header::{self, HeaderName},
};

use super::has;

/// The tokens of all Connection fields.
pub(super) fn nominated(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(header::CONNECTION).iter();
    fields.flat_map(|field| {
        field
            .as_bytes()
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
    })
}

/// Whether the client sends nothing after this request (RFC 9112 section 9.6).
pub(crate) fn is_last<B>(request: &Request<B>) -> bool {
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

/// Removes what belongs to one connection only, in either direction (RFC 9110 section 7.6.1), and the
/// framing, which hyper makes anew from the body.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
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

pub(super) fn hop_by_hop(name: &HeaderName) -> Option<usize> {
    HOP_BY_HOP.iter().position(|hop| hop == name)
}

/// The names in Connection. A client must not make us remove what decides about routing or rights.
pub(super) fn nominated_names(headers: &HeaderMap) -> Vec<HeaderName> {
    if !has(headers, &header::CONNECTION) {
        return Vec::new();
    }
    let names = nominated(headers).filter_map(|token| HeaderName::from_bytes(token).ok());
    names.filter(|name| !KEPT.contains(name)).collect()
}

/// Whether the body of an answer is in no coding but `chunked`, which is all that hyper undoes: with another one
/// the client would get bytes that nobody tells it how to read.
pub(crate) fn is_plainly_coded(headers: &HeaderMap) -> bool {
    if !has(headers, &header::TRANSFER_ENCODING) {
        return true;
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next();
    first.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

pub(super) static HOP_BY_HOP: [HeaderName; 10] = [
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

pub(super) static KEPT: [HeaderName; 3] = [header::HOST, header::AUTHORIZATION, header::COOKIE];
