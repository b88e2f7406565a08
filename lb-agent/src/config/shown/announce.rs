//! The keys of `[announce]`.

use serde_json::{Value, json};

use super::{
    Row, row,
    value::{text, time},
};
use crate::announce::{Config, Owner};

/// Those that hold.
pub(super) fn announce(announce: &Config) -> Vec<Row> {
    let owner = match announce.owner {
        Owner::Elected => "elected",
        Owner::Always => "always",
    };
    let hook = announce.hook.as_ref();
    vec![
        row(
            "announce.devices",
            &["announce_devices"],
            json!(announce.devices),
        ),
        row("announce.key", &["announce_key"], text(&announce.key)),
        row("announce.owner", &["announce_owner"], json!(owner)),
        row("announce.ttl", &["announce_ttl"], time(announce.ttl)),
        row(
            "announce.hook",
            &["announce_hook"],
            hook.map_or(Value::Null, |hook| json!(hook)),
        ),
    ]
}
