//! What is done for each request before its backend is chosen, to count its instructions.

use std::{collections::BTreeMap, hint::black_box};

use hyper::{Request, header};
use lb_testkit::hot_path;

use crate::{
    fuzz::framing::judge,
    request,
    routes::{Hosts, Paths},
};

/// As browsers send it.
const HEAD: &str = "GET /api/items/42?page=3 HTTP/1.1\r\nHost: www.hello.localhost:8080\r\n\
                    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
                    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
                    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
                    Cookie: session=0123456789abcdef0123456789abcdef\r\nConnection: keep-alive\r\n\r\n";

#[test]
fn hot_path_of_guarding_a_head() {
    let verdict = judge(HEAD.as_bytes(), &[]);
    assert!(verdict.fault.is_none() && verdict.heads == 1);
    hot_path(|| judge(black_box(HEAD.as_bytes()), &[]));
}

#[test]
fn hot_path_of_routing_a_head() {
    let names: BTreeMap<_, _> = (0..1000)
        .map(|number| (format!("service-{number}.localhost"), number))
        .chain([("www.hello.localhost".to_owned(), 1000)])
        .collect();
    let mut paths = Paths::default();
    paths.set("www.hello.localhost", "/api", Some(1001));
    let hosts = Hosts { names, paths };
    let request = Request::get("/api/items/42?page=3")
        .header(header::HOST, "www.hello.localhost:8080")
        .header(header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64)")
        .header(header::ACCEPT, "text/html")
        .body(());
    let (parts, ()) = request.unwrap().into_parts();
    let place = || {
        let checked = request::check(black_box(&parts)).ok()?;
        hosts.find(&checked.host, parts.uri.path()).ok()?
    };
    assert_eq!(place(), Some(1001));
    hot_path(place);
}
