//! Names that carry an IP address: `www.127.0.0.1.nip.io`, `app-10-0-0-5.sslip.io`, `7f000001.xip.io`.
//!
//! The public services behind these suffixes read them in one order, which this follows so that a name
//! means the same here as everywhere: a dashed IPv4 address first, then a dotted one, then eight hex
//! digits, and of one form the leftmost. IPv6 is written with dashes for colons, or as 32 hex digits.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The addresses that `name` carries; `None` if it lies under no known suffix or carries none.
///
/// `name` is in lower case, without the trailing dot.
pub fn carried(name: &str) -> Option<Carried> {
    let rest = before_suffix(name)?;
    let carried = Carried {
        v4: ipv4(rest),
        v6: ipv6(rest),
    };
    (carried.v4.is_some() || carried.v6.is_some()).then_some(carried)
}

/// What `name` may be the name of, once a known suffix and the address before it are taken off:
/// `www.hello` of `www.hello.10.0.0.7.nip.io`. Where the end can be read as addresses of different length, the
/// longest comes first: `a-1-2-3-4-5-6-7-8` may be `a`, or `a-1-2-3-4`.
///
/// `name` is in lower case, without the trailing dot.
pub fn named(name: &str) -> impl Iterator<Item = &str> {
    // As in `dashed_ipv6`: there is no such name.
    let possible = |rest: &&str| rest.split('.').all(|label| label.len() <= LABEL_LIMIT);
    let rest = before_suffix(name).filter(possible);
    rest.into_iter().flat_map(|rest| {
        // Where an address can begin at the earliest.
        let foreign = |c: char| !(c.is_ascii_hexdigit() || c == '.' || c == '-');
        let from = rest.rfind(foreign).unwrap_or(0);
        rest.match_indices(['.', '-'])
            .filter(move |(at, _)| *at > from)
            .filter(|(at, _)| is_address(&rest[at + 1..]))
            .map(|(at, _)| &rest[..at])
    })
}

fn before_suffix(name: &str) -> Option<&str> {
    SUFFIXES
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix)?.strip_suffix('.'))
}

/// Whether `text` is an address in one of the forms, and nothing else.
fn is_address(text: &str) -> bool {
    let quad = |separator: char| {
        let mut words = text.split(separator);
        words.by_ref().take(4).filter_map(octet).count() == 4 && words.next().is_none()
    };
    let dashed = || {
        !text.contains('.')
            && text.contains('-')
            && text.replace('-', ":").parse::<Ipv6Addr>().is_ok()
    };
    quad('.') || quad('-') || is_hex(text, 8) || is_hex(text, 32) || dashed()
}

/// What a name carries. Both can be there: `1-2-3-4-5-6-7-8` is an IPv6 address and begins with an IPv4 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The answer to an A query.
    pub v4: Option<Ipv4Addr>,
    /// The answer to an AAAA query.
    pub v6: Option<Ipv6Addr>,
}

impl Carried {
    /// Whether the name means the machine it is asked on.
    pub fn is_loopback(&self) -> bool {
        self.v4.is_some_and(|v4| v4.is_loopback()) || self.v6.is_some_and(|v6| v6.is_loopback())
    }
}

/// The IPv4 address within `text`, which is a name without its suffix.
pub fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let words: Vec<&str> = text.split(['.', '-']).collect();
    quad(text, &words, b'-')
        .or_else(|| quad(text, &words, b'.'))
        .or_else(|| {
            let hex = words.iter().find(|word| is_hex(word, 8))?;
            u32::from_str_radix(hex, 16).ok().map(Ipv4Addr::from)
        })
}

/// The leftmost four numbers from 0 to 255 with `separator` between them.
fn quad(text: &str, words: &[&str], separator: u8) -> Option<Ipv4Addr> {
    let bytes = text.as_bytes();
    let mut start = 0;
    for window in words.windows(4) {
        let mut octets = [0; 4];
        let mut end = start;
        let fits = window.iter().enumerate().all(|(i, word)| {
            let joined = i == 0 || bytes.get(end) == Some(&separator);
            end += word.len() + usize::from(i > 0);
            match octet(word) {
                Some(value) => octets[i] = value,
                None => return false,
            }
            joined
        });
        if fits {
            return Some(octets.into());
        }
        start += window[0].len() + 1;
    }
    None
}

/// A decimal number from 0 to 255 without leading zeros, which some readers take for octal.
fn octet(word: &str) -> Option<u8> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let plain = word == "0" || !word.starts_with('0');
    if digits && plain {
        word.parse().ok()
    } else {
        None
    }
}

/// The IPv6 address within `text`: leftmost, and of those that begin there the longest.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    text.split('.').find_map(dashed_ipv6).or_else(|| {
        let hex = text.split(['.', '-']).find(|word| is_hex(word, 32))?;
        u128::from_str_radix(hex, 16).ok().map(Ipv6Addr::from)
    })
}

/// An address with dashes for colons, delimited by dashes or the ends of the label.
fn dashed_ipv6(label: &str) -> Option<Ipv6Addr> {
    // A label has at most 63 bytes on the wire; this keeps the search short for any other caller too.
    if label.len() > LABEL_LIMIT {
        return None;
    }
    let starts = || std::iter::once(0).chain(label.match_indices('-').map(|(at, _)| at + 1));
    let ends = || std::iter::once(label.len()).chain(label.rmatch_indices('-').map(|(at, _)| at));
    starts().find_map(|start| {
        ends()
            .filter(|end| *end > start)
            .find_map(|end| label.get(start..end)?.replace('-', ":").parse().ok())
    })
}

fn is_hex(word: &str, digits: usize) -> bool {
    word.len() == digits && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The services that read addresses out of names. xip.io itself is gone, its names are not.
const SUFFIXES: [&str; 4] = ["nip.io", "sslip.io", "xip.io", "traefik.me"];

/// Bytes of a label (RFC 1035 section 2.3.4).
const LABEL_LIMIT: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(name: &str, v4: Option<&str>, v6: Option<&str>) {
        let expect = (v4.is_some() || v6.is_some()).then(|| Carried {
            v4: v4.map(|text| text.parse().unwrap()),
            v6: v6.map(|text| text.parse().unwrap()),
        });
        assert_eq!(carried(name), expect, "{name}");
    }

    #[test]
    fn ipv4_is_read_in_the_order_of_the_public_services() {
        check("www.hello.127.0.0.1.nip.io", Some("127.0.0.1"), None);
        check("api-1-2-3-4.127.0.0.1.nip.io", Some("1.2.3.4"), None);
        check("10.0.0.1.127.0.0.1.nip.io", Some("10.0.0.1"), None);
        check("svc.2a5bf183.127.0.0.1.nip.io", Some("127.0.0.1"), None);
        check(
            "svc.deadbeef.7f000001.nip.io",
            Some("222.173.190.239"),
            None,
        );
    }

    #[test]
    fn every_known_suffix_is_read_and_no_other() {
        for suffix in ["nip.io", "sslip.io", "xip.io", "traefik.me"] {
            check(&format!("127.0.0.1.{suffix}"), Some("127.0.0.1"), None);
        }
        check("127.0.0.1.example.com", None, None);
        check("127.0.0.1.notnip.io", None, None);
        check("nip.io", None, None);
        check("www.nip.io", None, None);
        check("", None, None);
    }

    #[test]
    fn an_address_ends_at_a_dot_a_dash_or_an_end() {
        check("app-10-0-0-5.sslip.io", Some("10.0.0.5"), None);
        check("10-0-0-5-app.sslip.io", Some("10.0.0.5"), None);
        check("app-10.0.0.5.sslip.io", Some("10.0.0.5"), None);
        check("app10.0.0.5.sslip.io", None, None);
        check("app10.1.0.0.5.sslip.io", Some("1.0.0.5"), None);
        check("app-7f000001.sslip.io", Some("127.0.0.1"), None);
        check("app7f000001.sslip.io", None, None);
        check("7f0000010.sslip.io", None, None);
    }

    #[test]
    fn numbers_above_255_and_leading_zeros_are_no_address() {
        check("256.0.0.1.nip.io", None, None);
        check("1.2.3.04.nip.io", None, None);
        check("1.2.3.nip.io", None, None);
        check("1-2.3-4.nip.io", None, None);
        check("300.1.2.3.4.nip.io", Some("1.2.3.4"), None);
    }

    #[test]
    fn ipv6_is_written_with_dashes_or_32_digits() {
        check("--1.sslip.io", None, Some("::1"));
        check(
            "2a01-4f8-c17-b8f--2.sslip.io",
            None,
            Some("2a01:4f8:c17:b8f::2"),
        );
        check(
            "www.2a01-4f8-c17-b8f--2.nip.io",
            None,
            Some("2a01:4f8:c17:b8f::2"),
        );
        check(
            "www-2a01-4f8-c17-b8f--2.nip.io",
            None,
            Some("2a01:4f8:c17:b8f::2"),
        );
        let digits = "20010db8000000000000000000000001";
        check(&format!("www.{digits}.nip.io"), None, Some("2001:db8::1"));
        check(
            "1-2-3-4-5-6-7-8.nip.io",
            Some("1.2.3.4"),
            Some("1:2:3:4:5:6:7:8"),
        );
        check("www-hello.nip.io", None, None);
    }

    #[test]
    fn what_a_name_is_called_is_what_stands_before_its_address() {
        for (name, expect) in [
            ("www.hello.127.0.0.1.nip.io", Some("www.hello")),
            ("www.hello.10-1-2-3.sslip.io", Some("www.hello")),
            ("www.hello-10-1-2-3.sslip.io", Some("www.hello")),
            ("www.hello-10.1.2.3.traefik.me", Some("www.hello")),
            ("www.hello.0a010203.xip.io", Some("www.hello")),
            ("www.hello-0a010203.xip.io", Some("www.hello")),
            ("www.hello.--1.sslip.io", Some("www.hello")),
            ("www-2a01-4f8-c17-b8f--2.nip.io", Some("www")),
            ("www.20010db8000000000000000000000001.nip.io", Some("www")),
            // The address is the last one, whatever a resolver makes of the first.
            ("api-1-2-3-4.127.0.0.1.nip.io", Some("api-1-2-3-4")),
            ("svc.2a5bf183.127.0.0.1.nip.io", Some("svc.2a5bf183")),
            ("svc.deadbeef.7f000001.nip.io", Some("svc.deadbeef")),
            ("10.0.0.1.127.0.0.1.nip.io", Some("10.0.0.1")),
            ("a-1-2-3-4-5-6-7-8.nip.io", Some("a")),
            ("10.0.0.1.nip.io", None),
            ("www.hello.nip.io", None),
            ("www.1.2.3.300.nip.io", None),
            ("www.1.2.3.04.nip.io", None),
            ("www.127.0.0.1.example.com", None),
            (".nip.io", None),
            ("", None),
        ] {
            assert_eq!(named(name).next(), expect, "{name}");
        }
        let both: Vec<_> = named("a-1-2-3-4-5-6-7-8.nip.io").collect();
        assert_eq!(both, ["a", "a-1-2-3-4"]);
    }

    #[test]
    fn loopback_of_either_family_is_told() {
        assert!(carried("127.9.9.9.nip.io").unwrap().is_loopback());
        assert!(carried("--1.nip.io").unwrap().is_loopback());
        assert!(!carried("10.0.0.1.nip.io").unwrap().is_loopback());
    }

    proptest! {
        #[test]
        fn any_address_in_any_form_is_found(bits: u32, label in "[a-z]{1,8}") {
            let address = Ipv4Addr::from(bits);
            let dotted = address.to_string();
            let forms = [dotted.clone(), dotted.replace('.', "-"), format!("{bits:08x}")];
            for form in forms {
                // The label holds a letter beyond f, or it could be read as an address itself.
                let name = format!("x{label}.{form}.nip.io");
                let found = carried(&name).unwrap();
                prop_assert_eq!(found.v4, Some(address));
                prop_assert_eq!(named(&name).collect::<Vec<_>>(), [format!("x{label}")]);
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,80}", dashes in "[-.0-9a-f]{0,80}") {
            for text in [text, dashes] {
                let name = format!("{text}.nip.io");
                carried(&name);
                prop_assert!(named(&name).all(|before| name.starts_with(before)));
            }
        }
    }
}
