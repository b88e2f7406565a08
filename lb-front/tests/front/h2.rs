//! HTTP/2 from clients, by prior knowledge: the same rules as in HTTP/1, and what only HTTP/2 has.

mod client;
mod ends;

use hyper::{Request, Version};
use lb_front::Reason;

pub(crate) use self::client::{Connection, connect, get, over, within};
use crate::kit::{Backend, Reply, TestFront, ok};

/// Without `:authority`.
fn without_authority() -> hyper::http::request::Builder {
    // The library refuses to send this as a request that was HTTP/2 from the beginning.
    Request::get("/").version(Version::HTTP_11)
}

#[test]
fn requests_are_routed_by_authority_and_reach_the_backend_in_http_1() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    within(async {
        let mut connection = connect(&front).await;
        for authority in ["web", "WEB:80", "web."] {
            let answer = connection.ask(get(authority)).await.unwrap();
            assert_eq!(answer.response.status(), 200, "{authority}");
            assert_eq!(answer.body, b"a");
            assert!(answer.response.headers().get("connection").is_none());
        }
        let answer = connection.ask(get("unknown")).await.unwrap();
        assert_eq!(answer.response.status(), 503);
        assert_eq!(answer.body, b"no_route: no such name\n");
    });
    let seen = backend.seen();
    assert!(
        seen[0].head.starts_with("GET /a?b HTTP/1.1\r\n"),
        "{seen:?}"
    );
    assert_eq!(seen[0].field("host"), Some("web"));
    assert_eq!(seen[0].field("via"), Some("2.0 lb-agent"));
    assert_eq!(seen[0].field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen[1].field("x-forwarded-host"), Some("WEB:80"));
    let stats = front.stats();
    assert_eq!(
        (stats.ended(Reason::Ok), stats.ended(Reason::NoRoute)),
        (3, 1)
    );
}

#[test]
fn an_answer_of_the_fronts_own_to_head_has_no_body() {
    let front = TestFront::with(&[]);
    within(async {
        let mut connection = connect(&front).await;
        let mut request = get("unknown");
        *request.method_mut() = hyper::Method::HEAD;
        let answer = connection.ask(request).await.unwrap();
        assert_eq!(answer.response.status(), 503);
        assert_eq!(answer.response.headers()["content-length"], "23");
        assert_eq!(answer.body, b"");
    });
    let mut client = front.client();
    client.send("HEAD / HTTP/1.1\r\nHost: unknown\r\n\r\n");
    assert!(client.head().contains("\r\ncontent-length: 23\r\n"));
    client.send("GET / HTTP/1.1\r\nHost: unknown\r\n\r\n");
    assert_eq!(client.answer().body, "no_route: no such name\n");
}

#[test]
fn authority_and_host_must_not_differ_and_one_must_be_there() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let host = |host: &str| {
        let mut request = get("web");
        request.headers_mut().append("host", host.parse().unwrap());
        request
    };
    let two = |mut request: Request<()>| {
        request.headers_mut().append("host", "web".parse().unwrap());
        request
    };
    let bare = |host: &str| without_authority().header("host", host).body(()).unwrap();
    within(async {
        let mut connection = connect(&front).await;
        for (status, request) in [
            (200, host("web")),
            (200, host("WEB:8080")),
            (400, host("other")),
            (400, two(host("web"))),
            (200, bare("web")),
            (400, two(bare("web"))),
            (400, bare("a b")),
            (400, without_authority().body(()).unwrap()),
            (400, get("user@web")),
        ] {
            let shown = format!("{request:?}");
            let answer = connection.ask(request).await.unwrap();
            assert_eq!(answer.response.status(), status, "{shown}");
        }
    });
}

#[test]
fn cookies_are_one_field_and_bodies_are_framed_anew() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    within(async {
        let mut connection = connect(&front).await;
        let mut request = get("web");
        for cookie in ["a=1", "b=2", "c=3"] {
            request
                .headers_mut()
                .append("cookie", cookie.parse().unwrap());
        }
        request
            .headers_mut()
            .insert("te", "trailers".parse().unwrap());
        request
            .headers_mut()
            .insert("x-forwarded-for", "6.6.6.6".parse().unwrap());
        connection.ask(request).await.unwrap();
        let post = || Request::post("http://web/").version(Version::HTTP_2);
        let known = post().header("content-length", "5").body(()).unwrap();
        connection.send(known, Some(b"hello")).await.unwrap();
        connection
            .send(post().body(()).unwrap(), Some(b"hello"))
            .await
            .unwrap();
        connection.ask(post().body(()).unwrap()).await.unwrap();
        // One that lies about its length is no request.
        let lies = post().header("content-length", "9").body(()).unwrap();
        let answer = connection.send(lies, Some(b"hello")).await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.response.status() == 400));
        let answer = connection.ask(get("web")).await.unwrap();
        assert_eq!(answer.response.status(), 200);
    });
    let seen = backend.seen();
    assert_eq!(seen[0].field("cookie"), Some("a=1; b=2; c=3"));
    assert_eq!(seen[0].field("te"), None);
    assert_eq!(seen[0].field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(
        (seen[1].field("content-length"), &seen[1].body[..]),
        (Some("5"), &b"hello"[..])
    );
    assert_eq!(seen[2].field("transfer-encoding"), Some("chunked"));
    assert_eq!(seen[2].body, b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(seen[3].field("content-length"), Some("0"));
}

#[test]
fn there_is_no_way_out_of_http() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    within(async {
        let mut connection = connect(&front).await;
        let connect = Request::connect("web:80")
            .version(Version::HTTP_2)
            .body(())
            .unwrap();
        let answer = connection.ask(connect).await.unwrap();
        assert_eq!(answer.response.status(), 405);
        assert!(!connection.requests.is_extended_connect_protocol_enabled());
    });
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn trailers_of_the_backend_reach_the_client() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
        2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n";
    let backend = Backend::start(|_| Reply::Keep(chunked.to_vec()));
    let front = TestFront::with(&[&backend]);
    within(async {
        let mut connection = connect(&front).await;
        for _ in 0..2 {
            let answer = connection.ask(get("web")).await.unwrap();
            assert_eq!(answer.body, b"hi");
            assert_eq!(answer.trailers.unwrap()["x-sum"], "7");
        }
    });
    assert_eq!(front.stats().ended(Reason::Ok), 2);
    assert_eq!(front.stats().connects, 1);
}

#[test]
fn many_requests_go_at_the_same_time_and_large_bodies_arrive_whole() {
    let large = "0123456789abcdef".repeat(64 * 1024);
    let body = large.clone();
    let backend = Backend::start(move |_| Reply::Keep(ok(&body)));
    let front = TestFront::with(&[&backend]);
    within(async {
        let mut connection = connect(&front).await;
        let mut asked = Vec::new();
        for _ in 0..20 {
            let mut connection = Connection {
                requests: connection.requests.clone(),
                driver: tokio::spawn(async { Ok(()) }),
            };
            asked.push(tokio::spawn(
                async move { connection.ask(get("web")).await },
            ));
        }
        for asked in asked {
            assert!(asked.await.unwrap().unwrap().body == large.as_bytes());
        }
        let upload = Request::post("http://web/").version(Version::HTTP_2);
        // The backend is faster with a body of known length.
        let upload = upload.header("content-length", large.len());
        let upload = upload.body(()).unwrap();
        let answer = connection
            .send(upload, Some(large.as_bytes()))
            .await
            .unwrap();
        assert_eq!(answer.response.status(), 200);
        assert_eq!(connection.requests.current_max_send_streams(), 100);
    });
    let upload = backend.seen().pop().unwrap();
    assert!(upload.body == large.as_bytes());
}
