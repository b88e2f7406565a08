//! Files that the front's stages read: of users, and certificates, which an authority sends as well.

use lb_front::tls::Certificate;

use super::readable;
use crate::{
    catalog::Problem,
    front::{certificates::validity::validity, users::htpasswd},
};

/// A file of users.
pub fn htpasswd(data: &[u8]) {
    let (users, wrong) = htpasswd::read(data);
    let lines = data
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    assert_eq!(users.count() + wrong.len(), lines.count());
    for problem in &wrong {
        readable(&Problem::new("users", problem));
    }
    // What is told says nothing of a password.
    assert_eq!(htpasswd::read(&without_passwords(data)).1, wrong);
}

/// The same file, where the password of each user is of nothing but `x`, hashed in the same way.
fn without_passwords(data: &[u8]) -> Vec<u8> {
    let mut text = data.to_vec();
    for line in text.split_mut(|&byte| byte == b'\n') {
        let colon = line.iter().position(|&byte| byte == b':');
        let kind = line.iter().rposition(|byte| b"$}".contains(byte));
        let Some(colon) = colon else {
            continue;
        };
        let begin = kind.map_or(colon, |kind| kind.max(colon));
        for byte in &mut line[begin..] {
            if byte.is_ascii_alphanumeric() {
                *byte = b'x';
            }
        }
    }
    text
}

/// A certificate and its key in one file, and the same bytes as the certificate itself.
pub fn certificate(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let both = Certificate {
        key: text.clone(),
        chain: text,
    };
    match both.read() {
        Ok(usable) => assert!(!usable.leaf().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = validity(data);
}
