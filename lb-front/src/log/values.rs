//! Values as they stand in a line.

use std::{io::Write as _, time::Duration};

/// Addresses alone: their length is bounded.
pub(super) fn display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    // A buffer in memory takes everything.
    let _ = write!(out, "{value}");
}

pub(super) fn number(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// With three places.
pub(super) fn milliseconds(time: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    number(micros / 1000, out);
    out.push(b'.');
    padded(micros % 1000, 3, out);
}

pub(super) fn padded(value: u64, places: u32, out: &mut Vec<u8>) {
    for place in (0..places).rev() {
        let digit = value / 10_u64.pow(place) % 10;
        out.push(b'0' + u8::try_from(digit).unwrap_or_default());
    }
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    for digit in [byte >> 4, byte & 15] {
        out.push(b"0123456789abcdef"[usize::from(digit)]);
    }
}

/// As Apache and nginx write what a client sent: nothing of it ends a field or a line.
pub(super) fn escaped(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => {
                out.extend_from_slice(b"\\x");
                hex(byte, out);
            }
        }
    }
}

/// The same of what ends at a blank.
pub(super) fn word(text: &[u8], out: &mut Vec<u8>) {
    for (at, part) in text.split(|&byte| byte == b' ').enumerate() {
        if at > 0 {
            out.extend_from_slice(b"\\x20");
        }
        escaped(part, out);
    }
}

pub(super) fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    json_escaped(text, out);
    out.push(b'"');
}

/// Bytes that are not UTF-8 are shown as the characters of Latin-1, which they mostly are.
pub(super) fn json_escaped(text: &[u8], out: &mut Vec<u8>) {
    let is_utf8 = std::str::from_utf8(text).is_ok();
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            0x80.. if is_utf8 => out.push(byte),
            _ => {
                out.extend_from_slice(b"\\u00");
                hex(byte, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_digits() {
        let mut out = Vec::new();
        for value in [0, 9, 10, 1203, u64::MAX] {
            number(value, &mut out);
            out.push(b' ');
        }
        milliseconds(Duration::from_micros(1_000_042), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "0 9 10 1203 18446744073709551615 1000.042"
        );
    }
}
