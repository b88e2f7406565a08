//! Pages of the operator's in place of lines of the front's own.

use std::sync::Arc;

use hyper::{Request, Version};
use lb_front::{
    Page, Pages, Settings,
    rules::{Maintenance, Rules},
};

use crate::{
    kit::{Backend, GET, TestFront, routes},
    kit_h2::{H2Client, take, within},
};

fn page(text: &str, html: bool) -> Option<Page> {
    let text = text.to_owned();
    Some(Page { html, text })
}

fn pages() -> Pages {
    Pages {
        no_route: page("<p>no route", true),
        no_backend: page("<p>no backend", true),
        maintenance: page("later", false),
    }
}

fn settings() -> Settings {
    Settings {
        no_route_status: 404,
        no_backend_status: 502,
        ..Settings::default()
    }
}

fn ask(host: &str) -> String {
    GET.replace("web", host)
}

#[test]
fn they_stand_for_the_lines_and_outlast_routes() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    front.front.show(&pages());
    for _ in 0..2 {
        front
            .front
            .publish(&routes(&[backend.address]), &settings());
        for (host, status, text) in [
            ("nobody", 404, "<p>no route"),
            ("down", 502, "<p>no backend"),
        ] {
            let answer = front.ask(ask(host));
            assert_eq!((answer.status, answer.body.as_str()), (status, text));
            let kind = answer.field("content-type");
            assert_eq!(kind, Some("text/html; charset=utf-8"));
        }
        assert_eq!(front.ask(GET).body, "a");
        // What else is refused has its line.
        let bad = front.ask("GET / HTTP/1.1\r\n\r\n");
        assert_eq!(bad.body, "bad_request: no Host\n");
    }
    front.front.show(&Pages::default());
    assert_eq!(front.ask(ask("nobody")).body, "no_route: no such name\n");
    let down = front.ask(ask("down"));
    assert_eq!(down.body, "no_backend: no healthy instance\n");
    assert_eq!(down.status, 502);
}

#[test]
fn head_has_the_length_alone_and_a_body_ends_the_connection() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    front.front.show(&pages());
    let mut client = front.client();
    let head = client.send(ask("nobody").replace("GET", "HEAD")).head();
    let head = head.to_ascii_lowercase();
    assert!(head.contains("content-length: 11\r\n"), "{head}");
    assert_eq!(client.send(ask("down")).answer().body, "<p>no backend");
    client.send("POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: 5\r\n\r\nhello");
    let answer = client.answer();
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(answer.body, "<p>no route");
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_notice_of_the_services_own_goes_first() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    front.front.show(&pages());
    for (notice, text) in [
        (None, "later"),
        (Some("We are moving."), "We are moving.\n"),
    ] {
        let mut ruled = routes(&[backend.address]);
        let web = Arc::make_mut(ruled.services[0].1.as_mut().unwrap());
        web.rules = Some(Arc::new(Rules {
            maintenance: Some(Maintenance {
                retry_after_seconds: Some(60),
                notice: notice.map(str::to_owned),
            }),
            ..Rules::default()
        }));
        front.front.publish(&ruled, &settings());
        let answer = front.ask(GET);
        assert_eq!((answer.status, answer.body.as_str()), (503, text));
        assert_eq!(answer.field("retry-after"), Some("60"));
        let kind = answer.field("content-type");
        assert_eq!(kind, Some("text/plain; charset=utf-8"));
    }
}

#[test]
fn over_http_2_they_are_the_same_and_a_call_of_grpc_gets_none() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    front.front.show(&pages());
    within(async {
        let client = H2Client::connect(&front).await;
        let nobody = || Request::post("http://nobody/").version(Version::HTTP_2);
        let (answer, mut stream) = client.begin(nobody().body(()).unwrap()).await;
        stream.send_data("".into(), true).unwrap();
        let answer = take(answer.await.unwrap()).await.unwrap();
        assert_eq!(answer.body, b"<p>no route");
        let call = nobody().header("content-type", "application/grpc");
        let (answer, mut stream) = client.begin(call.body(()).unwrap()).await;
        // It may be answered by then.
        let _ = stream.send_data("".into(), true);
        let answer = take(answer.await.unwrap()).await.unwrap();
        assert_eq!(
            answer.head.headers()["grpc-message"],
            "no_route: no such name"
        );
        assert_eq!(answer.body, b"");
    });
}
