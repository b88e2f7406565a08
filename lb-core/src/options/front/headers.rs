//! The family `lb_header_*`.

use lb_front::rules::may_be_ruled;

use super::{FrontSetting, Setting, Wrong};
use crate::options::cut;

/// Which side of the front a field is changed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::options) enum Side {
    Request,
    Response,
}

/// The setting of the member `rest` of the family, such as `response_x-frame-options`.
pub(super) fn header(rest: &str, text: &str) -> Result<Setting, Wrong> {
    let Some((side, name)) = split(rest) else {
        return Err("write `lb_header_request_<name>` or `lb_header_response_<name>`".into());
    };
    if !is_token(name) {
        return Err(format!("`{}` is not the name of a field", cut(name)).into());
    }
    if !may_be_ruled(name) {
        return Err("the front decides about that field itself; remove the option".into());
    }
    let printable = |byte: u8| (b' '..=b'~').contains(&byte);
    if text.is_empty() || text.len() > LIMIT || !text.bytes().all(printable) {
        return Err(
            "write the field's value, at most 1024 bytes of ASCII, or `-` to remove the field"
                .into(),
        );
    }
    let value = (text != "-").then(|| text.to_owned());
    Ok(FrontSetting::Header(side, name.to_owned(), value).into())
}

/// The option's name with `-` in the field's name, for which variables of containers have `_`.
pub(in crate::options) fn canonical(name: String) -> String {
    match name.strip_prefix(FAMILY).and_then(split) {
        Some((_, field)) => {
            let start = &name[..name.len() - field.len()];
            format!("{start}{}", field.replace('_', "-"))
        }
        None => name,
    }
}

fn split(rest: &str) -> Option<(Side, &str)> {
    let of = |prefix, side| rest.strip_prefix(prefix).map(|name| (side, name));
    of("request_", Side::Request).or_else(|| of("response_", Side::Response))
}

/// RFC 9110 section 5.6.2, in lower case.
pub(super) fn is_token(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(legal)
}

pub(super) const FAMILY: &str = "lb_header_";

/// Bytes of a value.
const LIMIT: usize = 1024;
