//! `status`: errors first, then warnings and problems, then what is well.

use super::{
    Answer, Exit, Output, PATIENCE, Style,
    client::Client,
    json,
    table::{Rows, words},
};
use crate::admin::{
    report::{Mark, Status},
    text::visible,
};

/// How the agent is, and whether all is well.
pub(super) async fn status(client: &Client, output: Output, style: Style) -> Answer {
    print(&client.status(PATIENCE).await?, output, style)
}

pub(super) fn print(status: &Status, output: Output, style: Style) -> Answer {
    let text = match output {
        Output::Table | Output::Wide => table_of(status, style),
        Output::Csv => csv_of(status),
        Output::Json => json(status)?,
    };
    let exit = if status.ok {
        Exit::Fine
    } else {
        Exit::Degraded
    };
    Ok((text, exit))
}

/// Errors first, then problems, then what is well.
fn table_of(status: &Status, style: Style) -> String {
    let names = status.components.iter();
    let width = names.map(|line| line.name.chars().count()).max();
    let width = width.unwrap_or(0);
    let line = |(mark, name, detail): (Mark, &str, &str)| {
        let (name, detail) = (visible(name), visible(detail));
        format!("{} {name:width$}  {detail}\n", style.mark(mark))
    };
    lines(status).into_iter().map(line).collect()
}

fn csv_of(status: &Status) -> String {
    let mut rows = Rows::new([words("MARK"), words("NAME"), words("DETAIL")]);
    for (mark, name, detail) in lines(status) {
        rows.push([mark.as_str(), name, detail].map(str::to_owned));
    }
    rows.csv()
}

/// Worst first.
fn lines(status: &Status) -> Vec<(Mark, &str, &str)> {
    let components = status.components.iter();
    let mut lines: Vec<_> = components
        .map(|line| (line.mark, line.name.as_str(), line.detail.as_str()))
        .collect();
    let problems = status.problems.iter();
    lines.extend(problems.map(|it| (Mark::Warning, it.subject.as_str(), it.message.as_str())));
    lines.sort_by_key(|(mark, _, _)| *mark);
    lines
}
