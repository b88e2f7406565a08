//! `status`: errors first, then warnings and problems, then what is well.

use serde::Serialize;

use super::{
    Answer, Exit, Output, Style, json,
    table::{Rows, words},
};
use crate::{
    admin::{
        report::{Component, Mark, Report},
        text::visible,
    },
    catalog::Problem,
};

/// How the agent is, and whether all is well.
pub(super) fn status(report: &Report, output: Output, style: Style) -> Answer {
    let fine =
        report.problems.is_empty() && report.components.iter().all(|line| line.mark == Mark::Ok);
    let exit = if fine { Exit::Fine } else { Exit::Degraded };
    let text = match output {
        Output::Table | Output::Wide => table_of(report, style),
        Output::Csv => csv_of(report),
        Output::Json => json(&Status::of(report, fine))?,
    };
    Ok((text, exit))
}

/// What `status -o json` prints.
#[derive(Serialize)]
struct Status<'a> {
    /// Whether all is well; the exit status says the same.
    ok: bool,
    ready: bool,
    waiting_for: &'a [String],
    version: &'a str,
    host: &'a str,
    components: &'a [Component],
    problems: &'a [Problem],
}

impl<'a> Status<'a> {
    fn of(report: &'a Report, ok: bool) -> Self {
        Self {
            ok,
            ready: report.ready,
            waiting_for: &report.waiting_for,
            version: &report.version,
            host: &report.host,
            components: &report.components,
            problems: &report.problems,
        }
    }
}

/// Errors first, then problems, then what is well.
fn table_of(report: &Report, style: Style) -> String {
    let names = report.components.iter();
    let width = names.map(|line| line.name.chars().count()).max();
    let width = width.unwrap_or(0);
    let line = |(mark, name, detail): (Mark, &str, &str)| {
        let (name, detail) = (visible(name), visible(detail));
        format!("{} {name:width$}  {detail}\n", style.mark(mark))
    };
    lines(report).into_iter().map(line).collect()
}

fn csv_of(report: &Report) -> String {
    let mut rows = Rows::new([words("MARK"), words("NAME"), words("DETAIL")]);
    for (mark, name, detail) in lines(report) {
        rows.push([mark.as_str(), name, detail].map(str::to_owned));
    }
    rows.csv()
}

/// Worst first.
fn lines(report: &Report) -> Vec<(Mark, &str, &str)> {
    let components = report.components.iter();
    let mut lines: Vec<_> = components
        .map(|line| (line.mark, line.name.as_str(), line.detail.as_str()))
        .collect();
    let problems = report.problems.iter();
    lines.extend(problems.map(|it| (Mark::Warning, it.subject.as_str(), it.message.as_str())));
    lines.sort_by_key(|(mark, _, _)| *mark);
    lines
}
