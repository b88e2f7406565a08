//! Answers as rows: for people as tables, for spreadsheets as CSV. Pure.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use super::{Failure, Output, json};
use crate::admin::{
    report::Connects,
    text::{self, visible},
};

/// A column.
#[derive(Clone, Copy)]
pub(super) struct Column {
    head: &'static str,
    right: bool,
    wide: bool,
}

/// A column of words.
pub(super) const fn words(head: &'static str) -> Column {
    Column {
        head,
        right: false,
        wide: false,
    }
}

/// A column of figures.
pub(super) const fn figures(head: &'static str) -> Column {
    Column {
        right: true,
        ..words(head)
    }
}

impl Column {
    /// Not in the usual table, which has to fit a terminal.
    pub(super) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// Rows below their heads. Here, and nowhere else, what is in a cell is made harmless for a terminal.
pub(super) struct Rows<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Rows<N> {
    pub(super) fn new(columns: [Column; N]) -> Self {
        let rows = Vec::new();
        Self { columns, rows }
    }

    pub(super) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// As `output` has it; JSON is that of `value`.
    pub(super) fn print<T: Serialize + ?Sized>(
        &self,
        output: Output,
        value: &T,
    ) -> Result<String, Failure> {
        match output {
            Output::Table => Ok(self.text(false)),
            Output::Wide => Ok(self.text(true)),
            Output::Csv => Ok(self.csv()),
            Output::Json => json(value),
        }
    }

    /// No lines and no wrapping, so that the output can be cut and searched.
    pub(super) fn text(&self, wide: bool) -> String {
        let shown = |column: &&Column| wide || !column.wide;
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.columns.iter().filter(shown).map(|it| it.head));
        for row in &self.rows {
            let cells = self.columns.iter().zip(row);
            let cells = cells.filter(|(column, _)| shown(column));
            table.add_row(cells.map(|(_, cell)| visible(cell)));
        }
        let columns = self.columns.iter().filter(shown);
        for (column, how) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            column.set_constraint(ColumnConstraint::ContentWidth);
            if how.right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines = table.lines();
        lines.map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// All columns as RFC 4180 has them.
    pub(super) fn csv(&self) -> String {
        let mut text = csv_line(self.columns.iter().map(|it| it.head));
        for row in &self.rows {
            text += &csv_line(row.iter().map(String::as_str));
        }
        text
    }
}

/// A line of CSV.
pub(super) fn csv_line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let cells: Vec<_> = cells.map(field).collect();
    format!("{}\r\n", cells.join(","))
}

/// A cell of CSV. What a spreadsheet would take for a formula is marked as text.
fn field(cell: &str) -> String {
    // There is nothing to measure.
    if cell == "-" {
        return String::new();
    }
    let cell = match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{}", visible(cell)),
        false => visible(cell).into_owned(),
    };
    match cell.contains(['"', ',']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    }
}

pub(super) fn known(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// `?` when it is not known, `-` when there is nothing to measure.
pub(super) fn percentile(
    connects: Option<&Connects>,
    of: impl Fn(&Connects) -> Option<u64>,
) -> String {
    let micros = match connects.map(of) {
        None => return "?".to_owned(),
        Some(micros) => micros,
    };
    micros.map_or_else(|| "-".to_owned(), text::microseconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(cells: [&str; 2]) -> Rows<2> {
        let mut rows = Rows::new([words("NAME"), figures("N").wide()]);
        rows.push(cells.map(str::to_owned));
        rows
    }

    #[test]
    fn a_wide_column_is_not_in_the_usual_table() {
        let rows = rows(["a", "7"]);
        assert_eq!(rows.text(false), "NAME\na\n");
        assert_eq!(rows.text(true), "NAME  N\na     7\n");
        assert_eq!(rows.csv(), "NAME,N\r\na,7\r\n");
    }

    #[test]
    fn a_field_is_quoted_where_it_must_be_and_never_a_formula() {
        let cases = [
            ("a b", "a b"),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@a,b", "\"'@a,b\""),
            ("\ta", "'\\ta"),
            ("\ra", "'\\ra"),
            ("a\nb", "a\\nb"),
            ("-", ""),
        ];
        for (cell, expect) in cases {
            assert_eq!(field(cell), expect, "{cell:?}");
        }
    }

    /// A reader of CSV as RFC 4180 has it.
    fn read(csv: &str) -> Vec<Vec<String>> {
        let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
        let (mut quoted, mut chars) = (false, csv.chars().peekable());
        while let Some(c) = chars.next() {
            match (quoted, c) {
                (true, '"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                (_, '"') => quoted = !quoted,
                (false, ',') => record.push(std::mem::take(&mut field)),
                (false, '\r') => assert_eq!(chars.peek(), Some(&'\n')),
                (false, '\n') => {
                    record.push(std::mem::take(&mut field));
                    records.push(std::mem::take(&mut record));
                }
                (_, c) => field.push(c),
            }
        }
        assert!(!quoted && field.is_empty() && record.is_empty());
        records
    }

    proptest! {
        #[test]
        fn whatever_is_in_a_cell_stays_in_its_cell(a in any::<String>(), b in "[-=+@,\"\r\n\t a]{0,6}") {
            let rows = rows([&a, &b]);
            let read = read(&rows.csv());
            prop_assert_eq!(read.len(), 2);
            let unmarked = |text: &str| {
                let text = text.strip_prefix('\'').unwrap_or(text);
                text.to_owned()
            };
            for (cell, told) in [&a, &b].into_iter().zip(&read[1]) {
                let expect = if cell == "-" { "" } else { cell };
                prop_assert_eq!(unmarked(told), unmarked(&visible(expect)));
                prop_assert!(!told.starts_with(['=', '+', '-', '@', '\t', '\r']));
            }
            prop_assert_eq!(rows.text(true).lines().count(), 2);
        }
    }
}
