use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use flate2::read::MultiGzDecoder;
use lb_front::{Reason, Settings, rules::Rules};

use super::front;
use crate::kit::{Answer, Backend, Client, Reply, TestFront, routes};

fn compressing() -> Rules {
    Rules {
        compress: true,
        ..Rules::default()
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\nAccept-Encoding: gzip\r\n\r\n";
const PLAIN: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

fn text(length: usize) -> String {
    let words = ["the ", "front ", "routes ", "each ", "request\n"];
    let text: String = (0..length).map(|at| words[at * at % 7 % 5]).collect();
    text[..length].to_owned()
}

/// Answers with these fields and bytes.
fn answering(fields: &str, body: &str) -> Backend {
    let (fields, body) = (fields.to_owned(), body.to_owned());
    Backend::start(move |_| {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n");
        Reply::Keep((head + &body).into_bytes())
    })
}

/// The data of chunks that end with their last.
fn unchunked(client: &mut Client) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let chunk = chunk(client);
        if chunk.is_empty() {
            return data;
        }
        data.extend(chunk);
    }
}

fn chunk(client: &mut Client) -> Vec<u8> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(client.bytes(1));
    }
    let length = std::str::from_utf8(&line).unwrap().trim_end();
    let length = usize::from_str_radix(length, 16).unwrap();
    let mut chunk = client.bytes(length + 2);
    assert!(chunk.ends_with(b"\r\n"));
    chunk.truncate(length);
    chunk
}

fn unzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(bytes)
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// The head of the answer to `request`, its body as it came, and that as text.
fn ask(front: &TestFront, request: &str) -> (Answer, Vec<u8>) {
    let mut client = front.client();
    client.send(request);
    let head = client.head();
    let answer = Answer {
        status: head[9..12].parse().unwrap(),
        body: String::new(),
        head,
    };
    let body = match answer.field("content-length") {
        Some(length) => client.bytes(length.parse().unwrap()),
        None => unchunked(&mut client),
    };
    (answer, body)
}

#[test]
fn a_client_that_takes_gzip_gets_it_and_others_the_text() {
    let body = text(200_000);
    let fields =
        "Content-Type: text/html\r\nETag: \"1\"\r\nAccept-Ranges: bytes\r\nVary: cookie\r\n";
    let backend = answering(fields, &body);
    let front = front(compressing(), &backend);
    let (answer, bytes) = ask(&front, GET);
    for (name, value) in [
        ("content-encoding", Some("gzip")),
        ("transfer-encoding", Some("chunked")),
        ("etag", Some("W/\"1\"")),
        ("accept-ranges", None),
        ("content-length", None),
    ] {
        assert_eq!(answer.field(name), value, "{name}");
    }
    assert!(
        answer.head.contains("vary: accept-encoding"),
        "{}",
        answer.head
    );
    assert!(answer.head.contains("vary: cookie"), "{}", answer.head);
    assert!(unzipped(&bytes) == body, "another text");
    assert!(bytes.len() < body.len() / 3, "{} bytes", bytes.len());
    let (answer, bytes) = ask(&front, PLAIN);
    assert_eq!(answer.field("content-encoding"), None);
    assert_eq!(answer.field("etag"), Some("\"1\""));
    // A cache must not give it to everybody.
    assert!(
        answer.head.contains("vary: accept-encoding"),
        "{}",
        answer.head
    );
    assert!(bytes == body.as_bytes());
    // The connection to the backend is good for more.
    let stats = front.stats();
    assert_eq!((stats.connects, stats.ended(Reason::Ok)), (1, 2));
}

#[test]
fn what_must_stay_as_it_is_stays() {
    let long = text(5_000);
    let cases = [
        ("Content-Type: image/png\r\n", &*long),
        ("", &long),
        ("Content-Type: text/event-stream\r\n", &long),
        ("Content-Type: text/html\r\nContent-Encoding: br\r\n", &long),
        (
            "Content-Type: text/html\r\nCache-Control: no-transform\r\n",
            &long,
        ),
        (
            "Content-Type: text/html\r\nContent-Range: bytes 0-4999/9000\r\n",
            &long,
        ),
        (
            "Content-Type: text/html\r\nContent-Digest: sha-256=:AA==:\r\n",
            &long,
        ),
        ("Content-Type: text/html\r\n", &long[..1023]),
    ];
    for (fields, body) in cases {
        let backend = answering(&format!("{fields}ETag: \"1\"\r\n"), body);
        let front = front(compressing(), &backend);
        let (answer, bytes) = ask(&front, GET);
        let encoding = answer.field("content-encoding");
        assert_ne!(encoding, Some("gzip"), "{fields}");
        assert_eq!(answer.field("etag"), Some("\"1\""), "{fields}");
        assert!(bytes == body.as_bytes(), "{fields}");
    }
    let backend = answering("Content-Type: text/html\r\n", &long);
    let front = front(compressing(), &backend);
    // What HEAD is told is the length of the text.
    let head = front.client().send(GET.replace("GET", "HEAD")).head();
    assert!(!head.contains("content-encoding"), "{head}");
    let without = Rules::default();
    front.front.change(&super::changed(without, &backend));
    let (answer, _) = ask(&front, GET);
    assert_eq!(answer.field("content-encoding"), None);
    assert_eq!(answer.field("vary"), None);
}

#[test]
fn statuses_without_a_body_have_none() {
    for status in ["204 No Content", "304 Not Modified"] {
        let backend = Backend::start(move |_| {
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nETag: \"1\"\r\n\r\n");
            Reply::Keep(head.into_bytes())
        });
        let front = front(compressing(), &backend);
        let mut client = front.client();
        for _ in 0..2 {
            let head = client.send(GET).head();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
            assert!(!head.contains("content-encoding"), "{head}");
        }
    }
}

#[test]
fn what_was_not_modified_has_the_tag_of_what_the_client_has() {
    const STRONG: &str = "\"1,2\"";
    const WEAK: &str = "W/\"1,2\"";
    let vary = Some("accept-encoding");
    for (fields, has, takes, tag, varies) in [
        ("", "W/\"1,2\"", "gzip", WEAK, vary),
        ("", "\"0\", W/\"1,2\"", "gzip", WEAK, vary),
        ("Content-Type: text/css\r\n", WEAK, "gzip", WEAK, vary),
        // It came as it is.
        ("", STRONG, "gzip", STRONG, vary),
        ("", "W/\"1\", \"1,2\"", "gzip", STRONG, vary),
        // It would now.
        ("", WEAK, "br", STRONG, vary),
        ("Content-Type: image/png\r\n", WEAK, "gzip", STRONG, None),
        (
            "Cache-Control: no-transform\r\n",
            WEAK,
            "gzip",
            STRONG,
            None,
        ),
    ] {
        let backend = Backend::start(move |_| {
            let head = format!("HTTP/1.1 304 Not Modified\r\n{fields}ETag: {STRONG}\r\n\r\n");
            Reply::Keep(head.into_bytes())
        });
        let front = front(compressing(), &backend);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: web\r\nAccept-Encoding: {takes}\r\nIf-None-Match: {has}\r\n\r\n"
        );
        let head = front.client().send(request).head();
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find_map(|(it, value)| (it == name).then_some(value))
        };
        assert_eq!(field("etag"), Some(tag), "{fields}{has} {takes}");
        assert_eq!(field("vary"), varies, "{fields}{has} {takes}");
    }
}

#[test]
fn what_the_backend_has_said_arrives_before_it_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, wait) = std::sync::mpsc::channel();
    let backend = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut client = Client::over(stream);
        client.head();
        client.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        for piece in ["one ", "two ", "three"] {
            wait.recv().unwrap();
            client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        }
        wait.recv().unwrap();
        client.send("0\r\n\r\n");
        // Open until the client has everything.
        let _ = wait.recv();
    });
    let front = TestFront::with(&[]);
    let mut routes = routes(&[address]);
    let web = std::sync::Arc::make_mut(routes.services[0].1.as_mut().unwrap());
    web.rules = Some(compressing().into());
    front.front.publish(&routes, &Settings::default());
    let mut client = front.client();
    client.send(GET);
    assert!(client.head().contains("content-encoding: gzip"));
    let mut all = Vec::new();
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    for told in ["one ", "one two ", "one two three"] {
        go.send(()).unwrap();
        // What was said last is there, whatever comes next.
        while decoder.get_ref().len() < told.len() {
            let chunk = chunk(&mut client);
            assert!(!chunk.is_empty());
            decoder.write_all(&chunk).unwrap();
            decoder.flush().unwrap();
            all.extend(chunk);
        }
        assert_eq!(decoder.get_ref(), told.as_bytes());
    }
    go.send(()).unwrap();
    all.extend(unchunked(&mut client));
    assert_eq!(unzipped(&all), "one two three");
    drop(go);
    backend.join().unwrap();
}

#[test]
fn an_answer_that_is_cut_is_cut_for_the_client_too() {
    let body = text(50_000);
    let backend = Backend::start(move |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 90000\r\n\r\n";
        Reply::Close([head, &*body].concat().into_bytes())
    });
    let front = front(compressing(), &backend);
    let mut client = front.client();
    client.send(GET);
    assert!(client.head().contains("content-encoding: gzip"));
    let mut rest = Vec::new();
    // However the connection ends.
    let _ = client.stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "an end that was none");
    crate::kit::eventually("the reason", || {
        (front.stats().ended(Reason::ResponseTruncated) == 1).then_some(())
    });
}

#[test]
fn many_answers_at_once_are_whole_and_each_connection_goes_on() {
    let body = text(300_000);
    let backend = answering("Content-Type: application/json\r\n", &body);
    let front = front(compressing(), &backend);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = front.client();
                for _ in 0..3 {
                    assert!(client.send(GET).head().contains("gzip"));
                    let zipped = unchunked(&mut client);
                    assert!(unzipped(&zipped) == body, "another text");
                }
            });
        }
    });
}

#[test]
fn an_old_client_gets_it_until_the_connection_ends() {
    let body = text(5_000);
    let backend = answering("Content-Type: text/css\r\n", &body);
    let front = front(compressing(), &backend);
    let mut client = front.client();
    client.send("GET / HTTP/1.0\r\nHost: web\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.head();
    assert!(head.contains("content-encoding: gzip"), "{head}");
    assert!(!head.contains("chunked"), "{head}");
    assert!(unzipped(&client.rest()) == body, "another text");
}
