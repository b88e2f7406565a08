//! Whether to print in colour, and the marks that are.

use std::io::{self, IsTerminal as _};

use crate::admin::report::Mark;

/// How marks are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As they are.
    Plain,
    /// In colour.
    Colour,
}

impl Style {
    /// Colour for people only: standard output is a terminal and NO_COLOR is not set.
    pub fn of_stdout() -> Self {
        // The convention (no-color.org): set and not empty.
        let wished = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wished && io::stdout().is_terminal() {
            Self::Colour
        } else {
            Self::Plain
        }
    }

    /// The mark of a line, two columns wide: colour is never the only sign.
    pub(crate) fn mark(self, mark: Mark) -> String {
        let (sign, colour) = match mark {
            Mark::Error => ("!!", "31"),
            Mark::Warning => ("! ", "33"),
            Mark::Unknown => ("? ", "33"),
            Mark::Ok => ("ok", "32"),
        };
        match self {
            Self::Plain => sign.to_owned(),
            Self::Colour => format!("\x1b[{colour}m{sign}\x1b[0m"),
        }
    }
}
