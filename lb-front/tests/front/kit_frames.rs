//! A client that writes and reads the frames of HTTP/2 itself.

use crate::kit::{Client, TestFront};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;
pub(crate) const ENHANCE_YOUR_CALM: u8 = 0xb;

/// `GET /` of `http://web`, from the static table.
pub(crate) const ASK: &[u8] = b"\x82\x86\x84\x01\x03web";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A client that has said what each must.
pub(crate) fn client(front: &TestFront) -> Client {
    let mut client = front.client();
    client.send(PREFACE).send(frame(SETTINGS, 0, 0, b""));
    client
}

/// The next frame of this kind: flags, stream and payload.
#[track_caller]
pub(crate) fn await_frame(client: &mut Client, kind: u8) -> (u8, u32, Vec<u8>) {
    loop {
        let head = client.bytes(9);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = client.bytes(length);
        if head[3] == kind {
            let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
            return (head[4], stream, payload);
        }
    }
}

/// Waits until the front has read everything up to here.
pub(crate) fn sync(client: &mut Client) {
    client.send(frame(PING, 0, 0, &[7; 8]));
    assert_eq!(await_frame(client, PING).0, ACK);
}
