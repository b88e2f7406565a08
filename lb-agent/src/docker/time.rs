//! The engine's times: RFC 3339 with up to nine digits of a second, in UTC or with an offset.

/// `text` in nanoseconds since 1970; a time before that, as of what never happened, is 0.
pub(super) fn nanoseconds(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let zone = rest.rfind(['Z', '+', '-'])?;
    let (clock, offset) = rest.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (
        clock.next()?.ok()?,
        clock.next()?.ok()?,
        clock.next()?.ok()?,
    );
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second)
        && (0..=9999).contains(&year);
    if !in_range {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second
        - offset_seconds(offset)?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u64 = digits.parse().ok()?;
    let Ok(seconds) = u64::try_from(seconds) else {
        return Some(0);
    };
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// The offset of `Z`, `+02:00` or `-07:00` in seconds.
fn offset_seconds(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let number = |text: &str| text.parse::<u8>().ok().map(i64::from);
    let seconds = number(hours)? * 3_600 + number(minutes)? * 60;
    Some(if text.starts_with('-') {
        -seconds
    } else {
        seconds
    })
}

/// Days from 1970-01-01 in the Gregorian calendar. Years begin in March here, so that the leap day is the last one.
pub(crate) fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::nanoseconds;

    #[test]
    fn times_of_the_engine_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:01.5Z", Some(1_500_000_000)),
            (
                "2026-11-22T18:12:00.123456789Z",
                Some(1_795_371_120_123_456_789),
            ),
            (
                "2026-11-22T20:12:00.123456789+02:00",
                Some(1_795_371_120_123_456_789),
            ),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000_000)),
            // What has not happened.
            ("0001-01-01T00:00:00Z", Some(0)),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-22", None),
            ("2026-11-22T20:12:00+9223372036854775807:00", None),
            ("", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }
}
