//! The initial file system of a machine: an archive of the form that the kernel unpacks (cpio, "newc";
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

/// An archive in the making.
pub(super) struct Archive<W> {
    to: W,
    /// Of the next file; the kernel takes files with one number for one file.
    number: u32,
    /// What is there.
    folders: BTreeSet<String>,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self {
            to,
            number: 1,
            folders: BTreeSet::new(),
        }
    }

    /// Adds a folder, and those that it lies in, unless they are there.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            if self.folders.insert(path[..end].to_owned()) {
                self.entry(&path[..end], FOLDER, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file that may be run, and its folder.
    pub(super) fn program(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        self.entry(path, PROGRAM, content)
    }

    /// Ends the archive.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.to.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let long = |_| io::Error::other(format!("{path} is too large for the archive"));
        let (size, name) = (
            u32::try_from(content.len()).map_err(long)?,
            u32::try_from(path.len() + 1).map_err(long)?,
        );
        // The magic number, then: inode, mode, owner, group, links, time, size, device and its kind's two numbers twice,
        // length of the name, and a checksum that this form does not use.
        let fields = [self.number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        let mut head = "070701".to_owned();
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        self.number += 1;
        head.push_str(path);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(content)
    }

    /// Every part begins at a multiple of four.
    fn padded(&mut self, part: &[u8]) -> io::Result<()> {
        self.to.write_all(part)?;
        let rest = part.len().next_multiple_of(4) - part.len();
        self.to.write_all(&[0; 4][..rest])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_there_once_and_before_what_lies_in_them() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.program("a/b/one", &[]).unwrap();
        archive.program("a/b/two", &[]).unwrap();
        archive.end().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let names: Vec<_> = text
            .split("070701")
            .skip(1)
            .map(|it| it[104..].trim_end_matches('\0'))
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", "TRAILER!!!"]);
    }

    #[test]
    fn every_entry_has_a_head_of_110_bytes_and_begins_at_a_multiple_of_four() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.folder("dev").unwrap();
        archive.program("init", b"12345").unwrap();
        archive.end().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let starts: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        // 110 + "dev\0" = 114, padded; 110 + "init\0" = 115, padded, and five bytes, padded.
        assert_eq!(starts, [0, 116, 116 + 116 + 8]);
        let size = &text[116 + 6 + 6 * 8..][..8];
        assert_eq!(size, "00000005");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"), "{text:?}");
    }
}
