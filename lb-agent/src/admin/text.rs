//! Values as people read them, on the page and on a terminal. Pure.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

/// A duration to its two largest units: `3 min 12 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// How long a probe took.
pub fn microseconds(microseconds: u64) -> String {
    if microseconds < 1000 {
        format!("{microseconds} µs")
    } else {
        format!("{} ms", microseconds / 1000)
    }
}

/// A number of things: `1 hook`, `2 hooks`.
pub fn count(n: usize, thing: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {thing}{plural}")
}

/// The part of `some` in `all` in percent, in hundredths; nothing without any.
pub fn percent(some: u64, all: u64) -> Option<String> {
    let (some, all) = (u128::from(some), u128::from(all));
    let hundredths = (some * 20_000 + all).checked_div(2 * all)?;
    Some(format!("{}.{:02}", hundredths / 100, hundredths % 100))
}

/// The text with every character made visible that a terminal or a reader's eye would obey: names and
/// check output are written by others.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if obeyed(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The same for finished JSON: outside strings it holds no such character but line breaks, so escaping
/// the others as JSON does keeps its meaning.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let hidden = |c: char| obeyed(c) && c != '\n';
    if !json.chars().any(hidden) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Control characters, and those that change the direction of text or are not seen.
pub(crate) fn obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_largest_units() {
        let shown = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(shown(0), "0 s");
        assert_eq!(shown(59), "59 s");
        assert_eq!(shown(192), "3 min 12 s");
        assert_eq!(shown(3600), "1 h 0 min");
        assert_eq!(shown(200_000), "2 d 7 h");
    }

    #[test]
    fn control_characters_lose_their_power() {
        assert_eq!(visible("www_hello"), "www_hello");
        assert_eq!(visible("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(visible("a\nb\u{9b}c"), "a\\nb\\u{9b}c");
        assert_eq!(visible("abc\u{202e}fed"), "abc\\u{202e}fed");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "a\u{9b}b\u{202e}c\u{7f}\n";
        let json = serde_json::to_string_pretty(&[text]).unwrap();
        let safe = visible_json(&json);
        assert!(!safe.chars().any(|c| obeyed(c) && c != '\n'), "{safe:?}");
        let back: Vec<String> = serde_json::from_str(&safe).unwrap();
        assert_eq!(back, [text]);
    }

    #[test]
    fn a_part_is_told_in_hundredths_of_a_percent() {
        assert_eq!(percent(0, 0), None);
        assert_eq!(percent(1, 3).as_deref(), Some("33.33"));
        assert_eq!(percent(2, 3).as_deref(), Some("66.67"));
        assert_eq!(percent(5, 5).as_deref(), Some("100.00"));
        assert_eq!(percent(1, u64::MAX).as_deref(), Some("0.00"));
    }

    #[test]
    fn one_thing_is_singular() {
        assert_eq!(count(1, "hook"), "1 hook");
        assert_eq!(count(0, "hook"), "0 hooks");
    }
}
