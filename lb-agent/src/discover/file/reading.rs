//! Reads one content of the file after the other, and of each only what changed since the last. Pure.
//!
//! A large file mostly changes in one place. The text is cut before every line that begins with `[[service]]`; a block
//! that stands in the last text, too, is not read again. Blocks that are TOML each by itself are TOML together, with
//! the same meaning. If one of them is not (the cut may lie within a string of several lines), the whole text is read
//! as one, which also finds each mistake at its line.

use std::sync::Arc;

use super::parse::{Common, Declared, FileError, catalog, declared, parse};
use crate::{catalog::Catalog, document::Mistake};

/// The last good content.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// UTF-8.
    text: Vec<u8>,
    /// Its blocks, one after the other; none if it cannot be cut.
    blocks: Vec<Block>,
    /// What it says.
    catalog: Arc<Catalog>,
    /// Room for the next text: to clear fresh memory takes longer than to read into it.
    spare: Vec<u8>,
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
    /// An empty buffer for the next text, mostly one that has room for it.
    pub(super) fn room(&mut self) -> Vec<u8> {
        let mut room = std::mem::take(&mut self.spare);
        room.clear();
        room
    }

    /// The catalog of `text`. What stands in the last one, too, keeps its allocation.
    ///
    /// # Errors
    ///
    /// All mistakes of form; the last good content stays the last.
    pub(super) fn read(&mut self, text: Vec<u8>) -> Result<Arc<Catalog>, FileError> {
        let Some(Changed { head, tail, blocks }) = self.changed(&text) else {
            let read = utf8(&text).and_then(parse);
            self.spare = text;
            let catalog = self.kept(read?);
            self.text.clear();
            self.blocks.clear();
            self.catalog = Arc::clone(&catalog);
            return Ok(catalog);
        };
        let gone = head..self.blocks.len() - tail;
        let next = self.without_trouble(&self.blocks[gone.clone()], &blocks);
        self.blocks.splice(gone, blocks);
        self.spare = std::mem::replace(&mut self.text, text);
        self.catalog = next.unwrap_or_else(|| {
            let mut line = 0;
            let mut placed = Vec::with_capacity(self.blocks.len());
            for block in &self.blocks {
                placed.extend(block.services.iter().map(|service| (line, service)));
                line += block.lines;
            }
            self.kept(catalog(&placed))
        });
        Ok(Arc::clone(&self.catalog))
    }

    /// The same allocation for the same content.
    fn kept(&self, now: Catalog) -> Arc<Catalog> {
        if *self.catalog == now {
            Arc::clone(&self.catalog)
        } else {
            Arc::new(now)
        }
    }

    /// The catalog when blocks have come for those that are gone; `None` if nothing can be said without the others,
    /// because a name is declared twice or the lines of problems count.
    fn without_trouble(&self, gone: &[Block], come: &[Block]) -> Option<Arc<Catalog>> {
        fn services(blocks: &[Block]) -> impl Iterator<Item = &Declared> {
            blocks.iter().flat_map(|block| &block.services)
        }
        if self.blocks.is_empty()
            || !self.catalog.problems.is_empty()
            || services(come).any(Declared::has_problems)
        {
            return None;
        }
        if services(gone).eq(services(come)) {
            return Some(Arc::clone(&self.catalog));
        }
        let mut next = Catalog::clone(&self.catalog);
        for service in services(gone) {
            next.services.remove(service.name());
        }
        for service in services(come) {
            let (name, instances) = (service.name().clone(), service.instances().clone());
            if next.services.insert(name, instances).is_some() {
                return None;
            }
        }
        Some(Arc::new(next))
    }

    /// What is new in `text`; `None` if that must be read as one.
    fn changed(&self, text: &[u8]) -> Option<Changed> {
        if text.trim_ascii_start().is_empty() {
            return None;
        }
        let (old, new) = (&*self.text, text);
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
        // All around it has been UTF-8 before.
        let between = str::from_utf8(text.get(start..text.len() - rest)?).ok()?;
        for piece in pieces(between) {
            // What stands before the first cut must leave the list of services to the others.
            if start == 0 && blocks.is_empty() && !piece.starts_with(CUT) && !is_bare(piece) {
                return None;
            }
            let mut services = declared(piece, &mut common).ok()?;
            for service in &mut services {
                service.keep(&self.catalog);
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

/// `text`, if it is one.
fn utf8(text: &[u8]) -> Result<&str, FileError> {
    str::from_utf8(text).map_err(|wrong| {
        let before = &text[..wrong.valid_up_to()];
        let message = "this is not UTF-8; save the file in that encoding";
        FileError {
            mistakes: vec![Mistake {
                line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
                message: message.to_owned(),
            }],
        }
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
