//! How a connection ends that the client does not keep: with the whole answer, whatever it sent behind its request.

use crate::kit::{Backend, Client, GET, Reply, TestFront, eventually, ok};

const LAST: &str = "Host: web\r\nConnection: close\r\n";

#[test]
fn a_client_that_leaves_gets_its_whole_answer_and_the_end() {
    let body = "x".repeat(300_000);
    let answer = body.clone();
    let backend = Backend::start(move |_| Reply::Keep(ok(&answer)));
    let front = TestFront::with(&[&backend]);
    for (request, behind) in [
        (format!("GET / HTTP/1.1\r\n{LAST}\r\n"), ""),
        ("GET / HTTP/1.0\r\nHost: web\r\n\r\n".into(), ""),
        // An empty line that old clients send.
        (format!("GET / HTTP/1.1\r\n{LAST}\r\n"), "\r\n"),
        (format!("GET / HTTP/1.1\r\n{LAST}\r\n"), GET),
        (
            format!("POST / HTTP/1.1\r\n{LAST}Content-Length: 3\r\n\r\nabc"),
            "\r\n",
        ),
    ] {
        let mut client = Client::connect(front.address);
        client.send(format!("{request}{behind}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
        assert_eq!(client.rest(), b"", "{request:?} {behind:?}");
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_is_not_reset() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = Client::connect(front.address);
    client.send(
        "POST / HTTP/1.1\r\nConnection: close\r\nHost: nobody\r\nContent-Length: 60000\r\n\r\n",
    );
    let answer = client.answer();
    client.send([b'x'; 60_000]);
    assert_eq!(answer.status, 503);
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_client_that_leaves_is_not_waited_for() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = Client::connect(front.address);
    client.send(format!("GET / HTTP/1.1\r\n{LAST}\r\n"));
    assert_eq!(client.answer().body, "a");
    assert_eq!(client.rest(), b"");
    // The client's own end is still open, and yet nothing of the connection is left.
    eventually("the socket is closed", || {
        let peer = socket2::SockRef::from(&client.stream).send(b"x");
        peer.is_err().then_some(())
    });
}
