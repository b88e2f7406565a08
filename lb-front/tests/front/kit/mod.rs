//! A client and a backend that show every byte, and a front between them.

mod backend;
mod client;
mod front;

use std::{
    thread,
    time::{Duration, Instant},
};

pub(crate) use self::{
    backend::{Backend, Reply, Seen, ok, refusing},
    client::{Answer, Client},
    front::{TestFront, routes},
};

/// Nothing here takes longer unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// Waits until `condition` gives something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "still not so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A `line` of the access log with `T` for moments and times, which are the only numbers with a point or in brackets.
pub(crate) fn golden(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let time = word.split_once('.').is_some_and(|(whole, part)| {
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            part.len() == 3 && digits(whole) && digits(part)
        });
        let moment = word.starts_with('[') || word == "+0000]";
        if time || moment { "T" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}
