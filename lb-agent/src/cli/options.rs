//! `options`: what services may state. It asks no agent.

use super::{
    Answer, Exit, Output,
    table::{Rows, words},
};
use crate::options::table::{self as known, Entry};

/// Every option.
pub(super) fn list(output: Output) -> Answer {
    let options: Vec<_> = known::all().collect();
    Ok((rows(&options).print(output, &options)?, Exit::Fine))
}

/// A line for each option.
fn rows(entries: &[&Entry]) -> Rows<5> {
    // Markdown's marks are for the page that is made of the same table.
    let plain = |text: &str| text.replace('`', "");
    let mut rows = Rows::new([
        words("OPTION"),
        words("DEFAULT"),
        words("VALUES"),
        words("SINCE").wide(),
        words("DOES"),
    ]);
    for entry in entries {
        rows.push([
            entry.name.to_owned(),
            plain(entry.default),
            plain(entry.values),
            entry.since.to_owned(),
            plain(entry.does),
        ]);
    }
    rows
}
