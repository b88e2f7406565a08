//! A file of settings.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::Value;

use crate::config::{
    Config, Setting,
    fuzz::{FILE, resolved},
};

/// A file of settings.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let read = resolved(text);
    match &read {
        Ok((config, settings)) => shown(config, settings),
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a reason");
            let lines = text.lines().count().max(1);
            for mistake in mistakes {
                assert!(
                    !mistake.is_empty() && mistake.len() < 4_000 + text.len(),
                    "{mistake}"
                );
                let line = place(mistake).map(|(line, _)| line);
                assert!(
                    line.is_none_or(|line| (1..=lines + 1).contains(&line)),
                    "{mistake}"
                );
            }
        }
    }
    // A mark of byte order is one at the beginning only.
    if !text.starts_with('\u{feff}') {
        further_down(read, resolved(&format!("\n{text}")));
    }
}

/// All of it stands a line further down, and means the same.
fn further_down(
    before: Result<(Config, Vec<Setting>), Vec<String>>,
    after: Result<(Config, Vec<Setting>), Vec<String>>,
) {
    match (before, after) {
        (Ok((config, settings)), Ok((same, below))) => {
            assert_eq!(config, same);
            for (one, other) in settings.iter().zip(&below) {
                assert_eq!((one.key, &one.value), (other.key, &other.value));
                assert_eq!(lower(&one.origin), other.origin);
            }
        }
        (Err(mistakes), Err(below)) => {
            // Of this one alone the parser does not say where.
            let is_placed = |it: &String| !it.ends_with(": recursion limit");
            let mistakes = mistakes.iter().filter(|it| is_placed(it));
            let mut mistakes: Vec<_> = mistakes.map(|it| lower(it)).collect();
            let mut below: Vec<_> = below.into_iter().filter(is_placed).collect();
            // Those of a file are in the order of their lines, as text or as numbers.
            mistakes.sort();
            below.sort();
            assert_eq!(mistakes, below);
        }
        (before, after) => panic!("{before:?} {after:?}"),
    }
}

/// What begins with a line of the file, a line further down.
fn lower(text: &str) -> String {
    match place(text) {
        Some((line, rest)) => format!("{FILE}:{}{rest}", line + 1),
        None => text.to_owned(),
    }
}

/// The line that a text begins with, and what follows.
fn place(text: &str) -> Option<(usize, &str)> {
    let rest = text.strip_prefix(FILE)?.strip_prefix(':')?;
    let end = rest
        .find(|it: char| !it.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((rest[..end].parse().ok()?, &rest[end..]))
}

/// Each key is shown once, and what is shown can be written into a file that means the same; but for secrets, which are not
/// shown.
fn shown(config: &Config, settings: &[Setting]) {
    let keys: BTreeSet<_> = settings.iter().map(|it| it.key).collect();
    assert_eq!(keys.len(), settings.len(), "a key twice");
    let mut text = String::new();
    for Setting { key, value, .. } in settings {
        if matches!(*key, "sources.consul.token" | "sources.consul.auth") && !value.is_null() {
            assert_eq!(value, "***", "a secret is shown");
            return;
        }
        if let Some(value) = toml(value) {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
    match resolved(&text) {
        Ok((again, _)) => assert_eq!(&again, config, "{text}"),
        Err(mistakes) => panic!("{mistakes:?} in\n{text}"),
    }
}

/// A value as TOML has it; nothing has no form there.
fn toml(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(toml).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .filter_map(|(key, value)| Some(format!("{} = {}", quoted(key), toml(value)?)));
            let fields: Vec<_> = fields.collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::String(text) => quoted(text),
        other => other.to_string(),
    })
}

/// Every character that TOML does not take as it is has a number.
fn quoted(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}
