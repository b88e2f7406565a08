//! The programs of an engine, as they lie in Debian's packages.

use std::{
    env,
    ffi::OsString,
    iter,
    path::{Path, PathBuf},
};

/// A folder with one folder for each Debian package.
#[derive(Debug)]
pub(super) struct Packages(pub(super) PathBuf);

impl Packages {
    pub(super) fn program(&self, name: impl AsRef<Path>) -> PathBuf {
        let name = name.as_ref();
        let mut folders = self.folders();
        // A path that begins with a slash stays as it is.
        let found = folders.find(|folder| folder.join(name).is_file());
        found.map_or_else(|| self.0.join(name), |folder| folder.join(name))
    }

    /// With the machine's own programs after those of the packages, and `names` before all.
    pub(super) fn path(&self, names: &Path) -> OsString {
        let machine = env::var_os("PATH").unwrap_or_default();
        let first = iter::once(names.to_owned());
        let all = first
            .chain(self.folders())
            .chain(env::split_paths(&machine));
        env::join_paths(all).unwrap_or(machine.clone())
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let packages = ["docker.io", "containerd", "runc"];
        packages.into_iter().flat_map(|package| {
            ["usr/sbin", "usr/bin"].map(|folder| self.0.join(package).join(folder))
        })
    }

    pub(super) fn libraries(&self) -> OsString {
        let folder = format!("{}-linux-gnu", env::consts::ARCH);
        let mut all = OsString::from(self.0.join("libdevmapper1.02.1/lib").join(&folder));
        for package in ["libxtables12", "libnftnl11", "libmnl0"] {
            all.push(":");
            all.push(self.0.join(package).join("usr/lib").join(&folder));
        }
        all
    }

    /// What iptables loads for each of its matches and targets.
    pub(super) fn extensions(&self) -> PathBuf {
        let folder = format!("usr/lib/{}-linux-gnu/xtables", env::consts::ARCH);
        self.0.join("iptables").join(folder)
    }
}
