//! The door of the fuzz targets to what is taken out of a bundle.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Secrets;

/// A text without the secrets that a file of them and a file of header fields have; the secrets; and the same text as JSON,
/// masked.
pub(crate) fn masked(file: &str, fields: &str, text: &str) -> (String, BTreeSet<String>, Value) {
    let mut secrets = Secrets::default();
    secrets.add(file);
    secrets.add_fields(fields);
    let mut json = Value::from(vec![text]);
    secrets.mask_json(&mut json);
    (secrets.mask(text), secrets.known, json)
}
