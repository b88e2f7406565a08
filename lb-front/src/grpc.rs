//! What the front answers by itself to a call of gRPC. Its clients read no status but the one in a field of gRPC, and call
//! everything else unknown.

use std::fmt::Write as _;

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};

/// `answer` as an answer of gRPC that is all head: HTTP says 200, and a field what became of the call, with the text
/// beside it.
pub(super) fn reply(answer: &Response<Bytes>) -> Response<Bytes> {
    let mut reply = Response::new(Bytes::new());
    let headers = reply.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert("grpc-status", code(answer.status()).into());
    if let Ok(message) = HeaderValue::try_from(message(answer.body())) {
        headers.insert("grpc-message", message);
    }
    reply
}

/// What gRPC's own document on the mapping from HTTP says (http-grpc-status-mapping.md).
fn code(status: StatusCode) -> u16 {
    const INTERNAL: u16 = 13;
    const UNKNOWN: u16 = 2;
    match status.as_u16() {
        400 | 431 => INTERNAL,
        401 => 16,             // Unauthenticated.
        403 => 7,              // Permission denied.
        404 => 12,             // Unimplemented.
        429 | 502..=504 => 14, // Unavailable.
        _ => UNKNOWN,
    }
}

/// The first line, with what is not printable percent-encoded.
fn message(text: &[u8]) -> String {
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut message = String::new();
    for &byte in line {
        match byte {
            b' '..=b'~' if byte != b'%' => message.push(char::from(byte)),
            // Into a String, which never fails.
            _ => drop(write!(message, "%{byte:02X}")),
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_a_status_of_grpc() {
        for (status, code) in [
            (503, "14"),
            (502, "14"),
            (504, "14"),
            (429, "14"),
            (400, "13"),
            (401, "16"),
            (403, "7"),
            (404, "12"),
            (408, "2"),
            (307, "2"),
        ] {
            let answer = Response::builder().status(status);
            let answer = answer.header("retry-after", 5).body("why\n".into());
            let reply = reply(&answer.unwrap());
            assert_eq!((reply.status(), reply.body().len()), (StatusCode::OK, 0));
            let headers = reply.headers();
            assert_eq!(headers["content-type"], "application/grpc");
            assert_eq!(headers["grpc-status"], code, "{status}");
            assert_eq!(headers["grpc-message"], "why");
        }
    }

    #[test]
    fn a_message_is_one_line_of_printable_letters() {
        assert_eq!(message(b"100 %\nmore"), "100 %25");
        assert_eq!(message("gr\u{fc}n".as_bytes()), "gr%C3%BCn");
        assert_eq!(message(b""), "");
    }
}
