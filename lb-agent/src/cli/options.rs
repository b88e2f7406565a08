//! `options`: what services may state. It asks no agent.

use super::{
    Answer, Exit, Output, json,
    table::{finish, table},
};
use crate::options::table::{self as known, Entry};

/// Every option.
pub(super) fn list(output: Output) -> Answer {
    let options: Vec<_> = known::all().collect();
    let text = match output {
        Output::Table => table_of(&options),
        Output::Json => json(&options)?,
    };
    Ok((text, Exit::Fine))
}

/// A line for each option.
fn table_of(entries: &[&Entry]) -> String {
    // Markdown's marks are for the page that is made of the same table.
    let plain = |text: &str| text.replace('`', "");
    let mut table = table(&["OPTION", "DEFAULT", "VALUES", "DOES"]);
    for entry in entries {
        table.add_row([
            entry.name.to_owned(),
            plain(entry.default),
            plain(entry.values),
            plain(entry.does),
        ]);
    }
    finish(&table)
}
