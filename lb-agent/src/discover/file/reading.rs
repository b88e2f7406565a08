//! Reads one content of the file after the other, and of each only what changed since the last. Pure.
//!
//! A large file mostly changes in one place. The text is cut before every line that begins with `[[service]]`; a block
//! that stands in the last text, too, is not read again. Blocks that are TOML each by itself are TOML together, with
//! the same meaning. If one of them is not (the cut may lie within a string of several lines), the whole text is read
//! as one, which also finds each mistake at its line.

use super::parse::{Common, Declared, FileError, catalog, declared, parse};
use crate::catalog::Catalog;

/// The last good content.
#[derive(Debug, Default)]
pub(super) struct Reading {
    text: String,
    /// Its blocks, one after the other; none if it cannot be cut.
    blocks: Vec<Block>,
}

/// A piece of the text. All but the first begin with [`CUT`].
#[derive(Debug)]
struct Block {
    /// Bytes.
    length: usize,
    /// Ends of lines in it.
    lines: usize,
    services: Vec<Declared>,
}

impl Reading {
    /// The catalog of `text`. What stands in the catalog `before`, too, keeps its allocation.
    ///
    /// # Errors
    ///
    /// All mistakes of form; the last good content stays the last.
    pub(super) fn read(&mut self, text: String, before: &Catalog) -> Result<Catalog, FileError> {
        let Some(Changed { head, tail, blocks }) = self.changed(&text, before) else {
            let catalog = parse(&text)?;
            *self = Self::default();
            return Ok(catalog);
        };
        let end = self.blocks.len() - tail;
        self.blocks.splice(head..end, blocks);
        self.text = text;
        let mut line = 0;
        let mut placed = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            placed.extend(block.services.iter().map(|service| (line, service)));
            line += block.lines;
        }
        Ok(catalog(&placed))
    }

    /// What is new in `text`; `None` if that must be read as one.
    fn changed(&self, text: &str, before: &Catalog) -> Option<Changed> {
        if text.trim_start().is_empty() {
            return None;
        }
        let (old, new) = (self.text.as_bytes(), text.as_bytes());
        let prefix = common_prefix(old, new);
        let longest = old.len().min(new.len()) - prefix;
        let suffix = common_suffix(old, new).min(longest);

        // A block stays if it and the beginning of the next one, which ends it, lie in what is the same.
        let mut start = 0;
        let mut head = 0;
        for block in &self.blocks {
            if start + block.length + CUT.len() > prefix {
                break;
            }
            start += block.length;
            head += 1;
        }
        // At the other end, if the end of the line before it does, too.
        let mut rest = 0;
        let mut tail = 0;
        for block in self.blocks[head..].iter().rev() {
            if rest + block.length + 1 > suffix {
                break;
            }
            rest += block.length;
            tail += 1;
        }

        let mut common = Common::default();
        let mut blocks = Vec::new();
        for piece in pieces(text.get(start..text.len() - rest)?) {
            // What stands before the first cut must leave the list of services to the others.
            if start == 0 && blocks.is_empty() && !piece.starts_with(CUT) && !is_bare(piece) {
                return None;
            }
            let mut services = declared(piece, &mut common).ok()?;
            for service in &mut services {
                service.keep(before);
            }
            blocks.push(Block {
                length: piece.len(),
                lines: piece.bytes().filter(|&byte| byte == b'\n').count(),
                services,
            });
        }
        Some(Changed { head, tail, blocks })
    }
}

/// Blocks that take the place of all but the first `head` and the last `tail` of the last text.
struct Changed {
    head: usize,
    tail: usize,
    blocks: Vec<Block>,
}

/// Where a block begins.
const CUT: &str = "[[service]]";

/// `text`, cut before each line that begins with [`CUT`].
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = rest.find("\n[[service]]").map_or(rest.len(), |at| at + 1);
        let (piece, after) = rest.split_at(next);
        rest = after;
        Some(piece)
    })
}

/// Whether only comments and blank lines stand in `text`.
fn is_bare(text: &str) -> bool {
    text.lines()
        .map(str::trim_start)
        .all(|line| line.is_empty() || line.starts_with('#'))
}

fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    // Whole chunks first: those are compared by the fastest means there is.
    let chunks = one.chunks_exact(CHUNK).zip(other.chunks_exact(CHUNK));
    let same = chunks.take_while(|(one, other)| one == other).count() * CHUNK;
    let bytes = one[same..].iter().zip(&other[same..]);
    same + bytes.take_while(|(one, other)| one == other).count()
}

fn common_suffix(one: &[u8], other: &[u8]) -> usize {
    let chunks = one.rchunks_exact(CHUNK).zip(other.rchunks_exact(CHUNK));
    let same = chunks.take_while(|(one, other)| one == other).count() * CHUNK;
    let (one, other) = (&one[..one.len() - same], &other[..other.len() - same]);
    let bytes = one.iter().rev().zip(other.iter().rev());
    same + bytes.take_while(|(one, other)| one == other).count()
}

/// Bytes.
const CHUNK: usize = 4096;

#[cfg(test)]
mod tests;
