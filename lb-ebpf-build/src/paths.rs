//! Which folders of this machine the compiler would write down in what they make, and what they are called there instead: so
//! the same source gives the same bytes wherever it lies and whoever builds it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Each folder, and its name in programs.
///
/// # Errors
/// When the compiler does not say where it is, or cargo's folder cannot be told.
pub fn renamed(workspace: &Path, rustc: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .with_context(|| format!("cannot run {}", rustc.display()))?;
    ensure!(
        output.status.success(),
        "{} does not say where it is installed",
        rustc.display()
    );
    let sysroot = String::from_utf8(output.stdout).context("the compiler's folder is no text")?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
    let home = cargo_home()?;
    // Of several that fit the compiler takes the last one, and the others may lie in the first.
    let folders = [
        (workspace.to_owned(), "/lb"),
        (home.clone(), "/cargo"),
        (home.join("registry"), "/cargo/registry"),
        (library, "/rust"),
    ];
    let mut renamed = Vec::new();
    for (folder, name) in folders {
        // A compiler that is started in a folder knows it by the name to which links lead.
        match fs::canonicalize(&folder) {
            Ok(real) if real != folder => renamed.push((real, name)),
            _ => {}
        }
        renamed.push((folder, name));
    }
    Ok(renamed)
}

/// Where cargo keeps the sources of dependencies.
///
/// # Errors
/// When the environment does not say it.
pub fn cargo_home() -> Result<PathBuf> {
    let named = env::var_os("CARGO_HOME").filter(|it| !it.is_empty());
    named
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|it| it.join(".cargo")))
        .context("neither CARGO_HOME nor HOME says where cargo's folder is")
}

/// The flags of rustc that rename these folders.
pub fn flags(renamed: &[(PathBuf, &'static str)]) -> Vec<OsString> {
    let flag = |(folder, name): &(PathBuf, &str)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(folder);
        flag.push("=");
        flag.push(name);
        flag
    };
    renamed.iter().map(flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_this_machine_have_names_that_every_machine_gives_them() {
        let folders = renamed(Path::new("/home/me/lb"), Path::new("rustc")).unwrap();
        for name in ["/lb", "/cargo", "/cargo/registry", "/rust"] {
            assert!(folders.iter().any(|it| it.1 == name), "{name}");
        }
        assert!(folders.iter().all(|(folder, _)| folder.is_absolute()));
        assert_eq!(flags(&folders)[0], "--remap-path-prefix=/home/me/lb=/lb");
        let error = renamed(Path::new("/"), Path::new("/nothing/rustc")).unwrap_err();
        assert!(error.to_string().contains("/nothing/rustc"), "{error}");
    }

    #[test]
    fn a_folder_that_a_link_leads_to_has_the_name_of_the_link() {
        let folder = env::temp_dir().join(format!("lb-paths-{}", std::process::id()));
        let (real, link) = (folder.join("real"), folder.join("link"));
        fs::create_dir_all(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let folders = renamed(&link, Path::new("rustc"));
        let real = fs::canonicalize(&real);
        fs::remove_dir_all(&folder).unwrap();
        let folders = folders.unwrap();
        assert!(folders.contains(&(link, "/lb")), "{folders:?}");
        assert!(folders.contains(&(real.unwrap(), "/lb")), "{folders:?}");
    }
}
