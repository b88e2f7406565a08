//! What agent and front say to each other. Either may be of another version than the other.

use futures_util::FutureExt as _;
use serde::{Serialize, de::DeserializeOwned};

use crate::control::{self, Hello, Order, Report};

/// The JSON of a message, and the same bytes as a stream of them.
pub fn front_messages(data: &[u8]) {
    said::<Hello>(data);
    said::<Order>(data);
    said::<Report>(data);
    let mut stream = data;
    // Whatever is announced, no more is taken than came.
    while let Some(Ok(Some(order))) = received::<Order>(&mut stream) {
        said_again(&order);
    }
}

fn said<T: Serialize + DeserializeOwned>(json: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(json) {
        said_again(&message);
    }
}

/// What is understood is said in the same words again, and two messages do not become one.
fn said_again<T: Serialize + DeserializeOwned>(message: &T) {
    let Ok(frame) = control::encode(message) else {
        panic!("a message that was read cannot be written");
    };
    let stream = [&frame[..], &frame[..], &frame[..frame.len() - 1]].concat();
    let mut stream = &stream[..];
    for _ in 0..2 {
        let again = received::<T>(&mut stream).and_then(Result::ok).flatten();
        let again = again.and_then(|it| control::encode(&it).ok());
        assert_eq!(again.as_deref(), Some(&frame[..]));
    }
    // A sender that ends in the midst has said nothing.
    let cut = received::<T>(&mut stream);
    assert!(matches!(cut, Some(Ok(None))));
}

/// The next message; bytes in memory are never waited for.
fn received<T: DeserializeOwned>(stream: &mut &[u8]) -> Option<std::io::Result<Option<T>>> {
    control::receive(stream).now_or_never()
}
