//! Moments as lines tell them.

use std::time::Duration;

use super::{LogFormat, values::padded};

/// The text of the moment that was asked for last: many lines share a second.
#[derive(Debug, Default)]
pub(crate) struct Dates {
    second: Option<(u64, bool)>,
    pub(super) text: Vec<u8>,
}

impl Dates {
    /// `since` 1970 in UTC.
    pub(super) fn tell(&mut self, since: Duration, format: LogFormat) {
        let json = format == LogFormat::Json;
        let second = since.as_secs();
        if self.second != Some((second, json)) {
            self.second = Some((second, json));
            self.text.clear();
            let (year, month, day) = civil(second / 86_400);
            let text = &mut self.text;
            let time = [second / 3600 % 24, second / 60 % 60, second % 60];
            let clock = |text: &mut Vec<u8>| {
                for (place, part) in time.into_iter().enumerate() {
                    if place > 0 {
                        text.push(b':');
                    }
                    padded(part, 2, text);
                }
            };
            if json {
                padded(year, 4, text);
                text.push(b'-');
                padded(month, 2, text);
                text.push(b'-');
                padded(day, 2, text);
                text.push(b'T');
                clock(text);
                text.extend_from_slice(b".000Z");
            } else {
                padded(day, 2, text);
                text.push(b'/');
                let month = usize::try_from(month).unwrap_or_default();
                text.extend_from_slice(MONTHS[(month + 11) % 12].as_bytes());
                text.push(b'/');
                padded(year, 4, text);
                text.push(b':');
                clock(text);
                text.extend_from_slice(b" +0000");
            }
        }
        if json {
            let length = self.text.len();
            self.text.truncate(length - 4);
            padded(u64::from(since.subsec_millis()), 3, &mut self.text);
            self.text.push(b'Z');
        }
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Year, month and day that begin so many days after 1970 does. Counted in years that begin in March, whose months have
/// the same length in each.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(second: u64, millis: u64, format: LogFormat) -> String {
        let mut dates = Dates::default();
        // As the second line in this second, too.
        dates.tell(Duration::from_secs(second), format);
        dates.tell(Duration::from_millis(second * 1000 + millis), format);
        String::from_utf8(dates.text).unwrap()
    }

    #[test]
    fn moments_are_told_as_their_formats_want() {
        // As `date -u` tells them.
        for (second, text, json) in [
            (0, "01/Jan/1970:00:00:00", "1970-01-01T00:00:00"),
            (951_827_696, "29/Feb/2000:12:34:56", "2000-02-29T12:34:56"),
            (1_735_689_599, "31/Dec/2024:23:59:59", "2024-12-31T23:59:59"),
            (4_107_542_400, "01/Mar/2100:00:00:00", "2100-03-01T00:00:00"),
        ] {
            let expected = format!("{text} +0000");
            assert_eq!(told(second, 7, LogFormat::Common), expected);
            let expected = format!("{json}.007Z");
            assert_eq!(told(second, 7, LogFormat::Json), expected);
        }
    }
}
