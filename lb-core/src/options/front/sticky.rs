//! The value of `lb_sticky`.

use super::{FrontSetting, Setting, Wrong, headers::is_token};

pub(super) fn sticky(text: &str) -> Result<Setting, Wrong> {
    let name = match text {
        "true" => Some(USUAL),
        "false" => None,
        // A word that is meant as one of these is no name.
        _ if WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) => return Err(REMEDY.into()),
        // What servers and browsers agree on (RFC 6265 section 4.1.1).
        _ if is_token(text) && text.len() <= LIMIT => Some(text),
        _ => return Err(REMEDY.into()),
    };
    Ok(FrontSetting::Sticky(name.map(str::to_owned)).into())
}

const USUAL: &str = "lb_sticky";
const WORDS: [&str; 6] = ["true", "false", "on", "off", "yes", "no"];

/// Bytes of a name.
const LIMIT: usize = 64;

const REMEDY: &str =
    "write `true`, `false`, or the name of the cookie, at most 64 letters, digits, `-` and `_`";
