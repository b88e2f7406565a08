//! The value of `lb_canary`.

use lb_front::rules::{Canary, WHOLE, may_be_ruled};

use super::{FrontSetting, Setting, Wrong, headers::is_token};

pub(super) fn canary(text: &str) -> Result<Setting, Wrong> {
    let (percent, field) = match text.split_once(char::is_whitespace) {
        Some((percent, rest)) => (percent, Some(rest.trim())),
        None => (text, None),
    };
    let field = field.map(|it| {
        let name = it.strip_prefix("header:")?.to_ascii_lowercase();
        (is_token(&name) && may_be_ruled(&name)).then_some(name)
    });
    match (share(percent), field) {
        (Some(share), None) => Ok(setting(share, None)),
        (Some(share), Some(Some(name))) => Ok(setting(share, Some(name))),
        _ => Err(
            "write a percentage from 0 to 100 with at most two decimals, such as `5`, and behind it `header:` and a field \
             such as `header:x-canary` if requests may choose by that"
                .into(),
        ),
    }
}

fn setting(share: u16, field: Option<String>) -> Setting {
    FrontSetting::Canary(Canary { share, field }).into()
}

/// In hundredths of a percent.
fn share(percent: &str) -> Option<u16> {
    let percent = percent.strip_suffix('%').unwrap_or(percent);
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
    let digits = |text: &str, most| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(whole, 3) || !digits(decimals, 2) {
        return None;
    }
    let share = format!("{whole}{decimals:0<2}").parse().ok()?;
    (share <= WHOLE).then_some(share)
}
