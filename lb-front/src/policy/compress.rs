//! `lb_compress`: which answers are compressed, and what their heads say then (RFC 9110 sections 8.4 and 12.5.3).

use hyper::{
    HeaderMap, Response, StatusCode,
    body::Body as _,
    header::{self, HeaderName, HeaderValue},
};

use crate::body::Download;

/// Whether the client takes gzip rather than what the backend sends.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    if says(headers, &header::CACHE_CONTROL, b"no-transform") {
        return false;
    }
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for element in elements(headers, &header::ACCEPT_ENCODING) {
        let mut parts = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
        let quality = match is(b"gzip") || is(b"x-gzip") {
            true => &mut gzip,
            false if is(b"*") => &mut any,
            false if is(b"identity") => &mut identity,
            false => continue,
        };
        *quality = Some(thousandths(parts));
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// The weight among the parameters of a coding (RFC 9110 section 12.4.2), in thousandths; none for one that cannot be read.
fn thousandths<'p>(mut parameters: impl Iterator<Item = &'p [u8]>) -> u16 {
    let weight = parameters.find_map(|it| match it {
        [b'q' | b'Q', b'=', weight @ ..] => Some(weight),
        _ => None,
    });
    match weight {
        None | Some([b'1']) => 1000,
        Some([b'1', b'.', zeros @ ..])
            if zeros.len() <= 3 && zeros.iter().all(|it| *it == b'0') =>
        {
            1000
        }
        Some([b'0', b'.', digits @ ..])
            if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) =>
        {
            let digits = digits.iter().chain(b"000").take(3);
            digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        _ => 0,
    }
}

/// Compresses an answer if that is of use; `gzip` is what [`takes_gzip`] said of the request, which had the fields `asked`.
pub(super) fn apply(response: &mut Response<Download>, gzip: bool, asked: &HeaderMap) {
    let unmodified = response.status() == StatusCode::NOT_MODIFIED;
    if !(is_fit(response) || unmodified && may_be_fit(response.headers())) {
        return;
    }
    let headers = response.headers_mut();
    // Without it a cache would give others what is not for them, also in place of what was not compressed.
    let varies = |name: &[u8]| says(headers, &header::VARY, name);
    if !varies(b"accept-encoding") && !varies(b"*") {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if !gzip {
        return;
    }
    if unmodified {
        // What it was, only the client knows: it has the tag that we gave it.
        if let Some(weak) = weakened(headers)
            && has(asked, &weak)
        {
            headers.insert(header::ETAG, weak);
        }
        return;
    }
    if !response.body_mut().compress() {
        return;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(header::CONTENT_LENGTH);
    // A part of the compressed form is no part of what the backend has.
    headers.remove(header::ACCEPT_RANGES);
    if let Some(weak) = weakened(headers) {
        headers.insert(header::ETAG, weak);
    }
}

/// The tag of what is the same to the reader, but other bytes (RFC 9110 section 8.8.1), if it is another one.
fn weakened(headers: &HeaderMap) -> Option<HeaderValue> {
    let tag = headers.get(header::ETAG)?.as_bytes();
    if tag.starts_with(b"W/") {
        return None;
    }
    // What follows legal bytes is as legal.
    HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()
}

/// Whether the client that sent `asked` has what `tag` is of. No tag can hold another one, for that has quotes.
fn has(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let tag = tag.as_bytes();
    let mut fields = asked.get_all(header::IF_NONE_MATCH).iter();
    fields.any(|field| field.as_bytes().windows(tag.len()).any(|it| it == tag))
}

/// Whether it would be worth it, and would leave the answer true.
fn is_fit(response: &Response<Download>) -> bool {
    let is_whole = !matches!(
        response.status(),
        StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
    );
    let length = response.body().size_hint().exact();
    is_whole
        && length.is_none_or(|length| length >= SHORTEST)
        && response.headers().contains_key(header::CONTENT_TYPE)
        && may_be_fit(response.headers())
}

/// Whether nothing in its head speaks against it.
fn may_be_fit(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(is_text)
        && !says(headers, &header::CACHE_CONTROL, b"no-transform")
        && !EXCLUDING.iter().any(|name| headers.contains_key(name))
}

/// Whether a type is one that gets much shorter.
fn is_text(kind: &HeaderValue) -> bool {
    let kind = kind.as_bytes().split(|&byte| byte == b';').next();
    let kind = kind.unwrap_or_default().trim_ascii().to_ascii_lowercase();
    // Events are few and small, and their streams open for hours.
    (kind.starts_with(b"text/") && kind != b"text/event-stream")
        || kind.ends_with(b"+json")
        || kind.ends_with(b"+xml")
        || TEXTS.contains(&&*kind)
}

/// Whether `word` is an element of the list in the fields `name`.
fn says(headers: &HeaderMap, name: &HeaderName, word: &[u8]) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(word))
}

fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let fields = headers.get_all(name).iter();
    let elements = fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b','));
    elements.map(<[u8]>::trim_ascii)
}

/// Bytes below which it is not worth it: less than a packet.
const SHORTEST: u64 = 1024;

const TEXTS: [&[u8]; 6] = [
    b"application/javascript",
    b"application/json",
    b"application/wasm",
    b"application/x-javascript",
    b"application/x-ndjson",
    b"application/xml",
];

/// What says that it is coded already, a part, or what its bytes are.
static EXCLUDING: [HeaderName; 6] = [
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accepted: &[&str], takes: bool) {
        let mut headers = HeaderMap::new();
        for field in accepted {
            headers.append(header::ACCEPT_ENCODING, field.parse().unwrap());
        }
        assert_eq!(takes_gzip(&headers), takes, "{accepted:?}");
    }

    #[test]
    fn a_client_says_whether_it_takes_gzip() {
        for yes in [
            "gzip",
            "GZIP",
            "x-gzip",
            "deflate, gzip",
            "br;q=1.0, gzip;q=0.8, *;q=0.1",
            "gzip ; q=0.001",
            "*",
            "*;q=0.5, identity;q=0.1",
            "gzip, identity;q=0",
            "gzip;q=1.000",
            "gzip;q=0.5, identity;q=0.5",
            ",gzip,",
        ] {
            check(&[yes], true);
        }
        for no in [
            "",
            "identity",
            "br, deflate",
            "gzip;q=0",
            "gzip;q=0.000",
            "gzip;q=0, *",
            "*;q=0",
            "gzip;q=0.5, identity",
            "identity;q=0",
            "gzipped",
            "gzip;q=1.001",
            "gzip;q=2",
            "gzip;q=",
            "gzip;q=0.0001",
            "gzip;q=-1",
        ] {
            check(&[no], false);
        }
        check(&[], false);
        check(&["br", "gzip"], true);
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let strict = HeaderValue::from_static("max-age=0, No-Transform");
        headers.insert(header::CACHE_CONTROL, strict);
        assert!(!takes_gzip(&headers));
    }

    #[test]
    fn what_gets_much_shorter_is_told_by_its_type() {
        for (kind, fit) in [
            ("text/html; charset=utf-8", true),
            ("TEXT/css", true),
            ("application/json", true),
            ("application/problem+json", true),
            ("image/svg+xml", true),
            ("application/wasm", true),
            ("text/event-stream", false),
            ("Text/Event-Stream;charset=utf-8", false),
            ("image/png", false),
            ("application/octet-stream", false),
            ("application/grpc", false),
            ("", false),
        ] {
            assert_eq!(is_text(&HeaderValue::from_static(kind)), fit, "{kind}");
        }
    }
}
