//! HTTP/2 clients that make work without asking for anything, byte by byte.

use std::{io::Read as _, time::Duration};

use lb_front::{Limits, Reason};

use crate::{
    kit::{Backend, Client, GET, Reply, TestFront, eventually, ok},
    kit_frames::{
        ACK, ASK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS,
        PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, await_frame, client, frame,
        sync,
    },
};

/// All that came until the end, which may be a reset.
fn until_closed(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match client.stream.read(&mut piece) {
            Ok(read @ 1..) => all.extend_from_slice(&piece[..read]),
            Ok(0) => return all,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("still open: {error}"),
        }
    }
}

#[track_caller]
fn assert_refused(front: &TestFront, backend: &Backend, reason: &str) {
    eventually("it is counted", || {
        front.stats().rejected.get(reason).copied()
    });
    eventually("its place is free", || {
        (front.stats().open == 0).then_some(())
    });
    eventually("the backend is free", || {
        (front.ask(GET).status == 200 && backend.open() <= 1).then_some(())
    });
}

#[test]
fn a_client_that_answers_no_ping_is_taken_for_gone() {
    let backend = Backend::named("a");
    let limits = Limits {
        client_silence: Duration::from_millis(100),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut client = client(&front);
    for _ in 0..3 {
        let (flags, _, payload) = await_frame(&mut client, PING);
        assert_eq!(flags, 0);
        client.send(frame(PING, ACK, 0, &payload));
    }
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, ASK));
    let (_, stream, body) = await_frame(&mut client, DATA);
    assert_eq!((stream, &body[..]), (1, &b"a"[..]));
    // From here on it is silent, and was asked once more.
    await_frame(&mut client, PING);
    until_closed(&mut client);
    eventually("its place is free", || {
        (front.stats().open == 0).then_some(())
    });
    assert!(front.stats().rejected.is_empty());
}

#[test]
fn requests_that_are_taken_back_at_once_end_the_connection() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = client(&front);
    let mut all = Vec::new();
    for stream in (1..4000).step_by(2) {
        all.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, ASK));
        all.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    client.send(all);
    until_closed(&mut client);
    assert_refused(&front, &backend, "http_2");
}

#[test]
fn requests_that_are_taken_back_later_end_the_connection_too() {
    let backend = Backend::start(|seen| {
        if seen.head.contains("POST") {
            return Reply::Keep(ok("good"));
        }
        Reply::Stall(Vec::new())
    });
    let front = TestFront::with(&[&backend]);
    let mut client = client(&front);
    let mut stream = 1;
    for _ in 0..11 {
        let begin = stream;
        for _ in 0..10 {
            client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, ASK));
            stream += 2;
        }
        sync(&mut client);
        eventually("they are there", || (backend.open() >= 10).then_some(()));
        for stream in (begin..stream).step_by(2) {
            client.send(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        }
        eventually("they are gone", || (backend.open() == 0).then_some(()));
    }
    client.send(frame(PING, 0, 0, &[7; 8]));
    let (_, _, goaway) = await_frame(&mut client, GOAWAY);
    assert_eq!(goaway[7], ENHANCE_YOUR_CALM);
    until_closed(&mut client);
    eventually("it is counted", || {
        front.stats().rejected.get("http_2_resets").copied()
    });
    let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(front.ask(post).body, "good");
    assert_eq!(front.stats().ended(Reason::ClientAbort), 110);
}

#[test]
fn frames_that_ask_for_nothing_are_borne_to_a_degree() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let few = |frame: Vec<u8>| {
        let mut client = client(&front);
        client.send(frame.repeat(500));
        client.send(self::frame(HEADERS, END_HEADERS | END_STREAM, 1, ASK));
        assert_eq!(await_frame(&mut client, HEADERS).1, 1);
        assert_eq!(await_frame(&mut client, DATA).2, b"a");
    };
    few(frame(PING, 0, 0, &[7; 8]));
    few(frame(SETTINGS, 0, 0, b""));
    few(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]));
    let floods = [
        frame(PING, 0, 0, &[7; 8]),
        frame(PING, ACK, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, b""),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(0xbe, 0, 0, b""),
    ];
    for (times, many) in (1..).zip(floods) {
        let mut client = client(&front);
        let mut reader = Client::over(client.stream.try_clone().unwrap());
        let reader = std::thread::spawn(move || until_closed(&mut reader));
        // More than in any second, and it takes the answers.
        for _ in 0..100 {
            client.send(many.repeat(100));
        }
        reader.join().unwrap();
        eventually("it is counted", || {
            (front.stats().rejected.get("http_2_flood") == Some(&times)).then_some(())
        });
    }
    assert_refused(&front, &backend, "http_2_flood");
}

#[test]
fn what_belongs_to_http_1_or_leaves_http_resets_the_request() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = client(&front);
    let mut stream = 1;
    for field in [
        &b"\x00\x0aconnection\x07upgrade"[..],
        b"\x00\x07upgrade\x09websocket",
        b"\x00\x11transfer-encoding\x07chunked",
        b"\x00\x02te\x04gzip",
        b"\x82",
    ] {
        let head = [ASK, field].concat();
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
        assert_eq!(await_frame(&mut client, RST_STREAM).1, stream, "{field:x?}");
        stream += 2;
    }
    let extended = b"\x02\x07CONNECT\x86\x84\x01\x03web\x00\x09:protocol\x09websocket";
    client.send(frame(HEADERS, END_HEADERS, stream, extended));
    assert_eq!(await_frame(&mut client, RST_STREAM).1, stream);
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream + 2, ASK));
    assert_eq!(await_frame(&mut client, DATA).2, b"a");
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn a_head_without_end_is_refused() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for piece in [&b""[..], b"\x84", &[0x84; 8000]] {
        let mut client = client(&front);
        client.send(frame(HEADERS, 0, 1, ASK));
        for _ in 0..2000 {
            client.send(frame(CONTINUATION, 0, 1, piece));
        }
        until_closed(&mut client);
    }
    assert_eq!(backend.seen().len(), 0);
    assert_eq!(front.ask(GET).body, "a");
}

#[test]
fn a_byte_that_stands_for_kilobytes_is_counted_as_what_it_stands_for() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = client(&front);
    // Puts a long value into the table, then names it again and again.
    let head = |times: usize| {
        let mut head = ASK.to_vec();
        head.extend(b"\x40\x01x\x7f\x81\x1e");
        head.extend([b'v'; 127 + 0xf01]);
        head.resize(head.len() + times, 0xbe);
        head
    };
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(20)));
    let (_, stream, answer) = await_frame(&mut client, HEADERS);
    assert_eq!(stream, 1);
    // `:status` 431 is not in the static table: a literal of three digits, perhaps in Huffman's code.
    assert!(answer.len() >= 4 && answer[0] & 0x3f == 8, "{answer:x?}");
    // The connection is good.
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, ASK));
    assert_eq!(await_frame(&mut client, DATA).2, b"a");
    // That is no mistake any more.
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 5, &head(8000)));
    assert_eq!(await_frame(&mut client, GOAWAY).2[7], ENHANCE_YOUR_CALM);
    until_closed(&mut client);
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn a_preface_and_silence_is_an_idle_connection() {
    let backend = Backend::named("a");
    let limits = Limits {
        keep_alive: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut clients = [client(&front), client(&front)];
    // A head that does not end.
    clients[1].send(frame(HEADERS, 0, 1, ASK));
    for mut client in clients {
        assert_eq!(await_frame(&mut client, GOAWAY).2[7], 0);
        // It does not answer the ping that goes with it.
        until_closed(&mut client);
    }
    eventually("their places are free", || {
        (front.stats().open == 0).then_some(())
    });
}

#[test]
fn a_client_that_reads_nothing_is_cut() {
    let large = "x".repeat(1024 * 1024);
    let backend = Backend::start(move |_| Reply::Keep(ok(&large)));
    let limits = Limits {
        write_stall: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut client = front.client();
    client.send(PREFACE);
    // Windows as wide as they may be.
    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    client.send(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]));
    for stream in (1..200).step_by(2) {
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, ASK));
    }
    eventually("it is cut", || {
        (front.stats().accepted == 1 && front.stats().open == 0).then_some(())
    });
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
    assert!(front.stats().ended(Reason::ClientAbort) > 0);
}

/// `HEAD /` of `http://web`: an answer without a body needs no window.
const LOOK: &[u8] = b"\x02\x04HEAD\x86\x84\x01\x03web";

/// What a client saw of a connection on which it asks as long as it can, at most this many at a time.
struct Asker {
    client: Client,
    asked: usize,
    answered: usize,
    /// How much was asked when each GOAWAY came, the last stream in it, and its code.
    goaways: Vec<(usize, u32, u32)>,
}

impl Asker {
    fn new(front: &TestFront) -> Self {
        let client = client(front);
        let (asked, answered, goaways) = (0, 0, Vec::new());
        Self {
            client,
            asked,
            answered,
            goaways,
        }
    }

    fn ask(&mut self, count: usize) {
        let mut all = Vec::new();
        for _ in 0..count {
            let stream = u32::try_from(2 * self.asked + 1).unwrap();
            all.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, LOOK));
            self.asked += 1;
        }
        self.client.send(all);
    }

    /// Takes a frame; pings are answered if the client is `polite`. `false` at the end.
    fn take(&mut self, polite: bool) -> bool {
        let mut head = [0; 9];
        if self.client.stream.read_exact(&mut head).is_err() {
            return false;
        }
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let mut payload = vec![0; word(&[0, head[0], head[1], head[2]]) as usize];
        if self.client.stream.read_exact(&mut payload).is_err() {
            return false;
        }
        match head[3] {
            HEADERS => self.answered += 1,
            GOAWAY => {
                let (last, code) = (word(&payload[..4]), word(&payload[4..8]));
                self.goaways.push((self.asked, last, code));
            }
            PING if polite && head[4] & ACK == 0 => {
                self.client.send(frame(PING, ACK, 0, &payload));
            }
            _ => {}
        }
        true
    }
}

#[test]
fn a_connection_is_left_after_ten_thousand_requests_and_loses_none() {
    let front = TestFront::with(&[]);
    let mut asker = Asker::new(&front);
    while asker.goaways.is_empty() {
        asker.ask(100);
        while asker.answered < asker.asked && asker.take(true) {}
        assert!(asker.asked < 20_000, "it goes on for ever");
    }
    // It ends when everything is answered.
    while asker.take(true) {}
    assert_eq!(asker.answered, asker.asked);
    assert!((10_000..10_300).contains(&asker.asked), "{}", asker.asked);
    let last = u32::try_from(2 * asker.asked - 1).unwrap();
    let (_, at, code) = *asker.goaways.last().unwrap();
    assert_eq!((at, code), (last, 0), "{:?}", asker.goaways);
    assert!(front.stats().rejected.is_empty());
    // What could not know of it goes on elsewhere.
    let mut again = Asker::new(&front);
    again.ask(1);
    while again.answered == 0 {
        assert!(again.take(true));
    }
}

#[test]
fn a_client_that_does_not_leave_is_left_after_twice_as_many() {
    let front = TestFront::with(&[]);
    let mut asker = Asker::new(&front);
    loop {
        asker.ask(100);
        while asker.answered < asker.asked && asker.take(false) {}
        if asker.answered < asker.asked {
            break;
        }
        assert!(asker.asked < 30_000, "it goes on for ever");
    }
    assert!((20_000..20_300).contains(&asker.asked), "{}", asker.asked);
    let (when, ..) = asker.goaways[0];
    assert!((10_000..10_300).contains(&when), "{when}");
    eventually("its place is free", || {
        (front.stats().open == 0).then_some(())
    });
}
