//! What the application answers: a pure function of the request and of three switches.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};

use crate::download;

/// The body of an answer: a page, or a download.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One instance of the application.
pub(crate) struct App {
    id: String,
    name: String,
    /// The pages answer 502, as a web server does whose application died; files and the port live on.
    broken: AtomicBool,
    /// Downloads, running ones included, ignore their rate from now on.
    hurry: Arc<AtomicBool>,
}

impl App {
    pub(crate) fn new(id: String, name: String) -> Self {
        Self {
            id,
            name,
            broken: AtomicBool::new(false),
            hurry: Arc::default(),
        }
    }

    /// The answer to `request`, which came from `peer`.
    pub(crate) fn answer<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Body> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET, "/from") => from(peer, request),
            (&Method::POST, "/break") => self.switch(&self.broken, true),
            (&Method::POST, "/mend") => self.switch(&self.broken, false),
            (&Method::POST, "/hurry") => self.switch(&self.hurry, true),
            (_, "/break" | "/mend" | "/hurry") => refuse_method("POST"),
            (&Method::GET | &Method::HEAD, _) => self.page(path, request.uri().query()),
            _ => refuse_method("GET, HEAD"),
        }
    }

    fn page(&self, path: &str, query: Option<&str>) -> Response<Body> {
        if path == "/logo.png" {
            return respond(StatusCode::OK, "image/png", LOGO);
        }
        if path == "/download" {
            return match download::Order::parse(query.unwrap_or_default()) {
                Ok(order) => download::start(order, &self.id, Arc::clone(&self.hurry)),
                Err(why) => respond(StatusCode::BAD_REQUEST, TEXT, why + "\n"),
            };
        }
        if self.broken.load(Ordering::Relaxed) {
            let why = format!("the application of {} is broken\n", self.id);
            return respond(StatusCode::BAD_GATEWAY, TEXT, why);
        }
        if path == "/id" {
            return respond(StatusCode::OK, TEXT, format!("{}\n", self.id));
        }
        let (name, id) = (escape(&self.name), escape(&self.id));
        let html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Hello world!</title></head>\n\
             <body>\n<img src=\"/logo.png\" alt=\"\">\n<h1>Hello {name}!</h1>\n\
             <h3>My hostname is {id}</h3>\n</body>\n</html>\n"
        );
        respond(StatusCode::OK, "text/html; charset=utf-8", html)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// From now on pages answer 502.
    pub(crate) fn fail(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    fn switch(&self, switch: &AtomicBool, on: bool) -> Response<Body> {
        switch.store(on, Ordering::Relaxed);
        respond(StatusCode::OK, TEXT, format!("{}\n", self.id))
    }
}

/// Who asked: the address of the connection, and on a second line what an HTTP front said of its own client.
fn from<B>(peer: IpAddr, request: &Request<B>) -> Response<Body> {
    let mut text = format!("{peer}\n");
    for value in request.headers().get_all("x-forwarded-for") {
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
        text.push('\n');
    }
    respond(StatusCode::OK, TEXT, text)
}

fn refuse_method(allowed: &'static str) -> Response<Body> {
    let mut answer = respond(
        StatusCode::METHOD_NOT_ALLOWED,
        TEXT,
        format!("only {allowed}\n"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // A page that shows who answered must never come from a cache.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// `text` as HTML text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The type of plain answers and downloads.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// A file of the web server, beside the pages of the application.
const LOGO: &[u8] = include_bytes!("logo.png");

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    #[track_caller]
    fn ask(app: &App, method: Method, target: &str) -> StatusCode {
        let request = Request::builder().method(method).uri(target).body(());
        app.answer(&request.unwrap(), PEER).status()
    }

    async fn text(answer: Response<Body>) -> String {
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn app() -> App {
        App::new("a".into(), "<world>".into())
    }

    #[tokio::test]
    async fn any_path_shows_the_page_with_the_id() {
        for target in ["/", "/index.php", "/some/where?x=y"] {
            let request = Request::get(target).body(()).unwrap();
            let answer = app().answer(&request, PEER);
            assert_eq!(answer.status(), StatusCode::OK, "{target}");
            let page = text(answer).await;
            assert!(page.contains("<title>Hello world!</title>"), "{page}");
            assert!(page.contains("<h1>Hello &lt;world&gt;!</h1>"), "{page}");
            assert!(page.contains("<h3>My hostname is a</h3>"), "{page}");
        }
    }

    #[test]
    fn a_broken_application_fails_its_pages_and_not_its_files() {
        let app = app();
        assert_eq!(ask(&app, Method::POST, "/break"), StatusCode::OK);
        assert_eq!(ask(&app, Method::GET, "/"), StatusCode::BAD_GATEWAY);
        assert_eq!(ask(&app, Method::GET, "/id"), StatusCode::BAD_GATEWAY);
        assert_eq!(ask(&app, Method::GET, "/logo.png"), StatusCode::OK);
        assert_eq!(ask(&app, Method::POST, "/mend"), StatusCode::OK);
        assert_eq!(ask(&app, Method::GET, "/"), StatusCode::OK);
    }

    #[test]
    fn a_link_that_is_followed_breaks_nothing() {
        let app = app();
        assert_eq!(
            ask(&app, Method::GET, "/break"),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert_eq!(ask(&app, Method::GET, "/"), StatusCode::OK);
        assert_eq!(
            ask(&app, Method::DELETE, "/"),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }

    #[tokio::test]
    async fn a_download_has_the_length_asked_for_and_names_its_instance() {
        let request = Request::get("/download?bytes=100001").body(()).unwrap();
        let page = text(app().answer(&request, PEER)).await;
        assert_eq!(page.len(), 100_001);
        assert!(page.lines().all(|line| line == "a"));
    }

    #[tokio::test]
    async fn who_asked_is_told_as_the_connection_and_as_the_front_say_it() {
        let direct = Request::get("/from").body(()).unwrap();
        assert_eq!(text(app().answer(&direct, PEER)).await, "192.0.2.7\n");
        let through = Request::get("/from").header("X-Forwarded-For", "198.51.100.1");
        let answer = app().answer(&through.body(()).unwrap(), PEER);
        assert_eq!(text(answer).await, "192.0.2.7\n198.51.100.1\n");
    }

    #[tokio::test]
    async fn a_wrong_order_is_refused_with_the_reason() {
        for query in ["", "bytes=x", "bytes=5&rate=0", "bytes=5&colour=red"] {
            let request = Request::get(format!("/download?{query}")).body(()).unwrap();
            let answer = app().answer(&request, PEER);
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
            assert!(text(answer).await.contains("/download?bytes="), "{query}");
        }
    }
}
