//! Says on a terminal what takes long, and takes it back.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Something that goes on until this is dropped.
#[must_use]
pub struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Says `what` goes on and for how long, if it is not over soon. Only people are told.
    pub fn start(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let (end, ended) = mpsc::channel();
        let thread = thread::spawn(move || tell(&ended, &mut io::stderr(), what, SOON));
        Self(Some((end, thread)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.0.take() {
            drop(end);
            // What is printed next begins on a clean line. It has nothing to panic about.
            let _ = thread.join();
        }
    }
}

fn tell(ended: &Receiver<()>, err: &mut dyn Write, what: &str, soon: Duration) {
    let start = Instant::now();
    let (mut wait, mut told) = (soon, false);
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        // If standard error is gone, nobody waits to be told.
        let _ = write!(err, "\r\x1b[K{what}, {} s", start.elapsed().as_secs());
        let _ = err.flush();
        (wait, told) = (EVERY, true);
    }
    if told {
        let _ = write!(err, "\r\x1b[K");
        let _ = err.flush();
    }
}

/// What is over before is not worth a word.
const SOON: Duration = Duration::from_millis(300);
/// Between two words.
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal on which what goes on ends with the first word.
    struct Ends(Option<Sender<()>>, Vec<u8>);

    impl Write for Ends {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = None;
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_word_is_taken_back_and_what_is_over_soon_gets_none() {
        let (end, ended) = mpsc::channel();
        let mut err = Ends(Some(end), Vec::new());
        tell(&ended, &mut err, "listing flows", Duration::ZERO);
        let text = String::from_utf8(err.1).unwrap();
        assert_eq!(text, "\r\x1b[Klisting flows, 0 s\r\x1b[K");

        let (end, ended) = mpsc::channel();
        drop(end);
        let mut err = Ends(None, Vec::new());
        tell(&ended, &mut err, "listing flows", Duration::ZERO);
        assert_eq!(err.1, b"");
    }
}
