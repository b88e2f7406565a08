//! What must not leave the host.

use crate::bundle::mask::fuzz::masked;

/// Three parts with a line of `--` between: a file of secrets, one of header fields, and a text that they may be in.
pub fn secrets(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut parts = text.splitn(3, "\n--\n");
    let mut part = || parts.next().unwrap_or_default();
    let (file, fields, text) = (part(), part(), part());
    let (seen, known, json) = masked(file, fields, text);
    for secret in &known {
        assert!(secret.len() >= 6, "a word is torn apart for {secret:?}");
        // What stands in the place of a secret may look like a part of another one.
        assert!(
            secret.contains('*') || !seen.contains(secret),
            "{secret:?} in {seen:?}"
        );
    }
    // Each line of a file of secrets is one, and so is each password behind a name.
    for line in file.lines().map(str::trim).filter(|it| it.len() >= 6) {
        let is_comment = |it: &str| it.starts_with('#') && it.contains(char::is_whitespace);
        // A password may read like a comment.
        let is_password = |other: &str| {
            let password = other.split_once(':').map(|it| it.1.trim());
            !is_comment(other) && password == Some(line)
        };
        let secret = !is_comment(line) || file.lines().map(str::trim).any(is_password);
        assert_eq!(known.contains(line), secret, "{line:?}");
    }
    assert_eq!(json, serde_json::json!([seen]));
    if !known.iter().any(|it| it.contains('*')) {
        assert_eq!(masked(file, fields, &seen).0, seen, "twice is another text");
    }
    // Nothing is taken out of what has no secret and no query.
    let plain = !text.contains('?') && !known.iter().any(|it| text.contains(it.as_str()));
    assert!(!plain || seen == text);
}
