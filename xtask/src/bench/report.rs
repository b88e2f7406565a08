//! The report: docs/benchmarks.md and its plots, made from the records in docs/benchmarks/, or the same below `target` of a
//! short run. What people wrote around the tables stays.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use lb_testkit::markdown;

use super::{plot, record::Record, sheets::Name, tables};
use crate::workspace;

/// Where records and plots are, from the document's folder on.
const FOLDER: &str = "benchmarks";

const DOCUMENT: &str = "docs/benchmarks.md";

/// A report and where it is.
pub(super) struct Report {
    /// Of the document, with [`FOLDER`] in it.
    folder: PathBuf,
}

/// A file and what is in it.
type File = (PathBuf, String);

impl Report {
    /// The one that is published.
    pub(super) fn published() -> Self {
        Self {
            folder: workspace().join("docs"),
        }
    }

    /// That of a short run, which proves nothing.
    pub(super) fn of_a_short_run() -> Self {
        Self {
            folder: workspace().join("target/bench"),
        }
    }

    pub(super) fn document(&self) -> PathBuf {
        self.folder.join("benchmarks.md")
    }

    /// Keeps a record in the place of the last one.
    ///
    /// # Errors
    /// When it has not the figures that it should have, or cannot be written.
    pub(super) fn keep(&self, name: Name, record: &Record) -> Result<()> {
        name.sheet().check(&record.figures)?;
        record.write(&self.folder.join(FOLDER))
    }

    /// Writes everything that is made from the records.
    ///
    /// # Errors
    /// When a record is no good, the document has no place for it, or something cannot be written.
    pub(super) fn write(&self) -> Result<()> {
        for (path, text) in self.made()? {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// The files that are made from the records: the document first, and the plots.
    fn made(&self) -> Result<Vec<File>> {
        let records = self.records()?;
        let text = fs::read_to_string(workspace().join(DOCUMENT))
            .with_context(|| format!("cannot read {DOCUMENT}"))?;
        let mut files = vec![(self.document(), rendered(&text, &records)?)];
        for (name, record) in &records {
            for plot in plot::of(*name, record)? {
                files.push((self.folder.join(FOLDER).join(&plot.file), plot.svg()?));
            }
        }
        Ok(files)
    }

    fn records(&self) -> Result<Vec<(Name, Record)>> {
        let folder = self.folder.join(FOLDER);
        let mut records = Vec::new();
        for name in Name::ALL {
            let record = Record::read(&folder, name.word())?;
            records.extend(record.map(|it| (name, it)));
        }
        Ok(records)
    }
}

/// The document with what is made of the records. A subject without one keeps what somebody wrote in its place. Pure.
fn rendered(text: &str, records: &[(Name, Record)]) -> Result<String> {
    let overview = tables::overview(records)?;
    let mut text = markdown::with_what_is_made(text, &source(FOLDER), &overview)?;
    for (name, record) in records {
        let source = source(&format!("{FOLDER}/{}.json", name.word()));
        let made = tables::of(*name, record, FOLDER)?;
        // The first record of a subject takes the place of what was written by hand.
        text = text.replacen(&by_hand(&source), &markdown::begin(&source), 1);
        text = markdown::with_what_is_made(&text, &source, &made)?;
    }
    Ok(text)
}

fn source(file: &str) -> String {
    format!("docs/{file}")
}

/// The mark before what somebody wrote because there is no record.
fn by_hand(source: &str) -> String {
    format!("<!-- by hand, until `cargo xtask bench all` has made {source}: -->\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What a folder holds that is neither a record nor made from one.
    fn left_over(folder: &Path, files: &[File]) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let paths = entries.map(|it| it.path());
        let is_record = |path: &Path| {
            let mut names = Name::ALL.iter().map(|it| format!("{}.json", it.word()));
            names.any(|name| path.ends_with(name))
        };
        let is_left = |path: &PathBuf| !is_record(path) && !files.iter().any(|(it, _)| it == path);
        paths.filter(is_left).collect()
    }

    #[test]
    fn the_documented_benchmarks_are_those_of_the_records() {
        let report = Report::published();
        if std::env::var_os("LB_WRITE_DOCS").is_some() {
            report.write().unwrap();
        }
        let files = report.made().unwrap();
        for (path, made) in &files {
            let is = fs::read_to_string(path).unwrap_or_default();
            assert!(is == *made, "run `cargo xtask docs`: {}", path.display());
        }
        let left = left_over(&report.folder.join(FOLDER), &files);
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn what_is_made_twice_of_the_same_records_is_the_same() {
        let report = Report::published();
        assert_eq!(report.made().unwrap(), report.made().unwrap());
    }

    #[test]
    fn a_subject_without_a_record_keeps_what_was_written_by_hand_and_loses_it_to_the_first_record()
    {
        let source = source("benchmarks/failover.json");
        let text = format!(
            "before\n{}old\n<!-- end of what is made -->\nbetween\n<!-- made from docs/benchmarks by `cargo xtask docs`: \
             -->\n<!-- end of what is made -->\nafter\n",
            by_hand(&source)
        );
        let without = rendered(&text, &[]).unwrap();
        assert!(without.contains("old\n") && without.contains(&by_hand(&source)));
        assert!(without.contains("failover"), "{without}");
        let figures = r#"{"refused_failed":2,"refused_in_flight":1,"blackhole_failed":0,
            "blackhole_new_flows_after_suspicion":0,"blackhole_suspicion_ms":2056,"drained_new_flows":0,
            "drained_failed":0,"flows":38113}"#;
        let record = Record::of("failover", None, figures).unwrap();
        let with = rendered(&without, &[(Name::Failover, record.clone())]).unwrap();
        assert!(
            !with.contains("old\n") && !with.contains("by hand"),
            "{with}"
        );
        for said in [
            "| failed after a backend was killed | 2 | 1: those in flight | **missed** |",
            "| flows in all | 38,113 |  |  |",
            "* failover: failed after a backend was killed: 2 for 1: those in flight",
            "before\n",
            "between\n",
            "after\n",
        ] {
            assert!(with.contains(said), "{said}: {with}");
        }
        assert_eq!(rendered(&with, &[(Name::Failover, record)]).unwrap(), with);
    }

    #[test]
    fn a_document_without_the_marks_of_a_record_is_told() {
        let error = rendered("nothing\n", &[]).unwrap_err();
        assert!(error.to_string().contains("no marks"), "{error}");
    }
}
