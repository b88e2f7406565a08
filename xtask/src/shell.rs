//! Running other programs: what is run is said, and what fails is named.

use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Says what is about to happen and why.
pub(crate) fn say(what: &str) {
    eprintln!("==> {what}");
}

/// A cargo command of the toolchain that runs this command.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::workspace());
    command
}

/// Runs a command whose output goes to the terminal.
///
/// # Errors
/// When it cannot be run or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    let took = started.elapsed();
    if took > Duration::from_secs(5) {
        eprintln!("    took {} s", took.as_secs());
    }
    Ok(())
}

/// What a command prints; what it says beside that goes into the error when it fails.
///
/// # Errors
/// When it cannot be run, fails, or does not print text.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` prints no text"))
}

/// Runs a command whose output goes to the terminal, and answers the last line of it.
///
/// # Errors
/// When it cannot be run, fails, or says nothing.
pub(crate) fn run_and_hear(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let mut last = None;
    let heard = child.stdout.take().map(BufReader::new);
    for line in heard.into_iter().flat_map(BufRead::lines) {
        let line = line.with_context(|| format!("cannot hear `{shown}`"))?;
        println!("{line}");
        last = Some(line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    last.with_context(|| format!("`{shown}` said nothing"))
}

/// Whether a program of this name is on the PATH.
pub(crate) fn on_path(program: &str) -> bool {
    find(program).is_some()
}

/// The program of this name that is found by the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut files = env::split_paths(&path).map(|folder| folder.join(program));
    files.find(|file| file.is_file())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_heard_of_what_succeeds_and_says_something() {
        let hear = |script: &str| run_and_hear(Command::new("sh").args(["-c", script]));
        assert_eq!(hear("echo one; echo two").unwrap(), "two");
        for (script, said) in [("echo one; exit 3", "failed"), ("true", "said nothing")] {
            let error = hear(script).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
