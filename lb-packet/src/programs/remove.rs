//! Taking the packet path off a host.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    pin::{self, entries, unlink},
    pin_root,
};
use crate::Error;

/// What was taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// A program from a device: by the name of its pin.
    Link(String),
    /// A pinned map.
    Map(PathBuf),
}

/// Takes away whatever an agent attached and pinned below `bpffs`, programs first, and tells what that was; with `dry`, only
/// tells it. The open flows are forgotten. Not while an agent runs.
///
/// # Errors
/// When a pin or a filter cannot be removed; the call can be repeated.
pub fn remove(bpffs: &Path, dry: bool) -> Result<Vec<Gone>, Error> {
    let root = pin_root(bpffs);
    let mut gone = Vec::new();
    let links = root.join("links");
    for pin in pin::list(&links)? {
        if !dry {
            pin.remove(&links)?;
        }
        gone.push(Gone::Link(pin.name()));
    }
    let mut folders = vec![links];
    for folder in entries(&root)? {
        let version = name(&folder)
            .strip_prefix('v')
            .and_then(|it| it.parse::<u32>().ok());
        if version.is_none() {
            continue;
        }
        for path in entries(&folder)? {
            if !dry {
                unlink(&path)?;
            }
            gone.push(Gone::Map(path));
        }
        folders.push(folder);
    }
    folders.push(root);
    if !dry {
        for folder in folders {
            match fs::remove_dir(&folder) {
                // Somebody else put something into it, which is his.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::pin("remove", &folder))?,
            }
        }
    }
    Ok(gone)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_goes_and_what_is_not_stays() {
        let bpffs = tempfile::tempdir().unwrap();
        let root = pin_root(bpffs.path());
        assert_eq!(remove(bpffs.path(), false).unwrap(), []);
        let plant = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let map = plant("v1/ENDPOINTS");
        for link in ["tc_card_out-3-tcx", "xdp_card-3-native", "tc_card_in-3-tcx"] {
            plant(&format!("links/{link}"));
        }
        let foreign = plant("mine");
        let told = remove(bpffs.path(), true).unwrap();
        assert!(map.exists());
        assert_eq!(remove(bpffs.path(), false).unwrap(), told);
        assert_eq!(told.len(), 4);
        assert_eq!(told[2], Gone::Link("tc_card_out-3-tcx".to_owned()));
        assert_eq!(told[3], Gone::Map(map));
        assert!(foreign.exists() && !root.join("links").exists() && !root.join("v1").exists());
        fs::remove_file(foreign).unwrap();
        remove(bpffs.path(), false).unwrap();
        assert!(!root.exists());
    }
}
