//! Durations as Go writes them, which is how Consul reads them: `10s`, `1m30s`, `1.5h`.

use std::time::Duration;

/// A duration above zero; `None` if Consul would refuse it, or it is longer than a year.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
            .count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind
            .bytes()
            .take_while(|byte| !byte.is_ascii_digit() && *byte != b'.')
            .count();
        let (unit, after) = behind.split_at(letters);
        seconds += number.parse::<f64>().ok()? * unit_seconds(unit)?;
        rest = after;
    }
    let year = 365.0 * 86_400.0;
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    // Milliseconds are what we write.
    (duration >= Duration::from_millis(1) && seconds <= year).then_some(duration)
}

/// The same for Consul.
pub(crate) fn text(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1e-9),
        "us" | "µs" | "μs" => Some(1e-6),
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    }
}

/// What to write.
pub(super) const REMEDY: &str = "write a time with its unit, such as 10s or 1m30s";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_units_and_is_above_zero() {
        for (given, expect) in [
            ("10s", Some("10s")),
            ("1m30s", Some("90s")),
            ("1.5h", Some("5400s")),
            ("500ms", Some("500ms")),
            ("1500us", Some("1ms")),
            ("10", None),
            ("", None),
            ("0s", None),
            ("s", None),
            (".s", None),
            ("-5s", None),
            ("1.2.3s", None),
            ("5 s", None),
            ("99999999h", None),
            ("10µ", None),
        ] {
            assert_eq!(parse(given).map(text).as_deref(), expect, "{given}");
        }
    }
}
