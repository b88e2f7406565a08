//! A tar.gz of small files (POSIX ustar). Its own few lines, because nothing else in the agent writes archives.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};

/// Writes `files`, each with its name, below `folder`, with this time of change.
///
/// # Errors
/// What `out` says, and when a name is longer than a header can hold.
pub(super) fn write(
    out: impl Write,
    folder: &str,
    files: &[(String, Vec<u8>)],
    unix: u64,
) -> io::Result<()> {
    let mut out = GzEncoder::new(out, Compression::default());
    for (name, bytes) in files {
        out.write_all(&header(&format!("{folder}/{name}"), bytes.len(), unix)?)?;
        out.write_all(bytes)?;
        let rest = bytes.len().next_multiple_of(BLOCK) - bytes.len();
        out.write_all(&[0; BLOCK][..rest])?;
    }
    // Two empty blocks end it.
    out.write_all(&[0; 2 * BLOCK])?;
    out.finish()?.flush()
}

fn header(name: &str, length: usize, unix: u64) -> io::Result<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, room: usize, text: &str| {
        if text.len() > room {
            return Err(io::Error::other(format!("{text:?} is too long for a tar")));
        }
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
        Ok(())
    };
    put(0, 100, name)?;
    put(100, 8, "0000600\0")?;
    put(108, 8, "0000000\0")?;
    put(116, 8, "0000000\0")?;
    put(124, 12, &format!("{length:011o}\0"))?;
    put(136, 12, &format!("{unix:011o}\0"))?;
    // The sum is made with blanks in its own place.
    put(148, 8, "        ")?;
    put(156, 1, "0")?;
    put(257, 8, "ustar\x0000")?;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

const BLOCK: usize = 512;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_itself_reads_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.tar.gz");
        let files = [("empty", 0), ("block", 512), ("odd", 1300)];
        let files = files.map(|(name, length)| (name.to_owned(), vec![b'x'; length]));
        write(std::fs::File::create(&path).unwrap(), "top", &files, 1).unwrap();
        let tar = |arguments: &[&str]| {
            let mut tar = Command::new("tar");
            let tar = tar.args(arguments).arg(&path).current_dir(folder.path());
            let output = tar.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(tar(&["tzf"]), "top/empty\ntop/block\ntop/odd\n");
        tar(&["xzf"]);
        for (name, bytes) in &files {
            assert_eq!(
                &std::fs::read(folder.path().join("top").join(name)).unwrap(),
                bytes
            );
        }
        let long = [("n".repeat(100), Vec::new())];
        assert!(write(Vec::new(), "top", &long, 1).is_err());
    }
}
