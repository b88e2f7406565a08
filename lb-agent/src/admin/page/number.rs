//! Numbers as the page writes them. Pure.

/// With its thousands apart: `1 204`.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            // Narrow, and no place to break a line.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A rate; `?` when it is not known.
pub(super) fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => "?".to_owned(),
        Some(rate) if rate <= 0.0 => "0".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative here, and a rate of flows is far below the limit"
        )]
        Some(rate) => thousands(rate.round() as u64),
    }
}

/// Bytes in the largest unit that leaves a whole number.
pub(super) fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n;
    let mut unit = 0;
    while value >= 10_000 && unit + 1 < units.len() {
        value /= 1000;
        unit += 1;
    }
    format!("{}\u{a0}{}", thousands(value), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        let narrow = |text: &str| text.replace(' ', "\u{202f}");
        for (n, expect) in [
            (0, "0"),
            (999, "999"),
            (1204, "1 204"),
            (1_000_000, "1 000 000"),
        ] {
            assert_eq!(thousands(n), narrow(expect));
        }
    }

    #[test]
    fn small_rates_have_a_decimal_and_unknown_ones_a_mark() {
        let texts = [None, Some(0.0), Some(0.2), Some(9.96), Some(1203.6)].map(per_second);
        assert_eq!(texts, ["?", "0", "0.2", "10.0", "1\u{202f}204"]);
    }

    #[test]
    fn bytes_are_in_a_unit_that_people_read() {
        let texts = [0, 9_999, 12_345, 5_000_000_000].map(bytes);
        let expect = ["0 B", "9_999 B", "12 kB", "5_000 MB"];
        let expect = expect.map(|it| it.replace(' ', "\u{a0}").replace('_', "\u{202f}"));
        assert_eq!(texts, expect);
    }
}
