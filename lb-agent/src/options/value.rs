//! Single values: the text of one option, a duration, a host name.

use std::{collections::BTreeSet, time::Duration};

use super::{Balance, CheckKind, Setting};

/// The option `name` with the value `text`.
///
/// # Errors
///
/// What to write instead, as the rest of a sentence.
pub(super) fn setting(name: &str, text: &str) -> Result<Setting, String> {
    match name {
        "lb_balance" => balance(text).map(Setting::Balance),
        "lb_check" => check(text).map(Setting::Check),
        "lb_port" => ports(text).map(Setting::Ports),
        "lb_drain" => drain(text).map(Setting::Drain),
        "lb_expose" => expose(text).map(Setting::Expose),
        "lb_weight" => weight(text).map(Setting::Weight),
        later if LATER.contains(&later) || later.starts_with("lb_header_") => {
            Err("this version does not support it; remove it until yours does".to_owned())
        }
        _ => Err(format!(
            "there is no such option; those of this version are {}",
            NOW.join(", ")
        )),
    }
}

fn balance(text: &str) -> Result<Balance, String> {
    match text {
        "least-conn" => Ok(Balance::LeastConn),
        "round-robin" => Ok(Balance::RoundRobin),
        "random" => Ok(Balance::Random),
        "maglev" => Err(
            "this version does not support it; write least-conn, round-robin or random".to_owned(),
        ),
        _ => Err("write least-conn, round-robin or random".to_owned()),
    }
}

fn check(text: &str) -> Result<CheckKind, String> {
    let remedy = || Err("write `tcp`, `off`, or `http` and a path, such as `http /`".to_owned());
    match text.split_once(char::is_whitespace) {
        None if text == "tcp" => Ok(CheckKind::Tcp),
        None if text == "off" => Ok(CheckKind::Off),
        Some(("http", path)) => {
            let path = path.trim();
            // What may stand in a request line as it is (RFC 9112 section 3.2): no blank, no fragment.
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
            if path.starts_with('/') && path.len() <= PATH_LIMIT && path.bytes().all(plain) {
                Ok(CheckKind::Http(path.to_owned()))
            } else {
                remedy()
            }
        }
        _ => remedy(),
    }
}

fn ports(text: &str) -> Result<BTreeSet<u16>, String> {
    let port = |part: &str| part.trim().parse().ok().filter(|&port| port != 0);
    text.split(',')
        .map(port)
        .collect::<Option<_>>()
        .ok_or_else(|| "write ports from 1 to 65535, separated by commas".to_owned())
}

fn drain(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(24 * 60 * 60);
    parse_duration(text)
        .filter(|drain| *drain <= longest)
        .ok_or_else(|| "write seconds, such as `30` or `30s`, at most a day".to_owned())
}

fn expose(text: &str) -> Result<bool, String> {
    match text {
        // The bare tag.
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

fn weight(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "write a whole number from 0 to 65535".to_owned())
}

/// A duration such as `30`, `30s`, `100ms`, `2m` or `1h`; a bare number counts seconds.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Whether `name` can be asked of a resolver: labels of letters, digits and inner hyphens, at most 63 bytes
/// each (RFC 1123 section 2.1) and 253 in all (RFC 1035 section 2.3.4, less the length bytes of the ends).
pub(crate) fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The host name of a service: `_` written as `.`.
pub(crate) fn dotted(service: &str) -> String {
    service.replace('_', ".")
}

const PATH_LIMIT: usize = 1024;

/// The options that act.
const NOW: [&str; 6] = [
    "lb_balance",
    "lb_check",
    "lb_drain",
    "lb_expose",
    "lb_port",
    "lb_weight",
];

/// The options that are spoken for and do not act yet; `lb_header_*` beside them.
const LATER: [&str; 17] = [
    "lb_affinity",
    "lb_allow",
    "lb_auth",
    "lb_canary",
    "lb_compress",
    "lb_cors",
    "lb_deny",
    "lb_local",
    "lb_maintenance",
    "lb_path",
    "lb_proto",
    "lb_rate",
    "lb_redirect",
    "lb_retries",
    "lb_sticky",
    "lb_strip",
    "lb_timeout",
];
