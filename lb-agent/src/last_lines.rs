//! The last lines of the log, kept in memory for whoever is to help: where the journal is not at hand, or was turned over.
//! Bounded in lines and in bytes. Owned by the log, which adds to it, and read by the admin interface.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// The lines, shared by who adds and who reads.
#[derive(Clone, Debug, Default)]
pub struct LastLines(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Box<str>>,
    bytes: usize,
    dropped: u64,
}

/// What is kept at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kept {
    /// Older lines that were dropped.
    pub dropped: u64,
    /// The others, oldest first.
    pub lines: Vec<String>,
}

impl LastLines {
    /// Adds a line, without its end.
    pub fn add(&self, line: &str) {
        let end = line.floor_char_boundary(LINE);
        let mut line = line[..end].to_owned() + if end < line.len() { "…" } else { "" };
        line.shrink_to_fit();
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += line.len();
        ring.lines.push_back(line.into());
        while ring.lines.len() > LINES || ring.bytes > BYTES {
            let Some(oldest) = ring.lines.pop_front() else {
                break;
            };
            ring.bytes -= oldest.len();
            ring.dropped += 1;
        }
    }

    /// All that are kept.
    pub fn read(&self) -> Kept {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Kept {
            dropped: ring.dropped,
            lines: ring.lines.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Lines that are kept.
const LINES: usize = 1_000;
/// Bytes of all of them.
const BYTES: usize = 256 * 1024;
/// Bytes of one.
const LINE: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_in_order_and_it_is_told_how_many_are_gone() {
        let lines = LastLines::default();
        assert_eq!(lines.read(), Kept::default());
        for number in 0..LINES + 3 {
            lines.add(&format!("line {number}"));
        }
        let kept = lines.read();
        assert_eq!((kept.lines.len(), kept.dropped), (LINES, 3));
        assert_eq!(kept.lines[0], "line 3");
        assert_eq!(kept.lines[LINES - 1], format!("line {}", LINES + 2));
    }

    #[test]
    fn neither_a_long_line_nor_many_take_more_than_there_is_room_for() {
        let lines = LastLines::default();
        lines.add(&"ü".repeat(LINE));
        let long = &lines.read().lines[0];
        assert!(long.ends_with("ü…") && long.len() <= LINE + "…".len());
        for _ in 0..LINES {
            lines.add(&"x".repeat(1_000));
        }
        let kept = lines.read();
        let bytes: usize = kept.lines.iter().map(String::len).sum();
        assert!(bytes <= BYTES && bytes > BYTES - 1_000, "{bytes}");
    }
}
