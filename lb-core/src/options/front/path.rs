//! The value of `lb_path`.

use super::{FrontSetting, Setting, Wrong};

pub(super) fn path(text: &str) -> Result<Setting, Wrong> {
    let prefix = text.strip_suffix('/').unwrap_or(text);
    let mut segments = prefix.split('/');
    let is_right = prefix.len() <= LIMIT
        && segments.next() == Some("")
        && segments
            .all(|segment| !["", ".", ".."].contains(&segment) && segment.bytes().all(is_plain));
    match is_right && !text.is_empty() {
        // All of the host, as without the option.
        true if prefix.is_empty() => Ok(FrontSetting::Path(None).into()),
        true => Ok(FrontSetting::Path(Some(prefix.to_owned())).into()),
        false => Err(
            "write the beginning of a path, such as `/api`: segments without `.`, `..` or escapes, at most 255 bytes"
                .into(),
        ),
    }
}

/// What is one and the same to every reader of a path (RFC 3986 section 3.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

/// Bytes of a prefix.
const LIMIT: usize = 255;
