//! Fields of requests and answers.

use super::*;

#[test]
fn fields_are_set_and_removed_by_their_names() {
    let request = |name: &str, value: Option<&str>| Rules {
        request_headers: [(name.to_owned(), value.map(str::to_owned))].into(),
        ..Rules::default()
    };
    let response = |name: &str, value: Option<&str>| Rules {
        response_headers: request(name, value).request_headers,
        ..Rules::default()
    };
    ruled(
        "lb_header_request_x-tenant=blue",
        request("x-tenant", Some("blue")),
    );
    ruled("lb_header_request_cookie=-", request("cookie", None));
    ruled(
        "LB_HEADER_RESPONSE_X_FRAME_OPTIONS=DENY",
        response("x-frame-options", Some("DENY")),
    );
    ruled(
        "lb_header_response_server=a=b, c",
        response("server", Some("a=b, c")),
    );
    for name in [
        "connection",
        "Host",
        "content-length",
        "transfer_encoding",
        "te",
        "via",
        "x-forwarded-for",
    ] {
        check_wrong(&format!("lb_header_request_{name}=1"), "the front decides");
        check_wrong(&format!("lb_header_response_{name}=1"), "the front decides");
    }
    check_wrong("lb_header_x_set=1", "write `lb_header_request_<name>`");
    check_wrong("lb_header_response_=1", "not the name of a field");
    check_wrong("lb_header_response_a b=1", "not the name of a field");
    check_wrong("lb_header_response_server=", "or `-` to remove");
    check_wrong("lb_header_response_server=a\tb", "or `-` to remove");
    check_wrong("lb_header_response_server=\u{e4}", "or `-` to remove");
    let longest = "x".repeat(1024);
    ruled(
        &format!("lb_header_response_server={longest}"),
        response("server", Some(&longest)),
    );
    let long = format!("lb_header_response_server={longest}x");
    check_wrong(&long, "at most 1024 bytes");
}

#[test]
fn a_field_has_one_name_however_it_is_written() {
    let tags = ["lb_header_request_x-a=1", "lb_header_request_x_a=2"];
    let problems = tagged(&tags).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    let fields = tagged(&["lb_header_request_x-a=1", "lb_header_request_x-b=-"])
        .options
        .front;
    assert_eq!(fields.unwrap().request_headers.len(), 2);
}

#[test]
fn pages_that_may_read_answers_are_named_by_their_origins() {
    let cors = |origins: Option<&[&str]>, credentials| Rules {
        cors: Some(Cors {
            origins: origins.map(|origins| origins.iter().map(ToString::to_string).collect()),
            credentials,
        }),
        ..Rules::default()
    };
    ruled("lb_cors=off", Rules::default());
    ruled("lb_cors=*", cors(None, false));
    ruled(
        "lb_cors=https://a.example",
        cors(Some(&["https://a.example"]), false),
    );
    let two = cors(Some(&["http://b.example:81", "https://a.example"]), true);
    ruled(
        "lb_cors=HTTPS://A.example:443 http://b.example:81, credentials",
        two,
    );
    ruled("lb_cors=http://a:80", cors(Some(&["http://a"]), false));
    for wrong in [
        "",
        "true",
        "credentials",
        // Any page could do what its visitor may.
        "* credentials",
        "* https://a.example",
        "https",
        "https:8443",
        "https://a.example/",
        "https://a.example/b",
        "null",
        "https://*.example",
    ] {
        check_wrong(&format!("lb_cors={wrong}"), "beside origins `credentials`");
    }
}
