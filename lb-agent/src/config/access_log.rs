//! `[front.access_log]`: what the front writes down of the requests.

use std::{ops::RangeInclusive, time::Duration};

use lb_front::log::{LogFormat, LogSettings};

use super::{Given, RawConfig, resolve::Judge};
use crate::options::parse_duration;

pub(super) fn resolve(raw: &RawConfig, judge: &mut Judge<'_>) -> LogSettings {
    let slower = raw.access_log_slower_than.as_ref();
    let slower = slower.map(|_| {
        let given = &raw.access_log_slower_than;
        judge.text(given, Duration::ZERO, time)
    });
    let yes = |given: &Option<Given<bool>>| given.as_ref().is_some_and(|it| it.value);
    LogSettings {
        format: judge.text(&raw.access_log_format, None, format),
        status: judge.list(&raw.access_log_status, Vec::new(), statuses),
        slower_than: slower,
        retried: yes(&raw.access_log_retried),
        redact_query: yes(&raw.access_log_redact_query),
        headers: judge.list(&raw.access_log_headers, Vec::new(), field),
        redact: judge.list(&raw.access_log_redact, Vec::new(), field),
    }
}

fn format(text: &str) -> Result<Option<LogFormat>, String> {
    match text {
        "off" => Ok(None),
        "common" => Ok(Some(LogFormat::Common)),
        "combined" => Ok(Some(LogFormat::Combined)),
        "json" => Ok(Some(LogFormat::Json)),
        _ => Err("write off, common, combined or json".to_owned()),
    }
}

/// One status, or two with a `-` between them.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse().ok().filter(|&number| number <= 999);
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => Ok(from..=to),
        _ => Err(
            "write a status or a range, such as 404 or 500-599; 0 is that of no answer".to_owned(),
        ),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a time, such as 500ms".to_owned())
}

fn field(text: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !text.is_empty() && text.bytes().all(legal) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("write the name of a header field, such as X-Tenant".to_owned())
    }
}
