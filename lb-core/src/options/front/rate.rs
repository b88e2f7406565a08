//! The value of `lb_rate`.

use lb_front::rules::Rate;

use super::{FrontSetting, Setting, Wrong};

pub(super) fn rate(text: &str) -> Result<Setting, Wrong> {
    if text == "off" {
        return Ok(FrontSetting::Rate(None).into());
    }
    let (rate, burst) = match text.split_once(char::is_whitespace) {
        Some((rate, burst)) => (rate, Some(burst.trim())),
        None => (text, None),
    };
    let (requests, unit) = rate.split_once('/').unwrap_or((rate, "s"));
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let number = |text: &str| {
        text.parse()
            .ok()
            .filter(|number| (1..=MOST).contains(number))
    };
    let rate = number(requests)
        .zip(seconds)
        .and_then(|(requests, seconds)| {
            let burst = match burst {
                // As many as come in a second.
                None => u64::from(requests).div_ceil(seconds).try_into().ok(),
                Some(burst) => number(burst.strip_prefix("burst")?.trim_start()),
            };
            Some(Rate {
                requests,
                seconds,
                burst: burst?,
            })
        });
    match rate {
        Some(rate) => Ok(FrontSetting::Rate(Some(rate)).into()),
        None => Err(
            "write requests per second, such as `10`, or `600/m` or `3600/h`, with `burst` and how many may come at once \
             behind it if you like, each from 1 to 1000000; or `off`"
                .into(),
        ),
    }
}

/// More is no limit.
const MOST: u32 = 1_000_000;
