//! Values as they are written in the file.

use std::{fmt::Display, path::Path, time::Duration};

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::Given;

pub(super) fn hidden() -> Value {
    json!("***")
}

/// As it was written, where what it means has no shorter form.
pub(super) fn typed<T: Serialize>(given: &Option<Given<T>>) -> Value {
    given.as_ref().map_or(Value::Null, |it| json!(it.value))
}

pub(super) fn path(path: &Path) -> Value {
    json!(path)
}

pub(super) fn text(value: impl Display) -> Value {
    json!(value.to_string())
}

pub(super) fn optional(value: Option<impl Display>) -> Value {
    value.map_or(Value::Null, text)
}

pub(super) fn texts(values: &[impl Display]) -> Value {
    values.iter().map(ToString::to_string).collect()
}

/// As it can be written in the file.
pub(super) fn time(time: Duration) -> Value {
    let millis = time.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let whole = units
        .into_iter()
        .find(|(unit, _)| millis.is_multiple_of(*unit));
    match whole {
        _ if millis == 0 => json!("0"),
        Some((unit, name)) => json!(format!("{}{name}", millis / unit)),
        None => json!(format!("{millis}ms")),
    }
}
