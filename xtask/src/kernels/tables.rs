//! What was found, as tables in Markdown: for the terminal, and for docs/kernels.md.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use lb_testkit::{
    guest::{Figures, Hierarchy, Outcome},
    markdown,
};

use super::record::{self, Entry};

const DOCUMENT: &str = "docs/kernels.md";

/// Writes them into the document.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(entries: &[Entry]) -> Result<()> {
    markdown::write_what_is_made(DOCUMENT, record::PATH, &of(entries))
        .with_context(|| format!("cannot write {DOCUMENT}"))
}

/// What works where, and what the kernels make of each program.
pub(super) fn of(entries: &[Entry]) -> String {
    let mut text = String::new();
    let kernels: Vec<_> = entries.iter().map(title).collect();
    row(&mut text, "", &kernels);
    rule(&mut text, entries.len());
    let releases: Vec<_> = entries.iter().map(|it| it.report.release.clone()).collect();
    row(&mut text, "release", &releases);
    let mut notes = Vec::new();
    for name in in_order(entries, |it| {
        it.report.checks.iter().map(|it| it.name.clone())
    }) {
        let cells = entries.iter().map(|entry| {
            let mut checks = entry.report.checks.iter();
            let Some(check) = checks.find(|it| it.name == name) else {
                return "–".to_owned();
            };
            let word = match check.outcome {
                Outcome::Works => "yes",
                Outcome::Refused => "refused",
                Outcome::Failed => "fails",
            };
            if check.detail.is_empty() {
                return word.to_owned();
            }
            let note = format!("{name}: {}", check.detail);
            let at = notes.iter().position(|it| *it == note).unwrap_or_else(|| {
                notes.push(note);
                notes.len() - 1
            });
            format!("{word} ({})", at + 1)
        });
        let cells: Vec<_> = cells.collect();
        row(&mut text, &name, &cells);
    }
    for (at, note) in notes.iter().enumerate() {
        let _ = write!(text, "\n{}. {note}", at + 1);
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    text.push_str(
        "\nEach program: the instructions that the verifier went through, and the bytes of machine code that the kernel made of it.\n\n",
    );
    figures(&mut text, entries);
    text
}

fn figures(text: &mut String, entries: &[Entry]) {
    // A kernel that takes no program has no column, and one kernel need not be shown twice.
    let shown = entries
        .iter()
        .filter(|it| !it.report.programs.is_empty() && it.report.hierarchy == Hierarchy::Unified);
    let shown: Vec<_> = shown.cloned().collect();
    let mut head: Vec<_> = shown.iter().map(|it| it.line().to_owned()).collect();
    head.push("attached by".to_owned());
    row(text, "program", &head);
    rule(text, head.len());
    let key = |it: &Figures| (it.object.clone(), it.program.clone());
    for (object, program) in in_order(&shown, |it| it.report.programs.iter().map(key)) {
        let of = |entry: &'_ Entry| {
            let programs = entry.report.programs.iter();
            let mut found = programs.filter(|it| it.object == object && it.program == program);
            found.next().cloned()
        };
        let found: Vec<_> = shown.iter().map(|it| (it.line(), of(it))).collect();
        let cell = |it: &Figures| {
            let verified = it
                .verified
                .map_or_else(|| "unknown".to_owned(), |it| it.to_string());
            format!("{verified}; {} B", it.jited_bytes)
        };
        let cells = found
            .iter()
            .map(|(_, it)| it.as_ref().map_or("–".to_owned(), cell));
        let mut cells: Vec<_> = cells.collect();
        cells.push(attached(&found));
        row(text, &format!("{object}: `{program}`"), &cells);
    }
}

/// By what a program is attached, with the kernels where that is not the same on all.
fn attached(found: &[(&str, Option<Figures>)]) -> String {
    let mut ways: Vec<(&str, Vec<&str>)> = Vec::new();
    for (line, figures) in found {
        let Some(figures) = figures else { continue };
        let way = figures.attached.as_deref().unwrap_or("not attached");
        match ways.iter_mut().find(|(it, _)| *it == way) {
            Some((_, lines)) => lines.push(line),
            None => ways.push((way, vec![line])),
        }
    }
    match &*ways {
        [(way, _)] => (*way).to_owned(),
        ways => {
            let ways = ways
                .iter()
                .map(|(way, lines)| format!("{way} ({})", lines.join(", ")));
            ways.collect::<Vec<_>>().join("; ")
        }
    }
}

fn title(entry: &Entry) -> String {
    format!(
        "{} ({}, {})",
        entry.line(),
        entry.suite,
        entry.report.hierarchy
    )
}

/// Everything that some entry has, in the order of the first that has it.
fn in_order<'e, T: PartialEq, I: Iterator<Item = T>>(
    entries: &'e [Entry],
    items: impl Fn(&'e Entry) -> I,
) -> Vec<T> {
    // The newest has most.
    let mut all = Vec::new();
    for item in entries.iter().rev().flat_map(items) {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    all
}

fn row(text: &mut String, name: &str, cells: &[String]) {
    let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
}

fn rule(text: &mut String, columns: usize) {
    let _ = writeln!(text, "|---|{}", "---|".repeat(columns));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_kernels_are_those_of_the_record() {
        let made = of(&record::read().unwrap().kernels);
        let is_so = markdown::has_what_is_made(DOCUMENT, record::PATH, &made).unwrap();
        assert!(is_so, "run `cargo xtask docs`");
    }
}
