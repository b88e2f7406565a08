//! Host names that several services share by path: the longest prefix of whole segments wins.
//!
//! A path is compared as it stands, byte by byte, and never made simpler. One that a backend might read as another path
//! is not routed by at all, if that one is another service's or nobody can say whose.

use std::{collections::BTreeMap, ops::Bound};

use super::Place;

/// Below one host name, prefixes such as `/api` and the place of the service behind each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths(BTreeMap<String, BTreeMap<String, Place>>);

/// A path that means different things to different readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

impl Paths {
    /// The place of the service that has `path` of `host`; `None` if that is for whoever has the host.
    ///
    /// # Errors
    ///
    /// When the host is shared and the path is ambiguous.
    pub(super) fn find(&self, host: &str, path: &str) -> Result<Option<Place>, Ambiguous> {
        // Most fronts have none.
        let prefixes = match self.0.is_empty() {
            true => None,
            false => self.0.get(host),
        };
        let Some(prefixes) = prefixes else {
            return Ok(None);
        };
        if is_ambiguous(path) {
            return Err(Ambiguous);
        }
        let found = owner(prefixes, path);
        match simplified(path) {
            Some(simple) if owner(prefixes, &simple) != found => Err(Ambiguous),
            _ => Ok(found),
        }
    }

    /// Whose `prefix` of `host` it is from now on.
    pub fn set(&mut self, host: &str, prefix: &str, place: Option<Place>) {
        match place {
            Some(place) => {
                let prefixes = self.0.entry(host.to_owned()).or_default();
                prefixes.insert(prefix.to_owned(), place);
            }
            None => {
                if let Some(prefixes) = self.0.get_mut(host) {
                    prefixes.remove(prefix);
                    if prefixes.is_empty() {
                        self.0.remove(host);
                    }
                }
            }
        }
    }

    /// Whose `prefix` of `host` it is.
    pub fn owner(&self, host: &str, prefix: &str) -> Option<Place> {
        self.0.get(host)?.get(prefix).copied()
    }

    /// Host, prefix and place of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Place)> {
        self.0.iter().flat_map(|(host, prefixes)| {
            let of_host = prefixes.iter();
            of_host.map(move |(prefix, place)| (host.as_str(), prefix.as_str(), *place))
        })
    }
}

/// Whether `path` is `prefix` or goes on with another segment behind it.
pub fn lies_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whose `path` is, of a host with these `prefixes`.
fn owner(prefixes: &BTreeMap<String, Place>, path: &str) -> Option<Place> {
    // Of the prefixes of one text, the longer ones come later in order.
    let not_after = (Bound::Unbounded, Bound::Included(path));
    let mut before = prefixes.range::<str, _>(not_after).rev();
    let found = before.find(|(prefix, _)| lies_under(path, prefix));
    found.map(|(_, place)| *place)
}

/// Whether readers disagree on where `path` leads: a segment `.` or `..` in whatever form, with parameters behind it or
/// not, or what some take for a slash.
fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    let encoded = |pair: &[u8]| {
        bytes
            .windows(3)
            .any(|it| it[0] == b'%' && it[1..].eq_ignore_ascii_case(pair))
    };
    bytes.contains(&b'\\')
        || bytes.contains(&b'%') && (encoded(b"2f") || encoded(b"5c"))
        || bytes.split(|&byte| byte == b'/').any(is_dots)
}

/// `path` as a server has it that decodes escapes, knows no parameters and merges slashes, if that is another one.
///
/// If it is the same service's, so is `path` to a server that does only some of that: no prefix has an escape, a
/// parameter or an empty segment.
fn simplified(path: &str) -> Option<String> {
    let is_odd = |pair: &[u8]| matches!(pair, [b'%' | b';', _] | [b'/', b'/']);
    if !path.as_bytes().windows(2).any(is_odd) && !path.ends_with(';') {
        return None;
    }
    let mut simple = String::with_capacity(path.len());
    for segment in decoded(path).split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        if !name.is_empty() {
            simple.push('/');
            simple.push_str(name);
        }
    }
    Some(simple)
}

/// `path` without escapes. What is no letter of ASCII comes out as any other one: no prefix has it.
fn decoded(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (letter, rest) = escape(piece).unwrap_or(('%', piece));
        decoded.push(letter);
        decoded.push_str(rest);
    }
    decoded
}

/// What the two digits that `piece` begins with stand for, and what is behind them.
fn escape(piece: &str) -> Option<(char, &str)> {
    let mut letters = piece.chars();
    let high = letters.next()?.to_digit(16)?;
    let low = letters.next()?.to_digit(16)?;
    Some((char::from_u32(16 * high + low)?, letters.as_str()))
}

fn is_dots(segment: &[u8]) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    loop {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            [] | [b';', ..] => return dots == 1 || dots == 2,
            // Encoded, it may come to the same.
            [b'%', b'3', b'b' | b'B', ..] => return dots == 1 || dots == 2,
            _ => return false,
        };
        dots += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(prefixes: &[&str]) -> Paths {
        let mut paths = Paths::default();
        for (place, prefix) in (0..).zip(prefixes) {
            paths.set("web", prefix, Some(place));
        }
        paths
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let paths = paths(&["/api", "/api/v1", "/a", "/api-old"]);
        for (path, place) in [
            ("/api", Some(0)),
            ("/api/", Some(0)),
            ("/api/v1", Some(1)),
            ("/api/v1/x", Some(1)),
            ("/api/v10", Some(0)),
            ("/api/v", Some(0)),
            ("/api-old/x", Some(3)),
            ("/api-x", None),
            ("/apix", None),
            ("/a/b", Some(2)),
            ("/", None),
            ("*", None),
            ("/API", None),
            // Read otherwise, they are the same one's.
            ("/%78/api", None),
            ("//x", None),
            ("/api//x", Some(0)),
            ("/api/%76", Some(0)),
            ("/api/v1/%61;b", Some(1)),
            ("/%2561pi", None),
            ("/api%3", None),
            ("/api%zz", None),
        ] {
            assert_eq!(paths.find("web", path), Ok(place), "{path}");
            assert_eq!(paths.find("other", path), Ok(None));
        }
    }

    #[test]
    fn a_path_that_may_be_another_one_is_not_routed_by() {
        let paths = paths(&["/api"]);
        for path in [
            "/api/../x",
            "/./api",
            "/..",
            "/api/.",
            "/api/%2e%2E/x",
            "/.%2e/api",
            "/api%2fx",
            "/api%2Fx",
            "/x\\api",
            "/x%5Capi",
            "/api/..;/x",
            "/api/..;a=b/x",
            "/api/.%3Bx/y",
            // Other spellings of a path under the prefix.
            "/%61pi",
            "/%61%70%69/x",
            "//api",
            "/api%3b",
            "/api;a=b/x",
            "/;x/api",
            "/%3B//ap%69",
        ] {
            assert_eq!(paths.find("web", path), Err(Ambiguous), "{path}");
            assert_eq!(paths.find("other", path), Ok(None), "{path}");
        }
        for path in [
            "/api/...",
            "/api/.x",
            "/api/x..",
            "/api/%2ex",
            "/api/%20",
            "/api/a;b",
            "/.well-known/x",
        ] {
            assert!(paths.find("web", path).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_prefix_that_is_taken_away_leaves_the_host_to_its_owner() {
        let mut paths = paths(&["/api"]);
        paths.set("web", "/api", None);
        paths.set("web", "/api", None);
        assert_eq!(paths, Paths::default());
        assert_eq!(paths.find("web", "/api/.."), Ok(None));
    }

    proptest! {
        #[test]
        fn the_match_is_that_of_a_plain_search(
            prefixes in proptest::collection::btree_set("(/[ab-]{1,2}){1,3}", 0..6),
            path in "(/[ab-]{1,3}){1,4}/?",
        ) {
            let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
            let found = paths(&prefixes).find("web", &path).unwrap();
            let segments = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
            let plain = (0..).zip(&prefixes);
            let plain = plain.filter(|(_, prefix)| segments(&path).starts_with(&segments(prefix)));
            let plain = plain.max_by_key(|(_, prefix)| prefix.len());
            prop_assert_eq!(found, plain.map(|(place, _)| place));
        }

        #[test]
        fn whoever_reads_a_path_that_is_routed_by_reads_one_of_the_same_service(
            prefixes in proptest::collection::btree_set("(/[ab]{1,2}){1,3}", 1..6),
            path in "(/([ab]|%61|%6[2F]|%25|%3B|;){0,3}){1,4}",
            ways in any::<[bool; 3]>(),
        ) {
            let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
            let paths = paths(&prefixes);
            if let Ok(found) = paths.find("web", &path) {
                let read = read(&path, ways);
                prop_assert_eq!(owner(&paths.0["web"], &read), found, "{} for {}", read, path);
            }
        }
    }

    /// `path` as it is to a server that decodes escapes, that knows parameters, or that merges slashes.
    fn read(path: &str, [decodes, cuts, merges]: [bool; 3]) -> String {
        let mut read = path.to_owned();
        if decodes {
            for (escape, letter) in [("%61", "a"), ("%62", "b"), ("%6F", "o"), ("%3B", ";")] {
                read = read.replace(escape, letter);
            }
            read = read.replace("%25", "%");
        }
        if cuts {
            let segments = read.split('/');
            let segments = segments.map(|it| it.split(';').next().unwrap());
            read = segments.collect::<Vec<_>>().join("/");
        }
        while merges && read.contains("//") {
            read = read.replace("//", "/");
        }
        read
    }
}
