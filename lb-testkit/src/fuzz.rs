//! The replay of what fuzzing keeps in the workspace's folder `fuzz/`.

use std::{
    fs, io, panic,
    path::{Path, PathBuf},
};

/// A function of bytes that must neither panic nor break what it asserts.
pub type Target = fn(&[u8]);

/// Runs each of `targets`, all that `krate` has in the order of their names, with every input that is kept for it.
///
/// # Errors
/// When an input fails; for a target without seeds, without a program or a program without a target.
pub fn replay(krate: &str, targets: &[(&str, Target)]) -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let names: Vec<_> = targets.iter().map(|(name, _)| *name).collect();
    let programs = programs(&fuzz.join("targets"), krate)?;
    if programs != names {
        let message = format!("{krate} has the targets {names:?}, fuzz/targets {programs:?}");
        return Err(io::Error::other(message));
    }
    for (name, target) in targets {
        let mut kept = inputs(&fuzz.join("corpus").join(name))?;
        if kept.len() < 2 {
            let message = format!("{name} has no seeds in fuzz/corpus");
            return Err(io::Error::other(message));
        }
        kept.extend(inputs(&fuzz.join("crashes").join(name))?);
        for path in kept {
            let data = fs::read(&path)?;
            if panic::catch_unwind(|| target(&data)).is_err() {
                let message = format!("{name} fails with {}", path.display());
                return Err(io::Error::other(message));
            }
        }
    }
    Ok(())
}

/// The targets of `krate` that libFuzzer can run.
fn programs(folder: &Path, krate: &str) -> io::Result<Vec<String>> {
    let mut programs = Vec::new();
    for path in inputs(folder)? {
        let text = fs::read_to_string(&path)?;
        let called = text.split_once(&format!("{krate}::fuzz::"));
        let called = called.and_then(|(_, rest)| rest.split_once('('));
        programs.extend(called.map(|(name, _)| name.to_owned()));
    }
    programs.sort();
    Ok(programs)
}

/// The files of a folder, which may be missing.
fn inputs(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(files) => files.map(|file| Ok(file?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmless(_: &[u8]) {}

    #[test]
    fn what_does_not_belong_together_is_told() {
        let told = |krate, targets| replay(krate, targets).unwrap_err().to_string();
        let none = told("lb_front", &[]);
        assert!(none.contains("front_guard"), "{none}");
        let without_program = told("lb_testkit", &[("nothing", harmless)]);
        assert!(without_program.contains("nothing"), "{without_program}");
    }
}
