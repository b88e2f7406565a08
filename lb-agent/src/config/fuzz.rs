//! The door of the fuzz targets to what a configuration leads to.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Config, Outside, RawConfig, Setting, cgroup, resolve};

/// Where a table of mounts has the tree of cgroups.
pub(crate) fn cgroup_mount(mountinfo: &str) -> Option<PathBuf> {
    cgroup::mount(mountinfo)
}

/// What a file of settings means on a host without variables, and how that is shown; or what is wrong with it. The file is
/// called [`FILE`].
pub(crate) fn resolved(text: &str) -> Result<(Config, Vec<Setting>), Vec<String>> {
    let raw = RawConfig::from_toml(Path::new(FILE), text)?;
    let outside = Outside {
        variable: &|_| None,
        read: &|path| match path.ends_with("mountinfo") {
            true => Ok("35 22 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n".to_owned()),
            false => Err(io::ErrorKind::NotFound.into()),
        },
    };
    let config = resolve(&raw, outside).map_err(|error| error.mistakes)?;
    let settings = config.settings(&raw, &|_| false);
    Ok((config, settings))
}

/// The name of the file.
pub(crate) const FILE: &str = "/lb.toml";
