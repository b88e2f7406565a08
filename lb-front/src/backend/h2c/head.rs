//! The head of a request as HTTP/2 has it, made of the one that an HTTP/1 backend would get.

use hyper::{
    HeaderMap, Uri, Version,
    header::{self, HeaderValue},
    http::{request::Parts, uri},
};

/// Whether the client takes fields behind the body, which gRPC asks of everybody on the way.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(header::TE).iter();
    fields.any(|field| {
        let mut codings = field.as_bytes().split(|&byte| byte == b',');
        codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Makes it so, for a body with this `length` if it is known; false if `authority` is none.
pub(crate) fn adapt(
    parts: &mut Parts,
    authority: &HeaderValue,
    trailers: bool,
    length: Option<u64>,
) -> bool {
    let headers = &mut parts.headers;
    for name in [
        header::HOST,
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(length) = length.filter(|&length| length > 0) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let mut target = uri::Parts::default();
    target.scheme = Some(uri::Scheme::HTTP);
    target.authority = uri::Authority::try_from(authority.as_bytes()).ok();
    target.path_and_query = parts.uri.path_and_query().cloned();
    let Ok(target) = Uri::from_parts(target) else {
        return false;
    };
    parts.uri = target;
    parts.version = Version::HTTP_2;
    true
}

#[cfg(test)]
mod tests {
    use hyper::{Method, Request};

    use super::*;
    use crate::request::origin_form;

    #[test]
    fn what_belongs_to_a_connection_is_left_behind() {
        let request = Request::post("/a?b")
            .header("host", "web:80")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("transfer-encoding", "chunked")
            .header("x-kept", "1");
        let mut parts = request.body(()).unwrap().into_parts().0;
        let authority = HeaderValue::from_static("web:80");
        assert!(adapt(&mut parts, &authority, true, Some(3)));
        assert_eq!(parts.uri, "http://web:80/a?b");
        let mut fields: Vec<_> = parts.headers.iter().collect();
        fields.sort_by_key(|(name, _)| name.as_str());
        let fields: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(fields, ["content-length", "te", "x-kept"]);
    }

    #[test]
    fn every_form_of_target_has_one_in_http_2() {
        for (method, target, authority, path) in [
            (Method::OPTIONS, "*", "web", "*"),
            (Method::OPTIONS, "http://web", "web", "*"),
            (Method::OPTIONS, "http://web?x", "web", "/?x"),
            (Method::GET, "/", "a_b.", "/"),
            (Method::GET, "/", "[::1]:80", "/"),
            (Method::GET, "/a//b/../%2f?", "10.0.0.1", "/a//b/../%2f?"),
            (Method::GET, "http://web", "web", "/"),
            (Method::GET, "http://web?x=1", "web", "/?x=1"),
            (Method::GET, "http://web?", "web", "/?"),
            (Method::GET, "http://web/?x=1", "web", "/?x=1"),
        ] {
            let request = Request::builder().method(method).uri(target);
            let mut parts = request.body(()).unwrap().into_parts().0;
            parts.uri = origin_form(&parts.uri, &parts.method);
            let value = HeaderValue::from_static(authority);
            assert!(adapt(&mut parts, &value, false, None), "{authority}");
            assert_eq!(parts.uri.to_string(), format!("http://{authority}{path}"));
            // What `:path` is made of; the text above has a path in any case.
            let made = parts.uri.path_and_query().map(uri::PathAndQuery::as_str);
            assert_eq!(made, Some(path), "{target}");
        }
    }

    #[test]
    fn trailers_may_stand_among_other_codings() {
        for (fields, takes) in [
            (&["trailers"][..], true),
            (&["gzip;q=0.5, Trailers"], true),
            (&["gzip", "trailers"], true),
            (&["gzip"], false),
            (&[], false),
        ] {
            let fields = fields.iter().map(|field| HeaderValue::from_static(field));
            let headers = HeaderMap::from_iter(fields.map(|field| (header::TE, field)));
            assert_eq!(takes_trailers(&headers), takes);
        }
        let mut headers = HeaderMap::new();
        headers.append(header::TE, HeaderValue::from_static("gzip"));
        headers.append(header::TE, HeaderValue::from_static("trailers"));
        assert!(takes_trailers(&headers));
    }
}
