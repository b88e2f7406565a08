//! Single values: the text of one option, a duration, a host name.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Balance, CheckKind, Local, Packet, Proto, Rule, Setting, Wrong, access,
    table::{self, Read},
};

/// The option `name` with the value `text`.
///
/// # Errors
///
/// When it cannot be used as it is.
pub(super) fn setting(name: &str, text: &str) -> Result<Setting, Wrong> {
    match table::find(name).map(|entry| entry.read) {
        Some(Read::Value(read)) => read(text),
        Some(Read::Member(family, read)) => read(name.strip_prefix(family).unwrap_or(name), text),
        None => {
            let meant = nearest(name).map_or(String::new(), |it| format!("did you mean {it}? "));
            Err(format!("there is no such option; {meant}docs/options.md has all of them").into())
        }
    }
}

/// The option that `name` is most likely a slip of; `None` if it is like none.
fn nearest(name: &str) -> Option<&'static str> {
    // All begin alike.
    let own = |name: &str| name.strip_prefix("lb_").unwrap_or(name).to_owned();
    let name = own(name);
    let all = table::all().map(|entry| (strsim::jaro(&name, &own(entry.name)), entry.name));
    let (likeness, nearest) = all.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness > 0.8).then_some(nearest)
}

pub(super) fn balance(text: &str) -> Result<Setting, Wrong> {
    match text {
        "least-conn" => Ok(Setting::Balance(Balance::LeastConn)),
        "round-robin" => Ok(Setting::Balance(Balance::RoundRobin)),
        "random" => Ok(Setting::Balance(Balance::Random)),
        "maglev" => Ok(Setting::Balance(Balance::Maglev)),
        _ => Err("write least-conn, round-robin, random or maglev".into()),
    }
}

pub(super) fn check(text: &str) -> Result<Setting, Wrong> {
    let remedy = || Err("write `tcp`, `off`, or `http` and a path, such as `http /`".into());
    match text.split_once(char::is_whitespace) {
        None if text == "tcp" => Ok(Setting::Check(CheckKind::Tcp)),
        None if text == "off" => Ok(Setting::Check(CheckKind::Off)),
        Some(("http", path)) => {
            let path = path.trim();
            // What may stand in a request line as it is (RFC 9112 section 3.2): no blank, no fragment.
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
            if path.starts_with('/') && path.len() <= PATH_LIMIT && path.bytes().all(plain) {
                Ok(Setting::Check(CheckKind::Http(path.to_owned())))
            } else {
                remedy()
            }
        }
        _ => remedy(),
    }
}

pub(super) fn ports(text: &str) -> Result<Setting, Wrong> {
    let port = |part: &str| part.trim().parse().ok().filter(|&port| port != 0);
    // Registrator splits tags at commas, which leaves the colon to those who use it.
    let ports: Option<BTreeSet<u16>> = text.split([',', ':']).map(port).collect();
    ports
        .map(Setting::Ports)
        .ok_or_else(|| "write ports from 1 to 65535, separated by commas or colons".into())
}

pub(super) fn drain(text: &str) -> Result<Setting, Wrong> {
    parse_duration(text)
        .filter(|drain| *drain <= LONGEST)
        .map(Setting::Drain)
        .ok_or_else(|| "write seconds, such as `30` or `30s`, at most a day".into())
}

pub(super) fn affinity(text: &str) -> Result<Setting, Wrong> {
    whole_seconds(text).map(Setting::Affinity)
}

pub(super) fn slow_start(text: &str) -> Result<Setting, Wrong> {
    whole_seconds(text).map(Setting::SlowStart)
}

pub(super) fn allow(text: &str) -> Result<Setting, Wrong> {
    access::rules(text)
        .map(Setting::Allow)
        .map_err(|(remedy, mut rules)| {
            // Without a rule everybody would be let in.
            if rules.is_empty() {
                rules.push(Rule::Nobody);
            }
            let left = Some(Setting::Allow(rules));
            Wrong { remedy, left }
        })
}

pub(super) fn deny(text: &str) -> Result<Setting, Wrong> {
    access::rules(text)
        .map(Setting::Deny)
        .map_err(|(remedy, rules)| {
            let left = (!rules.is_empty()).then_some(Setting::Deny(rules));
            Wrong { remedy, left }
        })
}

pub(super) fn proto(text: &str) -> Result<Setting, Wrong> {
    match text {
        "tcp" => Ok(Setting::Proto(Proto::Tcp)),
        "udp" => Ok(Setting::Proto(Proto::Udp)),
        "http" => Ok(Setting::Proto(Proto::Http)),
        "h2c" => Ok(Setting::Proto(Proto::H2c)),
        _ => Err("write tcp, udp, http or h2c".into()),
    }
}

pub(super) fn local(text: &str) -> Result<Setting, Wrong> {
    match text {
        "any" => Ok(Setting::Local(Local::Any)),
        "prefer" => Ok(Setting::Local(Local::Prefer)),
        "only" => Ok(Setting::Local(Local::Only)),
        _ => Err("write any, prefer or only".into()),
    }
}

pub(super) fn packet(text: &str) -> Result<Setting, Wrong> {
    match text {
        "nat" => Ok(Setting::Packet(Packet::Nat)),
        "tunnel" => Ok(Setting::Packet(Packet::Tunnel)),
        "off" => Ok(Setting::Packet(Packet::Off)),
        _ => Err("write nat, tunnel or off".into()),
    }
}

pub(super) fn expose(text: &str) -> Result<Setting, Wrong> {
    match text {
        "true" => Ok(Setting::Expose(true)),
        "false" => Ok(Setting::Expose(false)),
        _ => Err("write true or false".into()),
    }
}

pub(super) fn weight(text: &str) -> Result<Setting, Wrong> {
    text.parse()
        .map(Setting::Weight)
        .map_err(|_| "write a whole number from 0 to 65535".into())
}

/// A time in whole seconds; `off` is none.
fn whole_seconds(text: &str) -> Result<Duration, Wrong> {
    if text == "off" {
        return Ok(Duration::ZERO);
    }
    parse_duration(text)
        .filter(|time| *time <= LONGEST && time.subsec_nanos() == 0)
        .ok_or_else(|| "write whole seconds, such as `30` or `5m`, at most a day, or `off`".into())
}

/// A duration such as `30`, `30s`, `100ms`, `2m` or `1h`; a bare number counts seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
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

/// A number of bytes, with the units that people write.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// Whether `name` can be asked of a resolver: labels of letters, digits and inner hyphens, at most 63 bytes
/// each (RFC 1123 section 2.1) and 253 in all (RFC 1035 section 2.3.4, less the length bytes of the ends).
pub fn is_dns_name(name: &str) -> bool {
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
pub fn dotted(service: &str) -> String {
    service.replace('_', ".")
}

/// The longest time that an option takes: a day.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const PATH_LIMIT: usize = 1024;
