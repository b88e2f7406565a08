//! A backend's body on its way through gzip. It goes on piece by piece: nothing waits for the end of the body, and what
//! the backend has said so far reaches the client when it pauses.

use std::{
    cell::{Cell, RefCell},
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use hyper::{HeaderMap, body::Frame};

use super::download::Passed;
use crate::answer::Reason;

pub(crate) struct Compressed {
    passed: Passed,
    gzip: Gzip,
    /// What of the last frame is still to be compressed.
    input: Bytes,
    trailers: Option<HeaderMap>,
    at: At,
    /// Whether a pause of the backend is the client's to see.
    flushes: bool,
    /// Bytes that may be compressed before others have a turn.
    budget: usize,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Body,
    /// The backend pauses, and some of what it said is still in the compressor.
    Pause,
    /// The backend's body has ended.
    End,
    Over,
}

impl Compressed {
    pub(super) fn new(passed: Passed, gzip: Gzip) -> Self {
        Self {
            // The end of a body whose length is known comes soon enough.
            flushes: passed.incoming.size_hint().exact().is_none(),
            passed,
            gzip,
            input: Bytes::new(),
            trailers: None,
            at: At::Body,
            budget: BUDGET,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over && self.trailers.is_none()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let flush = match self.at {
                At::Over => {
                    let trailers = self.trailers.take().map(|it| Ok(Frame::trailers(it)));
                    return Poll::Ready(trailers);
                }
                At::Body if self.input.is_empty() => match self.passed.poll_uncounted(cx) {
                    Poll::Pending if self.flushes && self.gzip.holds => {
                        self.at = At::Pause;
                        continue;
                    }
                    polled => {
                        self.take(ready!(polled).transpose()?);
                        continue;
                    }
                },
                At::Body => FlushCompress::None,
                At::Pause => FlushCompress::Sync,
                At::End if self.input.is_empty() => FlushCompress::Finish,
                At::End => FlushCompress::None,
            };
            if self.budget == 0 {
                self.budget = BUDGET;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let piece = self.input.len().min(self.budget);
            let (taken, done) = self.gzip.run(&self.input[..piece], flush)?;
            self.budget -= taken;
            drop(self.input.split_to(taken));
            match self.at {
                At::Pause if done => self.at = At::Body,
                At::End if done && flush == FlushCompress::Finish => {
                    self.at = At::Over;
                    self.passed.exchange.end(Reason::Ok);
                }
                _ => {}
            }
            if let Some(output) = self.gzip.output() {
                self.passed.exchange.passed_down(output.len());
                return Poll::Ready(Some(Ok(Frame::data(output))));
            }
        }
    }

    /// What came from the backend.
    fn take(&mut self, frame: Option<Frame<Bytes>>) {
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => self.input = data,
            Some(Err(frame)) => self.trailers = frame.into_trailers().ok(),
            None => self.at = At::End,
        }
        if self.trailers.is_some() || self.passed.incoming.is_end_stream() {
            self.at = At::End;
        }
        if self.at == At::End {
            // Some of it is still here.
            self.passed.exchange.end(Reason::ClientAbort);
        }
    }
}

/// A compressor with a place among those of this worker.
pub(super) struct Gzip {
    /// Taken by its drop.
    compress: Option<Compress>,
    output: Vec<u8>,
    /// Whether it was given something that a flush would bring out.
    holds: bool,
    /// Whether its stream has ended.
    ended: bool,
}

impl Gzip {
    /// `None` while this worker compresses as much as it may.
    pub(super) fn begin() -> Option<Self> {
        let open = OPEN.get();
        if open >= MOST {
            return None;
        }
        OPEN.set(open + 1);
        let spare = SPARE.with_borrow_mut(Vec::pop);
        let new = || Compress::new_gzip(Compression::new(LEVEL), WINDOW_BITS);
        Some(Self {
            compress: Some(spare.unwrap_or_else(new)),
            output: Vec::new(),
            holds: false,
            ended: false,
        })
    }

    /// Compresses `input` as far as there is room; says how much that was, and whether a flush has come to its end.
    fn run(&mut self, input: &[u8], flush: FlushCompress) -> io::Result<(usize, bool)> {
        let Some(compress) = &mut self.compress else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        self.output
            .reserve_exact(OUTPUT.saturating_sub(self.output.len()));
        let before = compress.total_in();
        let status = compress.compress_vec(input, &mut self.output, flush);
        let status = status.map_err(io::Error::other)?;
        let taken = usize::try_from(compress.total_in() - before).unwrap_or(usize::MAX);
        let room = self.output.len() < self.output.capacity();
        let done = match flush {
            FlushCompress::Finish => self.ended,
            _ => room,
        };
        self.ended = status == Status::StreamEnd;
        self.holds = match flush {
            FlushCompress::None => self.holds || taken > 0,
            _ => !done,
        };
        Ok((taken, done))
    }

    /// What has come out.
    fn output(&mut self) -> Option<Bytes> {
        let output = std::mem::take(&mut self.output);
        if output.is_empty() {
            self.output = output;
            return None;
        }
        Some(output.into())
    }
}

impl Drop for Gzip {
    fn drop(&mut self) {
        OPEN.set(OPEN.get().saturating_sub(1));
        // Another one cannot be used again: zlib-rs forgets to forget an open block.
        let Some(mut compress) = self.compress.take().filter(|_| self.ended) else {
            return;
        };
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARES {
                compress.reset();
                spare.push(compress);
            }
        });
    }
}

thread_local! {
    /// Compressors of this worker that are at work.
    static OPEN: Cell<usize> = const { Cell::new(0) };
    /// Some that are not: making one costs as much as compressing a small answer.
    static SPARE: RefCell<Vec<Compress>> = const { RefCell::new(Vec::new()) };
}

/// The next one makes texts a quarter shorter, and takes more than three times as long.
const LEVEL: u32 = 1;
/// With this window a compressor takes some 330 KB.
const WINDOW_BITS: u8 = 15;
/// Compressors of one worker, and of those that are kept.
const MOST: usize = 256;
const SPARES: usize = 4;
/// Bytes that are compressed in a row, in a fraction of a millisecond.
const BUDGET: usize = 32 * 1024;
/// Room for a piece of output.
const OUTPUT: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    /// All that comes out for `input`.
    fn compress(gzip: &mut Gzip, mut input: &[u8], flush: FlushCompress) -> Vec<u8> {
        let mut output = Vec::new();
        loop {
            let (taken, done) = gzip.run(input, flush).unwrap();
            input = &input[taken..];
            output.extend(gzip.output().unwrap_or_default());
            if done && input.is_empty() {
                return output;
            }
        }
    }

    /// Something that can be compressed, but not to nothing.
    fn text(length: usize, seed: u32) -> impl Iterator<Item = u8> {
        let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let states = std::iter::successors(Some(seed), next);
        states
            .map(|state| b"aaaaabbc"[state as usize >> 29])
            .take(length)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Compressors are used again, in whatever state they were left.
        #[test]
        fn what_was_said_before_a_pause_can_be_read_then(
            pieces in proptest::collection::vec((0..50_000_usize, any::<u32>(), any::<bool>()), 0..6),
            ends: bool,
        ) {
            let mut gzip = Gzip::begin().unwrap();
            let mut decoder = GzDecoder::new(Vec::new());
            let mut said: Vec<u8> = Vec::new();
            for &(length, seed, pauses) in &pieces {
                let before = said.len();
                said.extend(text(length, seed));
                let mut output = compress(&mut gzip, &said[before..], FlushCompress::None);
                prop_assert!(gzip.holds || length == 0);
                if pauses {
                    output.extend(compress(&mut gzip, &[], FlushCompress::Sync));
                    prop_assert!(!gzip.holds);
                }
                decoder.write_all(&output).unwrap();
                decoder.flush().unwrap();
                if pauses {
                    prop_assert!(*decoder.get_ref() == said);
                }
            }
            if ends {
                decoder.write_all(&compress(&mut gzip, &[], FlushCompress::Finish)).unwrap();
                prop_assert!(decoder.finish().unwrap() == said);
            }
        }
    }

    #[test]
    fn a_worker_has_so_many_compressors_and_keeps_a_few() {
        let mut all: Vec<_> = (0..MOST).map(|_| Gzip::begin().unwrap()).collect();
        assert!(Gzip::begin().is_none());
        all.truncate(MOST - 1);
        assert!(Gzip::begin().is_some());
        assert_eq!(SPARE.with_borrow(Vec::len), 0, "unfinished ones");
        for gzip in all.iter_mut().take(SPARES + 1) {
            compress(gzip, b"text", FlushCompress::Finish);
        }
        drop(all);
        assert_eq!(OPEN.get(), 0);
        assert_eq!(SPARE.with_borrow(Vec::len), SPARES);
    }
}
