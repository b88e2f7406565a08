//! The key that the cookies of `lb_sticky` are signed with: made of a file that hosts may share, or by chance and kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lb_front::StickyKey;

use crate::state_file;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anybody could guess what is in the file.
    #[error(
        "the key file {} must hold at least {SHORTEST} bytes that nobody can guess, such as the output of `openssl rand -hex 32`",
        path.display()
    )]
    Short {
        /// The file.
        path: PathBuf,
    },
    /// The kernel gives no random numbers.
    #[error("cannot make a key")]
    Random(#[source] getrandom::Error),
}

/// The key in `file`; without one, that in `state_dir`, which is made if it is not there. Blocks.
///
/// # Errors
///
/// When `file` cannot be used.
pub fn sticky_key(file: Option<&Path>, state_dir: &Path) -> Result<StickyKey, KeyError> {
    match file {
        Some(path) => read(path),
        None => read_or_make(&state_dir.join(FILE)),
    }
}

fn read(path: &Path) -> Result<StickyKey, KeyError> {
    let text = fs::read(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    // Whoever copies it may add or lose the end of its line.
    let secret = text.trim_ascii();
    if secret.len() < SHORTEST {
        let path = path.to_owned();
        return Err(KeyError::Short { path });
    }
    Ok(StickyKey::of(secret))
}

/// Without a disk the key lasts as long as this agent.
fn read_or_make(path: &Path) -> Result<StickyKey, KeyError> {
    let told = |error: state_file::Error| {
        tracing::warn!(error = %error, "clients lose their instances: a new key is made for the cookies of lb_sticky");
    };
    match state_file::load(path, VERSION) {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => {}
        Err(error) => told(error),
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(KeyError::Random)?;
    let key = StickyKey::of(&secret);
    if let Err(error) = state_file::save(path, VERSION, &key) {
        told(error);
    }
    Ok(key)
}

const FILE: &str = "sticky-key.json";
const VERSION: u32 = 1;

/// Bytes of a secret.
const SHORTEST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_made_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let key = || sticky_key(None, directory.path()).unwrap();
        let made = key();
        assert_eq!(key(), made);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(sticky_key(None, other.path()).unwrap(), made);
        // Rather another key than none.
        fs::write(directory.path().join(FILE), "{").unwrap();
        let next = key();
        assert_ne!(next, made);
        assert_eq!(key(), next);
        let nowhere = directory.path().join("nowhere");
        assert!(sticky_key(None, &nowhere).is_ok());
    }

    #[test]
    fn hosts_with_the_same_file_have_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let key = |text: &str| {
            fs::write(&file, text).unwrap();
            sticky_key(Some(&file), directory.path())
        };
        let one = key("0123456789abcdef").unwrap();
        assert_eq!(key(" 0123456789abcdef\r\n").unwrap(), one);
        assert_ne!(key("0123456789abcdeg").unwrap(), one);
        for short in ["", "0123456789abcde\n"] {
            let error = key(short).unwrap_err().to_string();
            assert!(error.contains("openssl rand"), "{error}");
        }
        fs::remove_file(&file).unwrap();
        let error = sticky_key(Some(&file), directory.path()).unwrap_err();
        assert!(error.to_string().contains("/key"), "{error}");
    }
}
