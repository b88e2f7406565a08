//! Lines that the agent tells one by one, printed as they come. They may never end, so their columns have fixed widths.

use std::io::{self, Write};

use serde::{Serialize, de::DeserializeOwned};
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Failure, Output, Watch, client::Lines, table::csv_line};
use crate::admin::text::visible_json;

/// How lines of one kind are printed.
pub(super) struct Form<L> {
    /// What stands above the rows.
    pub(super) head: &'static str,
    pub(super) csv_head: &'static [&'static str],
    pub(super) row: fn(&L) -> String,
    pub(super) csv: fn(&L) -> String,
    /// Whether it is one of those that `--count` counts.
    pub(super) counts: fn(&L) -> bool,
}

impl<L: Serialize> Form<L> {
    fn head(&self, output: Output) -> String {
        match output {
            Output::Table | Output::Wide => self.head.to_owned(),
            Output::Csv => csv_line(self.csv_head.iter().copied()),
            Output::Json => String::new(),
        }
    }

    pub(super) fn line(&self, line: &L, output: Output) -> Result<String, Failure> {
        Ok(match output {
            Output::Table | Output::Wide => (self.row)(line),
            Output::Csv => (self.csv)(line),
            Output::Json => {
                let line = serde_json::to_string(line)?;
                format!("{}\n", visible_json(&line))
            }
        })
    }
}

/// Prints the lines that are `wished` for, as many as are wanted, while somebody reads them.
pub(super) async fn lines<L: Serialize + DeserializeOwned>(
    mut lines: Lines,
    form: &Form<L>,
    watch: &Watch,
    output: Output,
    out: &mut dyn Write,
    mut wished: impl FnMut(&L) -> Result<bool, Failure>,
) -> Result<Exit, Failure> {
    // Before the head, by which the reader knows that lines are told from now on and that it can interrupt them.
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Failure::Print)?;
    let mut reads = print(out, &form.head(output))?;
    let mut left = watch.count;
    while reads && left != Some(0) {
        let line = tokio::select! {
            line = lines.next() => line.ok_or(Failure::Ended)?,
            _ = interrupted.recv() => return Ok(Exit::Interrupted),
        };
        let said: L = serde_json::from_slice(&line)?;
        if !wished(&said)? {
            continue;
        }
        reads = print(out, &form.line(&said, output)?)?;
        if let (true, Some(left)) = ((form.counts)(&said), &mut left) {
            *left -= 1;
        }
    }
    Ok(Exit::Fine)
}

/// Whether there is still a reader.
pub(super) fn print(out: &mut dyn Write, text: &str) -> Result<bool, Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Print(error)),
    }
}
