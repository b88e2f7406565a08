//! Small values kept in the state directory: replaced as a whole or not at all.
//!
//! A file that is damaged or cannot be read is set aside and told, never fatal, and never overwritten.

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::RangeInclusive,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Why a value could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is there and cannot be read; it was moved out of the way, lest the next value takes the place of one that
    /// nobody knows.
    #[error("cannot read {}, which was set aside as {}", path.display(), aside.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where it is now.
        aside: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else, or another version; it was moved out of the way.
    #[error("{} is damaged ({why}); it was set aside as {}", path.display(), aside.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it is now.
        aside: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The value that [`save`] left at `path`; `None` if there is no file. Blocks.
///
/// # Errors
///
/// When the file cannot be read, or is damaged; in both cases it is set aside.
pub fn load<T: DeserializeOwned>(path: &Path, version: u32) -> Result<Option<T>, Error> {
    load_any(path, version..=version)
}

/// The same of a value whose type reads what the former of these versions left, too.
///
/// # Errors
///
/// As [`load`].
pub fn load_any<T: DeserializeOwned>(
    path: &Path,
    versions: RangeInclusive<u32>,
) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let aside = set_aside(path)?;
            let path = path.to_owned();
            return Err(Error::Read {
                path,
                aside,
                source,
            });
        }
    };
    let why = match read(&text, &versions) {
        Ok(value) => return Ok(Some(value)),
        Err(why) => why,
    };
    let aside = set_aside(path)?;
    let path = path.to_owned();
    Err(Error::Damaged { path, aside, why })
}

fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let aside = beside(path, ".damaged");
    match fs::rename(path, &aside) {
        Ok(()) => Ok(aside),
        Err(source) => Err(Error::Write {
            path: aside,
            source,
        }),
    }
}

/// The value in the text of such a file.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn read<T: DeserializeOwned>(
    text: &[u8],
    versions: &RangeInclusive<u32>,
) -> Result<T, String> {
    let found: Version = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if !versions.contains(&found.version) {
        return Err(format!(
            "it has version {}, this agent writes {}",
            found.version,
            versions.end()
        ));
    }
    let envelope = serde_json::from_slice::<Envelope<T>>(text);
    envelope
        .map(|it| it.value)
        .map_err(|error| error.to_string())
}

/// The text of a file with `value`.
pub(crate) fn written<T: Serialize>(version: u32, value: &T) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&Envelope { version, value })?;
    text.push(b'\n');
    Ok(text)
}

/// Puts `value` at `path`. After a crash at any moment the old value or the new one is there. Blocks.
///
/// # Errors
///
/// When the disk or the permissions refuse; the old value stays.
pub fn save<T: Serialize>(path: &Path, version: u32, value: &T) -> Result<(), Error> {
    replace(path, version, value).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

fn replace<T: Serialize>(path: &Path, version: u32, value: &T) -> io::Result<()> {
    let text = written(version, value)?;
    let fresh = beside(path, ".new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&text)?;
    // Before the rename: else a crash may leave the new name with no content.
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    value: T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
        thread,
    };

    use caps::{CapSet, Capability};

    use super::{Error, load, load_any, save};

    #[test]
    fn what_is_saved_is_loaded_and_the_absent_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value.json");
        assert_eq!(load::<Vec<u8>>(&path, 1).unwrap(), None);
        for value in [vec![1, 2], vec![3]] {
            save(&path, 1, &value).unwrap();
            assert_eq!(load::<Vec<u8>>(&path, 1).unwrap(), Some(value));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_set_aside_with_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value.json");
        for text in [
            "",
            "{",
            r#"{"version":1}"#,
            r#"{"version":1,"value":"x"}"#,
            r#"{"version":2,"value":[]}"#,
        ] {
            fs::write(&path, text).unwrap();
            let error = load::<Vec<u8>>(&path, 1).unwrap_err();
            let Error::Damaged { aside, .. } = error else {
                panic!("{text}: {error}");
            };
            assert_eq!(fs::read_to_string(aside).unwrap(), text);
            assert_eq!(load::<Vec<u8>>(&path, 1).unwrap(), None);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_set_aside_and_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value.json");
        save(&path, 1, &[1]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
        let file = path.clone();
        // Rights belong to a thread.
        let reader = thread::spawn(move || {
            for right in [
                Capability::CAP_DAC_OVERRIDE,
                Capability::CAP_DAC_READ_SEARCH,
            ] {
                caps::drop(None, CapSet::Effective, right).unwrap();
            }
            let error = load::<Vec<u8>>(&file, 1).unwrap_err();
            save(&file, 1, &[2]).unwrap();
            error
        });
        let error = reader.join().unwrap();
        let Error::Read { aside, .. } = &error else {
            panic!("{error}");
        };
        assert!(error.to_string().contains("set aside"), "{error}");
        assert_eq!(load::<Vec<u8>>(aside, 1).unwrap(), Some(vec![1]));
        assert_eq!(load::<Vec<u8>>(&path, 1).unwrap(), Some(vec![2]));
    }

    #[test]
    fn a_former_version_is_read_where_it_is_asked_for_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value.json");
        save(&path, 2, &[1]).unwrap();
        assert_eq!(load_any::<Vec<u8>>(&path, 1..=3).unwrap(), Some(vec![1]));
        let error = load_any::<Vec<u8>>(&path, 3..=4).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("it has version 2, this agent writes 4")
        );
    }

    #[test]
    fn a_value_that_cannot_be_written_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value.json");
        save(&path, 1, &[1]).unwrap();
        fs::create_dir(directory.path().join("value.json.new")).unwrap();
        assert!(matches!(save(&path, 1, &[2]), Err(Error::Write { .. })));
        assert_eq!(load::<Vec<u8>>(&path, 1).unwrap(), Some(vec![1]));
    }
}
