//! Tables for people.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use crate::admin::{report::Connects, text};

/// No lines and no wrapping, so that the output can be cut and searched.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

pub(super) fn right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

pub(super) fn finish(table: &Table) -> String {
    let lines = table.lines();
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
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
