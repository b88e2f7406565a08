//! The headers that a receiver wants, such as a token's: a file of lines `Name: value`, read anew for each push. No message
//! repeats what is in it.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use nix::fcntl::OFlag;

/// Those of the file.
///
/// # Errors
/// What is wrong with it, and what to do.
pub(super) fn read(path: &Path) -> Result<HeaderMap, String> {
    let shown = path.display();
    let failed = |error: io::Error| format!("cannot read headers_file {shown}: {error}");
    // A pipe would make the agent wait for whoever writes it.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(format!(
            "headers_file {shown} is no regular file: write one"
        ));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "headers_file {shown} may be read by other users (mode {mode:03o}): chmod 600 it, and replace what is secret in it"
        ));
    }
    let mut text = String::new();
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(format!(
            "headers_file {shown} is longer than {LONGEST} bytes: no receiver wants that much; correct it"
        ));
    }
    parse(&text).map_err(|(line, remedy)| format!("{shown}:{line}: {remedy}"))
}

pub(crate) fn parse(text: &str) -> Result<HeaderMap, (usize, &'static str)> {
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

/// More than servers take of a head.
const LONGEST: u64 = 64 * 1024;

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
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn a_file_that_others_may_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        fs::write(&path, "x: s3cret").unwrap();
        for (mode, told) in [
            (0o644, "mode 644"),
            (0o640, "mode 640"),
            (0o602, "mode 602"),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(
                error.contains(told) && error.contains("chmod 600"),
                "{error}"
            );
            assert!(!error.contains("s3cret"), "{error}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path).unwrap()["x"], "s3cret");
        // Nobody ever writes into this one.
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for none in [dir.path(), &pipe] {
            let error = read(none).unwrap_err();
            assert!(error.contains("is no regular file"), "{error}");
        }
    }

    #[test]
    fn no_more_is_read_than_a_receiver_may_want() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        fs::write(&path, "#".repeat(65_536)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(read(&path).unwrap().is_empty());
        fs::write(&path, "#".repeat(65_537)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains("is longer than 65536 bytes"), "{error}");
    }

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
