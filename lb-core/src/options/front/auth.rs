//! The value of `lb_auth`.

use super::{FrontSetting, Setting, Wrong};

pub(super) fn auth(text: &str) -> Result<Setting, Wrong> {
    match text {
        "off" => Ok(FrontSetting::Auth(None).into()),
        _ if is_list(text) => Ok(FrontSetting::Auth(Some(text.to_owned())).into()),
        _ => Err(Wrong {
            remedy: "it is no name of a list, so the front lets nobody in; write the name of a list in `[front.auth]`, or `off`"
                .to_owned(),
            // There is no list of this name.
            left: Some(FrontSetting::Auth(Some(String::new())).into()),
        }),
    }
}

/// Whether `name` may be that of a list of users: never that of a file.
pub fn is_list(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=64).contains(&name.len()) && name != "off" && name.bytes().all(legal)
}
