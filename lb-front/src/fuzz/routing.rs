//! Bytes of a client on their way to a decision: which service, or why none, and what its backend would get.

use std::sync::LazyLock;

use hyper::{
    HeaderMap, Request, Uri, Version,
    header::{self, HeaderValue},
    http::{
        request::Parts,
        uri::{Authority, Scheme},
    },
};

use super::framing;
use crate::{
    forward::{Forwarding, Peer},
    request::{self, BodyKind, Checked, Sender, Via},
    routes::{Ambiguous, Hosts, Paths, Place},
};

/// A client's stream.
pub fn front_route(data: &[u8]) {
    let passed = framing::judge(data, &[]).fault;
    let passed = passed.map_or(data.len(), |(at, _)| at);
    for (parts, body) in framing::read(&data[..passed]) {
        let kind = match body {
            Some(body) if body.is_empty() => BodyKind::Empty,
            _ if parts.headers.contains_key(header::CONTENT_LENGTH) => BodyKind::Known,
            _ => BodyKind::Unknown,
        };
        let over_2 = [true, false].map(|beside| in_http_2(&parts, beside));
        let host = decided(parts, kind);
        for parts in over_2.into_iter().flatten() {
            let same = decided(parts, kind);
            // What is refused in one of them may be legal in the other, but not another service's.
            assert!(host.is_none() || same.is_none() || host == same);
        }
    }
}

/// The same request as it comes over HTTP/2: with `:authority` in place of Host, or `beside` it; `None` if it cannot.
fn in_http_2(parts: &Parts, beside: bool) -> Option<Parts> {
    let mut parts = parts.clone();
    let field = parts.headers.get(header::HOST)?.as_bytes().to_owned();
    if parts.uri.authority().is_none() {
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::try_from(&*field).ok()?);
        parts.uri = Uri::from_parts(uri).ok()?;
    }
    if !beside {
        parts.headers.remove(header::HOST);
    }
    // The h2 crate lets none of these through (RFC 9113 section 8.2.2).
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        parts.headers.remove(name);
    }
    parts.version = Version::HTTP_2;
    Some(parts)
}

/// What becomes of it: the host asked for, if it is not refused.
fn decided(parts: Parts, body: BodyKind) -> Option<String> {
    let checked = match request::check(&parts) {
        Ok(checked) => checked,
        Err(refusal) => {
            // Nothing that was refused is followed by anything else.
            assert!(refusal.close, "{parts:?}");
            assert!(matches!(refusal.status.as_u16(), 400 | 405 | 414 | 417));
            return None;
        }
    };
    if checked.host.is_empty() {
        assert_eq!(parts.version, Version::HTTP_10);
        assert_eq!(HOSTS.find("", "/"), Ok(None));
    } else {
        let path = parts.uri.path();
        match HOSTS.find(&checked.host, path) {
            Ok(found) => assert_eq!(found, plainly_found(&checked.host, path), "{path}"),
            Err(Ambiguous) => {
                let shared = plainly_found(&checked.host, "/") == Some(SHARED);
                assert!(shared && !is_plain(path), "{path}");
            }
        }
        one_service(&checked.host);
    }
    passed_on(&parts, &checked, body);
    Some(checked.host)
}

/// However a name is written, it is the same service's.
fn one_service(host: &str) {
    let mut ways = vec![
        host.to_owned(),
        host.to_ascii_uppercase(),
        format!("{host}:80"),
        format!("{host}:00065535"),
    ];
    if !host.starts_with('[') {
        ways.extend([format!("{host}."), format!("{host}.:1")]);
    }
    for way in ways.iter().filter(|way| way.len() <= LONGEST) {
        let Ok(request) = Request::get("/").header(header::HOST, way).body(()) else {
            continue; // A legal name is a legal value.
        };
        let mut parts = request.into_parts().0;
        let again = request::check(&parts).map(|checked| checked.host);
        assert_eq!(again.as_deref(), Ok(host), "{way}");
        // And as a target, in which a name may not have every byte that it may have as Host.
        if let Ok(uri) = format!("http://{way}/").parse() {
            parts.uri = uri;
            let again = request::check(&parts).map(|checked| checked.host);
            assert_eq!(again.as_deref(), Ok(host), "{way}");
        }
    }
}

/// Whether a path has one reading only.
fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_~".contains(&byte);
    path.bytes().all(plain) && !path.contains("//")
}

/// What [`Hosts::find`] finds of a path that it takes: by all names in turn, then by all prefixes.
fn plainly_found(host: &str, path: &str) -> Option<Place> {
    let found = plainly_named(host)?;
    let prefixes = PREFIXES.iter().filter(|_| found == SHARED);
    let under = prefixes.filter(|(prefix, _)| {
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let longest = under.max_by_key(|(prefix, _)| prefix.len());
    Some(longest.map_or(found, |(_, place)| *place))
}

fn plainly_named(host: &str) -> Option<Place> {
    let exactly = HOSTS.names.get(host).copied();
    let carried = || {
        let before = SUFFIXES
            .iter()
            .find_map(|suffix| host.strip_suffix(suffix)?.strip_suffix('.'))?;
        if before.split('.').any(|label| label.len() > 63) {
            return None;
        }
        // The shortest name that is followed by an address.
        let mut names: Vec<_> = HOSTS.names.iter().collect();
        names.sort_by_key(|(name, _)| name.len());
        let (_, place) = names.into_iter().find(|(name, _)| {
            let rest = before.strip_prefix(name.as_str());
            let rest = rest.and_then(|rest| rest.strip_prefix(['.', '-']));
            rest.is_some_and(is_address)
        })?;
        Some(*place)
    };
    exactly.or_else(carried)
}

fn is_address(text: &str) -> bool {
    let canonical = |word: &str| {
        word.parse::<u8>()
            .is_ok_and(|octet| octet.to_string() == word)
    };
    let quad = |separator: char| {
        let words: Vec<_> = text.split(separator).collect();
        words.len() == 4 && words.into_iter().all(canonical)
    };
    let hex = matches!(text.len(), 8 | 32) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let v6 = !text.contains('.') && text.replace('-', ":").parse::<std::net::Ipv6Addr>().is_ok();
    quad('.') || quad('-') || hex || v6
}

/// The head that the backend gets must mean to it what it meant to us.
fn passed_on(parts: &Parts, checked: &Checked, body: BodyKind) {
    let sender = Sender {
        peer: Peer {
            address: [192, 0, 2, 1].into(),
            text: &HeaderValue::from_static("192.0.2.1"),
            secure: false,
        },
        forwarding: &Forwarding::default(),
        id: Some(&HeaderValue::from_static("1f")),
        via: &Via::fallback(),
    };
    let parts = request::rewrite(parts, checked, &sender, body);
    let headers = &parts.headers;
    assert_eq!(parts.version, Version::HTTP_11);
    assert!(parts.uri.authority().is_none());
    assert_eq!(all(headers, header::HOST.as_str()), 1);
    for (name, most) in [
        ("x-forwarded-for", 1),
        ("x-forwarded-host", 1),
        ("x-forwarded-proto", 1),
        ("forwarded", 0),
        ("expect", 0),
        ("te", 0),
        ("keep-alive", 0),
        ("proxy-connection", 0),
        ("http2-settings", 0),
        ("connection", usize::from(checked.upgrade)),
        ("upgrade", usize::from(checked.upgrade)),
    ] {
        assert!(all(headers, name) <= most, "{name} in {headers:?}");
    }
    // hyper frames anew; what is left says no more than that there is a body, or none.
    let framings = all(headers, "content-length") + all(headers, "transfer-encoding");
    assert!(framings <= 1, "{headers:?}");
    let length = headers.get(header::CONTENT_LENGTH);
    assert!(length.is_none_or(|length| length == "0" && body == BodyKind::Empty));
    let odd = headers.keys().find(|name| name.as_str().contains('_'));
    assert_eq!(odd, None);
}

fn all(headers: &HeaderMap, name: &str) -> usize {
    headers.get_all(name).iter().count()
}

/// Names like those of the demo, and some that others begin with.
static HOSTS: LazyLock<Hosts> = LazyLock::new(|| {
    let names = [
        "hello",
        "www.hello",
        "www_hello",
        "www.hello.localhost",
        "a",
        "a-1-2-3-4",
        "web",
        "web.10.0.0.7.nip.io",
    ];
    let names = names.into_iter().zip(1..);
    let names = names.map(|(name, place)| (name.to_owned(), place));
    let mut paths = Paths::default();
    for (prefix, place) in PREFIXES {
        paths.set("web", prefix, Some(place));
    }
    Hosts {
        names: names.collect(),
        paths,
    }
});

/// The place of `web`, which has the rest of its host.
const SHARED: Place = 7;
const PREFIXES: [(&str, Place); 3] = [("/api", 20), ("/api/v1", 21), ("/b", 22)];

const SUFFIXES: [&str; 4] = ["nip.io", "sslip.io", "xip.io", "traefik.me"];

/// A Host of more bytes is refused.
const LONGEST: usize = 260;
