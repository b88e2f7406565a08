//! Follows the frames of an HTTP/2 stream, just far enough to tell those that ask for something from those that only
//! make work.

/// Where a client's stream stands.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Of the preface, then of the payload of the present frame: bytes still to come.
    left: u32,
    head: [u8; HEAD],
    /// How much of the next head is there.
    have: usize,
}

impl Frames {
    /// A stream that begins with its preface.
    pub(crate) fn new() -> Self {
        Self {
            left: PREFACE,
            head: [0; HEAD],
            have: 0,
        }
    }

    /// Reads on; how many frames began that are neither a request nor part of one.
    pub(crate) fn scan(&mut self, mut bytes: &[u8]) -> u32 {
        let mut idle = 0;
        loop {
            let skipped = bytes.len().min(self.left as usize);
            // Not above `left`.
            self.left -= u32::try_from(skipped).unwrap_or(self.left);
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return idle;
            }
            let taken = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                self.have = 0;
                let [high, middle, low, kind, ..] = self.head;
                self.left = u32::from_be_bytes([0, high, middle, low]);
                let asks = matches!(kind, DATA | HEADERS | CONTINUATION) && self.left > 0;
                idle += u32::from(!asks);
            }
        }
    }
}

/// RFC 9113 section 4.1.
const HEAD: usize = 9;
const PREFACE: u32 = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD + usize::from(length), 0xff);
        frame
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let all = [
            vec![b'P'; 24],
            frame(4, 6),
            frame(1, 40),
            frame(0, 200),
            frame(0, 0),
            frame(6, 8),
            frame(9, 1),
            frame(8, 4),
            frame(0xbe, 255),
            frame(3, 4),
        ]
        .concat();
        for cut in 1..all.len() {
            let mut frames = Frames::new();
            let idle: u32 = all.chunks(cut).map(|piece| frames.scan(piece)).sum();
            assert_eq!(idle, 6, "pieces of {cut}");
        }
    }
}
