//! What the front accepts from clients, and what the backend gets to see of it.

mod refused;

use std::io::Write;

use lb_front::{Limits, Reason, Settings};

pub(crate) use self::refused::refused;
use crate::kit::{Backend, Client, GET, Reply, TestFront, eventually, ok, routes};

#[test]
fn legal_oddities_reach_the_backend_in_one_plain_form() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let body = |at: usize| {
        let seen = backend.seen()[at].clone();
        let length = seen.field("content-length").map(str::to_owned);
        (length, String::from_utf8(seen.body).unwrap())
    };
    let post = |fields: &str, body: &str| {
        let request = format!("POST / HTTP/1.1\r\nHost: web\r\n{fields}\r\n\r\n{body}");
        assert_eq!(front.ask(request).status, 200, "{fields}");
    };
    post("Content-Length: 003", "abc");
    assert_eq!(body(0), (Some("3".into()), "abc".into()));
    post("Content-Length: 3\r\nContent-Length: 3", "abc");
    assert_eq!(body(1), (Some("3".into()), "abc".into()));
    post("Transfer-Encoding: CHUNKED", "3 ;x=y\r\nabc\r\n0\r\n\r\n");
    assert_eq!(body(2), (None, "3\r\nabc\r\n0\r\n\r\n".into()));
    post("A: b", "");
    assert_eq!(body(3), (Some("0".into()), String::new()));
    let get = "\r\nGET / HTTP/1.1\r\nHost: WEB.:80\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(front.ask(get).status, 200);
    assert_eq!(body(4), (None, "3\r\nabc\r\n0\r\n\r\n".into()));
    assert_eq!(
        front
            .ask("GET http://web/%00/../x?y HTTP/1.1\r\nHost: web\r\n\r\n")
            .status,
        200
    );
    assert!(
        backend.seen()[5]
            .head
            .starts_with("GET /%00/../x?y HTTP/1.1\r\n")
    );
    assert_eq!(
        front.ask("OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n").status,
        200
    );
    assert!(backend.seen()[6].head.starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[test]
fn the_backend_sees_the_clients_host_and_where_it_comes_from() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let request = "GET / HTTP/1.1\r\nHost: Alias.Example:8080\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: x-a\r\nX-A: b\r\nMy_Field: c\r\nX-Bytes: \u{e4}\r\n\r\n";
    assert_eq!(front.ask(request).body, "a");
    let seen = &backend.seen()[0];
    assert_eq!(seen.field("host"), Some("Alias.Example:8080"));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-host"), Some("Alias.Example:8080"));
    assert_eq!(seen.field("via"), Some("1.1 lb-agent"));
    assert_eq!(seen.field("x-bytes"), Some("\u{e4}"));
    for gone in ["x-a", "my_field", "connection"] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
}

#[test]
fn an_unknown_name_and_a_service_without_instance_get_different_answers() {
    let front = TestFront::with(&[]);
    let unknown = front.ask("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
    let down = front.ask("GET / HTTP/1.1\r\nHost: down.localhost:8080\r\n\r\n");
    assert_eq!((unknown.status, down.status), (503, 503));
    assert!(unknown.body.contains("no such name"), "{unknown:?}");
    assert!(down.body.contains("no healthy instance"), "{down:?}");
    let stats = front.stats();
    assert_eq!(
        (stats.ended(Reason::NoRoute), stats.ended(Reason::NoBackend)),
        (1, 1)
    );
    let settings = Settings {
        no_route_status: 404,
        ..Settings::default()
    };
    front.front.publish(&routes(&[]), &settings);
    assert_eq!(
        front.ask("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").status,
        404
    );
    assert_eq!(
        front.ask("GET / HTTP/1.1\r\nHost: down\r\n\r\n").status,
        503
    );
}

#[test]
fn before_the_first_routes_it_says_so() {
    let front = TestFront::start(Limits::default(), 1);
    let answer = front.ask(GET);
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("starting"), "{answer:?}");
}

#[test]
fn an_answer_without_reading_the_body_ends_the_connection() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for pieces in [1, 2] {
        for host in ["nobody", "down"] {
            let smuggled = GET;
            let head = format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n",
                smuggled.len()
            );
            let mut client = front.client();
            if pieces == 1 {
                client.send([&head, smuggled, GET].concat());
            } else {
                client.send(head);
                client.send(smuggled).send(GET);
            }
            let answer = client.answer();
            assert_eq!(answer.status, 503);
            assert_eq!(answer.field("connection"), Some("close"));
            assert_eq!(client.rest(), b"");
        }
    }
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn a_client_that_is_still_sending_when_it_is_answered_is_not_reset() {
    let front = TestFront::with(&[]);
    let mut client = front.client();
    client.send("POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: 20480\r\n\r\n");
    assert_eq!(client.answer().status, 503);
    for _ in 0..20 {
        // A closed socket would answer the first with a reset, and fail the next.
        client.stream.write_all(&[b'a'; 1024]).unwrap();
    }
    assert_eq!(client.rest(), b"");
}

#[test]
fn http_1_0_is_served_and_closed() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    let answer = client.send("GET / HTTP/1.0\r\nHost: web\r\n\r\n").answer();
    assert_eq!((answer.status, answer.body.as_str()), (200, "a"));
    assert_eq!(client.rest(), b"");
    assert!(backend.seen()[0].head.starts_with("GET / HTTP/1.1\r\n"));
    let mut client = front.client();
    assert_eq!(client.send("GET / HTTP/1.0\r\n\r\n").answer().status, 503);
    assert_eq!(client.rest(), b"");
}

#[test]
fn an_answer_to_head_keeps_its_length_and_the_connection() {
    let backend = Backend::start(|seen| {
        let head = seen.head.starts_with("HEAD");
        Reply::Keep(if head {
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec()
        } else {
            ok("a")
        })
    });
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    let head = client.send("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n").head();
    assert!(
        head.to_ascii_lowercase().contains("content-length: 7\r\n"),
        "{head:?}"
    );
    assert_eq!(client.send(GET).answer().body, "a");
}

#[test]
fn a_request_that_has_been_here_is_a_loop() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let request = "GET / HTTP/1.1\r\nHost: web\r\nVia: 1.1 elsewhere, 1.1 lb-agent\r\n\r\n";
    assert_eq!(front.ask(request).status, 508);
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn continue_is_sent_once_a_backend_is_there_to_take_the_body() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    let head = "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    assert!(client.send(head).head().starts_with("HTTP/1.1 100 "));
    assert_eq!(client.send("abc").answer().status, 200);
    let seen = &backend.seen()[0];
    assert_eq!((seen.field("expect"), &seen.body[..]), (None, &b"abc"[..]));
    let mut client = front.client();
    let nobody = head.replace("web", "nobody");
    assert_eq!(client.send(nobody).answer().status, 503);
}

#[test]
fn a_client_that_leaves_is_counted_and_the_backend_is_told() {
    let backend = Backend::start(|_| Reply::Stall(Vec::new()));
    let front = TestFront::with(&[&backend]);
    let mut client: Client = front.client();
    client.send(GET);
    eventually("the request is there", || {
        (backend.seen().len() == 1).then_some(())
    });
    drop(client);
    eventually("it is counted", || {
        (front.stats().ended(Reason::ClientAbort) == 1).then_some(())
    });
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
}
