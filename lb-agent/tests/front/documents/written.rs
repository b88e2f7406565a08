//! An answer as the document writes one.

use super::example::ELLIPSIS;
use crate::kit::Answer;

/// The answer as the document writes one.
pub(super) fn written(answer: &Answer) -> String {
    const LEFT_OUT: [&str; 4] = ["date", "content-type", "content-length", "connection"];
    let mut lines = answer.head.lines().filter(|line| !line.is_empty());
    let mut text = lines.next().unwrap().to_owned();
    let mut fields: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| !LEFT_OUT.contains(&&**name))
        .collect();
    fields.sort();
    for (name, value) in fields {
        text.push_str(&format!("\n{name}: {value}"));
    }
    if answer.field("content-encoding").is_some() {
        text.push_str(&format!("\n\n{ELLIPSIS}"));
    } else if !answer.body.is_empty() {
        text.push_str(&format!("\n\n{}", answer.body.trim_end()));
    }
    text
}

/// The same of an answer in the text.
pub(super) fn expected(block: &str) -> String {
    let (head, body) = match block.split_once("\n\n") {
        Some((head, body)) => (head, Some(body)),
        None => (block, None),
    };
    let mut lines = head.lines();
    let mut text = lines.next().unwrap().to_owned();
    let mut fields: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    fields.sort();
    for (name, value) in fields {
        text.push_str(&format!("\n{name}: {value}"));
    }
    if let Some(body) = body {
        text.push_str(&format!("\n\n{body}"));
    }
    text
}
