//! From when until when a certificate is good, as far as into the DER as that lies (RFC 5280 section 4.1).

use std::time::{Duration, SystemTime};

use crate::docker::time::days_since_1970;

/// The first and the last moment of the certificate `der`; `None` if it is none.
pub(crate) fn validity(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    // The version has a default.
    if let Some((_, after)) = element(rest, VERSION) {
        rest = after;
    }
    // Serial number, algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = element(rest, tag)?;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    let (until, _) = time(rest)?;
    Some((from, until))
}

/// The content of the element with this `tag` that `bytes` begin with, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, short], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    if short < 0x80 {
        return rest.split_at_checked(short.into());
    }
    // So many bytes have the length.
    let (long, rest) = rest.split_at_checked((short & 0x7f).into())?;
    if long.len() > 4 {
        return None;
    }
    let length = long
        .iter()
        .fold(0, |length, &byte| length << 8 | usize::from(byte));
    rest.split_at_checked(length)
}

fn time(bytes: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (text, rest, digits) = match element(bytes, UTC_TIME) {
        Some((text, rest)) => (text, rest, 2),
        None => {
            let (text, rest) = element(bytes, GENERALIZED_TIME)?;
            (text, rest, 4)
        }
    };
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if text.len() != digits + 10 || !text.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let (year, text) = text.split_at(digits);
    let year: i64 = year.parse().ok()?;
    let year = match digits {
        2 if year < 50 => 2000 + year,
        2 => 1900 + year,
        _ => year,
    };
    let pair = |at: usize| text.get(2 * at..2 * at + 2)?.parse::<i64>().ok();
    let days = days_since_1970(year, pair(0)?, pair(1)?);
    let seconds = days * 86_400 + pair(2)? * 3600 + pair(3)? * 60 + pair(4)?;
    // What began before 1970 began long ago.
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    Some((SystemTime::UNIX_EPOCH.checked_add(since)?, rest))
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn made(from: i32, until: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 2, 28);
        params.not_after = date_time_ymd(until, 3, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn both_ends_are_read_in_either_form() {
        // `date -u -d 2024-02-28 +%s`, and so on.
        let (from, until) = validity(&made(2024, 2026)).unwrap();
        assert_eq!((from, until), (at(1_709_078_400), at(1_772_323_200)));
        // From 2050 on the year has four digits.
        let (_, until) = validity(&made(1999, 2051)).unwrap();
        assert_eq!(until, at(2_561_241_600));
    }

    #[test]
    fn what_is_cut_off_anywhere_is_no_certificate() {
        let made = made(2024, 2026);
        let whole = validity(&made);
        for length in 0..made.len() {
            assert!(
                [None, whole].contains(&validity(&made[..length])),
                "{length}"
            );
            let mut other = made.clone();
            other[length] ^= 0xff;
            // Whatever it is, it is no panic.
            let _ = validity(&other);
        }
    }
}
