//! The record of one subject: what was measured, on what, when, and of which commit.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::workspace;

/// What a bench found. Its figures are the last line that it prints, as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) subject: String,
    /// Of the day, as `2026-11-30`.
    pub(super) date: String,
    /// What was measured; with `-dirty` if files differed from it. Unknown without git.
    pub(super) commit: Option<String>,
    /// Its release and architecture.
    pub(super) kernel: String,
    pub(super) machine: Machine,
    pub(super) figures: Map<String, Value>,
}

/// Where it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    /// As the kernel names it; some kernels do not.
    pub(super) cpu: Option<String>,
    pub(super) cpus: usize,
    /// Whether it is a virtual one, where the processor tells.
    pub(super) is_virtual: Option<bool>,
}

impl Record {
    /// Of what a bench of `commit` ([`commit`]) printed last, here and now.
    ///
    /// # Errors
    /// When that is no JSON object, or the system does not say what it is.
    pub(super) fn of(subject: &str, commit: Option<&str>, last_line: &str) -> Result<Self> {
        let figures = serde_json::from_str(last_line)
            .with_context(|| format!("the last line of {subject} is no JSON object"))?;
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("cannot read the kernel's release")?;
        Ok(Self {
            subject: subject.to_owned(),
            date: said_by(Command::new("date").args(["-u", "+%F"])).context("date says nothing")?,
            commit: commit.map(str::to_owned),
            kernel: format!("{} {}", release.trim(), std::env::consts::ARCH),
            machine: Machine::this()?,
            figures,
        })
    }

    /// The record of a subject in `folder`, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub(super) fn read(folder: &Path, subject: &str) -> Result<Option<Self>> {
        let path = folder.join(format!("{subject}.json"));
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let record: Self = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is no record; run `cargo xtask bench all --only {subject}`",
                path.display()
            )
        })?;
        ensure!(
            record.subject == subject,
            "{} is the record of {}",
            path.display(),
            record.subject
        );
        Ok(Some(record))
    }

    /// Keeps it in `folder`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}.json", self.subject));
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// On what, when and of what, in one sentence.
    pub(super) fn origin(&self) -> String {
        let Machine {
            cpu,
            cpus,
            is_virtual,
        } = &self.machine;
        let kind = match is_virtual {
            Some(true) => "a virtual machine",
            Some(false) => "a machine of its own",
            None => "a machine",
        };
        let cpu = cpu.as_deref().unwrap_or("an unnamed processor");
        let commit = match &self.commit {
            Some(commit) => format!("commit {commit}"),
            None => "the commit was not recorded".to_owned(),
        };
        format!(
            "Linux {}, {cpus} CPUs ({cpu}) of {kind}; measured on {}; {commit}.",
            self.kernel, self.date
        )
    }
}

impl Machine {
    fn this() -> Result<Self> {
        let text = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let (cpu, is_virtual) = described(&text);
        Ok(Self {
            cpu,
            cpus: std::thread::available_parallelism()?.get(),
            is_virtual,
        })
    }
}

/// The processor's name, and whether it is a virtual machine's. Pure.
fn described(cpuinfo: &str) -> (Option<String>, Option<bool>) {
    let field = |name: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(key, _)| key.trim() == name);
        found.map(|(_, value)| value.trim())
    };
    let cpu = field("model name").filter(|it| !it.is_empty());
    let is_virtual = field("flags").map(|it| it.split(' ').any(|flag| flag == "hypervisor"));
    (cpu.map(str::to_owned), is_virtual)
}

/// What the tree is now, for a record. To be asked before the first one is kept: the tree differs from its commit then.
pub(super) fn commit() -> Option<String> {
    said_by(Command::new("git").current_dir(workspace()).args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]))
}

/// What a program says, if it succeeds and says something.
fn said_by(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    let said = said.trim();
    (output.status.success() && !said.is_empty()).then(|| said.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_processor_does_not_tell_is_unknown() {
        let whole = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor sse\n";
        assert_eq!(described(whole), (Some("AMD EPYC".to_owned()), Some(true)));
        let bare = "model name : X\nflags : fpu nohypervisor\n";
        assert_eq!(described(bare), (Some("X".to_owned()), Some(false)));
        assert_eq!(described("processor : 0\n"), (None, None));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_under_its_own_name_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(folder.path(), "socket").unwrap(), None);
        let record = Record::of("socket", Some("1459e61dc853"), r#"{"hook_ns":1.5}"#).unwrap();
        record.write(folder.path()).unwrap();
        let read = Record::read(folder.path(), "socket").unwrap();
        assert_eq!(read, Some(record));
        let [from, to] = ["socket", "packet"].map(|it| folder.path().join(format!("{it}.json")));
        fs::rename(from, to).unwrap();
        let error = Record::read(folder.path(), "packet").unwrap_err();
        assert!(error.to_string().contains("record of socket"), "{error}");
    }

    #[test]
    fn a_last_line_that_is_no_object_is_no_record() {
        let error = Record::of("socket", None, "rounds: 5").unwrap_err();
        assert!(error.to_string().contains("last line of socket"), "{error}");
    }
}
