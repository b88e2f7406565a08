//! Of which source, and from when, something is made: what is written into packages in the place of this machine's clock.

use std::{env, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::source;
use crate::shell::output;

/// The last commit, unless the environment says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Its time, in seconds since 1970.
    pub(crate) seconds: u64,
    /// Its whole name; with `-dirty` if the files are not those of it.
    pub(crate) revision: String,
}

/// How the environment names [`Stamp::seconds`], by the convention of reproducible-builds.org.
pub(super) const SECONDS: &str = "SOURCE_DATE_EPOCH";

/// How it names [`Stamp::revision`], to us and to the agent's build.
pub(crate) const REVISION: &str = "LB_REVISION";

impl Stamp {
    /// Of the source that this command serves.
    ///
    /// # Errors
    /// When neither git nor the environment tells it.
    pub(super) fn of_source() -> Result<Self> {
        let why = "git tells what is made, or where the source is no repository SOURCE_DATE_EPOCH and LB_REVISION";
        let told = |name: &str, git: &[&str]| match env::var(name) {
            Ok(told) => Ok(told),
            Err(_) => output(source::git().args(git)).context(why),
        };
        let seconds = told(SECONDS, &["log", "-1", "--format=%ct"])?;
        // Without tags it is the name of the commit alone.
        let describe = [
            "describe",
            "--always",
            "--abbrev=40",
            "--dirty",
            "--exclude=*",
        ];
        Self::parse(&seconds, &told(REVISION, &describe)?)
    }

    fn parse(seconds: &str, revision: &str) -> Result<Self> {
        let seconds = seconds.trim();
        let revision = revision.trim();
        ensure!(!revision.is_empty(), "{REVISION} is empty");
        Ok(Self {
            seconds: seconds.parse().with_context(|| {
                format!("{SECONDS} is `{seconds}`, which is no time in seconds")
            })?,
            revision: revision.to_owned(),
        })
    }

    /// The time in this format of date(1), in UTC.
    ///
    /// # Errors
    /// When `date` does not run.
    pub(crate) fn time(&self, format: &str) -> Result<String> {
        let mut date = Command::new("date");
        date.env("LC_ALL", "C")
            .args(["--utc", &format!("--date=@{}", self.seconds)])
            .arg(format!("+{format}"));
        Ok(output(&mut date)?.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_the_source_is_read_or_refused() {
        let stamp = Stamp::parse("1000000000\n", "abc\n").unwrap();
        assert_eq!(stamp.revision, "abc");
        assert_eq!(stamp.time("%FT%TZ").unwrap(), "2001-09-09T01:46:40Z");
        let error = Stamp::parse("yesterday", "abc").unwrap_err().to_string();
        assert!(
            error.contains("SOURCE_DATE_EPOCH is `yesterday`"),
            "{error}"
        );
        let error = Stamp::parse("1", " ").unwrap_err().to_string();
        assert!(error.contains("LB_REVISION"), "{error}");
    }
}
