//! The head of a request, as lines: quicker than a stream, where the stream is not what is looked at.

use hyper::{
    HeaderMap, Request,
    header::{HeaderName, HeaderValue},
    http::request::Parts,
};

/// Of each line with a legal field its name and value.
pub(super) fn fields(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            // Above this hyper refuses it, and the map itself a little further on.
            if headers.len() < 100 {
                headers.append(name, value);
            }
        }
    }
    headers
}

/// The same below a line with method and target.
pub(super) fn request(lines: &[u8]) -> Option<Parts> {
    let end = lines.iter().position(|&byte| byte == b'\n')?;
    let (line, rest) = lines.split_at(end);
    let (method, target) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let request = Request::builder().method(method).uri(target).body(());
    let (mut parts, ()) = request.ok()?.into_parts();
    parts.headers = fields(rest);
    Some(parts)
}
