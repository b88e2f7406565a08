//! Clients over HTTP/2 that take their answers: in small messages, slowly, or not at all.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Response;
use lb_front::{Limits, Reason};

use crate::{
    kit::{Backend, Client, PATIENCE, Reply, TestFront, eventually, ok},
    kit_frames::{
        ASK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, await_frame, frame, sync,
    },
    kit_h2::{H2Backend, front},
};

/// Windows as wide as they may be.
fn open_wide(client: &mut Client) {
    client.send(PREFACE);
    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    client.send(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]));
}

#[test]
fn who_acknowledges_each_small_message_of_a_stream_is_no_flood() {
    const MESSAGES: usize = 2000;
    let backend = H2Backend::start(|mut call| async move {
        let mut body = call.answer.send_response(Response::new(()), false).unwrap();
        for left in (0..MESSAGES).rev() {
            let message = Bytes::from_static(&[b'm'; 50]);
            body.send_data(message, left == 0).unwrap();
        }
    });
    let front = front(Limits::default(), &[backend.address]);
    let mut client = front.client();
    open_wide(&mut client);
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, ASK));
    for left in (0..MESSAGES).rev() {
        let (flags, _, message) = await_frame(&mut client, DATA);
        assert_eq!(message.len(), 50);
        assert_eq!(flags & END_STREAM != 0, left == 0, "{left} are left");
    }
    // As grpc-go does for each; at once, so that it does not matter how fast the machine is.
    let each = [
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 50]),
        frame(PING, 0, 0, &[2; 8]),
    ];
    for _ in 0..MESSAGES {
        client.send(each.concat());
    }
    for _ in 0..MESSAGES {
        await_frame(&mut client, PING);
    }
    sync(&mut client);
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, ASK));
    assert_eq!(await_frame(&mut client, HEADERS).1, 3);
    assert!(front.stats().rejected.is_empty());
}

#[test]
fn who_takes_an_answer_slowly_but_steadily_gets_all_of_it() {
    const WHOLE: usize = 3 << 20;
    let large = "x".repeat(WHOLE);
    let backend = Backend::start(move |_| Reply::Keep(ok(&large)));
    let limits = Limits {
        write_stall: Duration::from_millis(500),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut client = front.client();
    client.send(PREFACE).send(frame(SETTINGS, 0, 0, b""));
    client.send(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]));
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, ASK));
    let (mut taken, mut slowly) = (0, 0);
    while taken < WHOLE {
        let (.., piece) = await_frame(&mut client, DATA);
        taken += piece.len();
        // At first as fast as can be, so that the front reads large pieces of its backend.
        let slow = taken > 1 << 20 && slowly < 400 * 1024;
        if slow {
            // Far more than the limit for a large piece, and far less for a frame: it is time itself that is tried.
            std::thread::sleep(
                Duration::from_millis(10) * u32::try_from(piece.len()).unwrap() / 2048,
            );
            slowly += piece.len();
        }
        let more = u32::try_from(piece.len().max(1)).unwrap().to_be_bytes();
        client.send(frame(WINDOW_UPDATE, 0, 1, &more));
    }
    assert_eq!(taken, WHOLE);
    eventually("it is counted", || {
        (front.stats().ended(Reason::Ok) == 1).then_some(())
    });
}

#[test]
fn answers_that_the_front_gives_up_are_not_taken_back_by_the_client() {
    let large = "x".repeat(64 * 1024);
    let backend = Backend::start(move |_| Reply::Keep(ok(&large)));
    let limits = Limits {
        write_stall: Duration::from_millis(100),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut client = front.client();
    // No window at all.
    client
        .send(PREFACE)
        .send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let streams: Vec<u32> = (1..400).step_by(2).collect();
    for some in streams.chunks(50) {
        for &stream in some {
            client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, ASK));
        }
        for _ in some {
            await_frame(&mut client, RST_STREAM);
        }
    }
    sync(&mut client);
    let stats = front.stats();
    assert!(stats.rejected.is_empty(), "{stats:?}");
    assert_eq!(stats.accepted, 1);
}

/// A client that asks `times` and whose windows have room for a byte each: hyper gets all of each answer, and is done with it.
fn barely_open(front: &TestFront, times: u32) -> Client {
    let mut client = front.client();
    client.send(PREFACE);
    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]));
    for time in 0..times {
        let stream = 2 * time + 1;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, ASK));
    }
    for _ in 0..times {
        assert_eq!(await_frame(&mut client, DATA).2, b"x");
    }
    client
}

fn middling() -> Backend {
    let body = "x".repeat(12 * 1024);
    Backend::start(move |_| Reply::Keep(ok(&body)))
}

#[test]
fn who_does_not_take_the_end_of_answers_is_left() {
    let limits = Limits {
        write_stall: Duration::from_millis(100),
        keep_alive: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&middling()]);
    let mut client = barely_open(&front, 50);
    // It goes on to ask for answers of more than a hundred bytes, of which there is nothing to take, and is no flood.
    let begin = Instant::now();
    while front.stats().open > 0 {
        assert!(begin.elapsed() < PATIENCE, "it holds on to them");
        client.send(frame(PING, 0, 0, &[7; 8]).repeat(20));
        std::thread::sleep(Duration::from_millis(50));
    }
    let stats = front.stats();
    assert!(stats.rejected.is_empty(), "{stats:?}");
}

#[test]
fn ends_of_answers_that_nobody_takes_count_as_requests_of_their_client() {
    let limits = Limits {
        connections_per_client: 50,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&middling()]);
    let mut client = barely_open(&front, 49);
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 99, ASK));
    assert_eq!(await_frame(&mut client, HEADERS).1, 99);
    assert_eq!(front.stats().ended(Reason::Limit), 1);
    // They are taken, all but the one byte of each.
    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
    client.send(frame(WINDOW_UPDATE, 0, 0, &[0, 0x10, 0, 0]));
    let mut ended = 0;
    while ended < 49 {
        let (flags, stream, _) = await_frame(&mut client, DATA);
        ended += usize::from(flags & END_STREAM != 0 && stream < 99);
    }
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 101, ASK));
    await_frame(&mut client, HEADERS);
    assert_eq!(await_frame(&mut client, DATA).1, 101);
    assert_eq!(front.stats().ended(Reason::Limit), 1);
}

#[test]
fn ends_of_answers_that_nobody_takes_keep_no_front() {
    let mut front = TestFront::start_for(Limits::default(), 1, Duration::from_millis(300));
    front.publish(&[middling().address]);
    let client = barely_open(&front, 50);
    let stats = front.drain().join().unwrap();
    assert_eq!(stats.open, 0, "{stats:?}");
    drop(client);
}
