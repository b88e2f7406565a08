//! The headers that a receiver wants, such as a token's: a file of lines `Name: value`, read anew for each push. No message
//! repeats what is in it.

use std::path::Path;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Those of the file.
///
/// # Errors
/// What is wrong with it, and what to do.
pub(super) fn read(path: &Path) -> Result<HeaderMap, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read headers_file {shown}: {error}"))?;
    parse(&text).map_err(|(line, remedy)| format!("{shown}:{line}: {remedy}"))
}

fn parse(text: &str) -> Result<HeaderMap, (usize, &'static str)> {
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |remedy| (number + 1, remedy);
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| wrong("write `Name: value`"))?;
        let name: HeaderName = name
            .trim()
            .parse()
            .map_err(|_| wrong("write the name of a header field before the colon"))?;
        if OURS.contains(&name) {
            return Err(wrong("this field is the agent's own; leave it out"));
        }
        let mut value: HeaderValue = value
            .trim()
            .parse()
            .map_err(|_| wrong("write a value of visible characters behind the colon"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// What the message and the connection are told by.
const OURS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TRANSFER_ENCODING,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_field_whose_value_nothing_prints() {
        let text = "# for the collector\nAuthorization: Bearer s3cret: more \n\nx-tenant:a\n";
        let headers = parse(text).unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["authorization"], "Bearer s3cret: more");
        assert!(!format!("{headers:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_without_what_is_in_it() {
        for (text, line) in [
            ("x: a\ns3cret", 2),
            ("s3 cret: a", 1),
            ("x: s3cret\u{7}", 1),
            ("content-type: s3cret", 1),
        ] {
            let (at, remedy) = parse(text).unwrap_err();
            assert_eq!(at, line, "{text}");
            assert!(!remedy.contains("cret"), "{remedy}");
        }
        let error = read(Path::new("/nowhere/headers")).unwrap_err();
        assert!(error.contains("/nowhere/headers"), "{error}");
    }
}
