//! Clients over HTTP/2 that take their answers: in small messages, slowly, or not at all.

use bytes::Bytes;
use hyper::Response;
use lb_front::Limits;

use crate::{
    kit::Client,
    kit_frames::{
        ASK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE,
        await_frame, frame, sync,
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
