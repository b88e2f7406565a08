//! What is counted of a request's first line: its method, if that is a usual one, and the version of HTTP. One small number.

use hyper::{Method, Version};

/// A method, or that it is another one, and a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spoken(u8);

impl Spoken {
    pub(super) fn of(method: &Method, version: Version) -> Self {
        let method = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::DELETE => 4,
            Method::CONNECT => 5,
            Method::OPTIONS => 6,
            Method::TRACE => 7,
            Method::PATCH => 8,
            _ => OTHER,
        };
        let version = match version {
            Version::HTTP_10 => 0,
            Version::HTTP_2 => 2,
            _ => 1,
        };
        Self(method * LENGTH + version)
    }

    /// The word of the method in metrics.
    pub(super) fn method(self) -> &'static str {
        METHODS[usize::from(self.0 / LENGTH)]
    }

    /// That of the version.
    pub(super) fn version(self) -> &'static str {
        VERSIONS[usize::from(self.0 % LENGTH)]
    }
}

/// Methods that are counted each with its own word, a bit for each: what every service may be asked, and what this one has
/// answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Methods(u16);

impl Default for Methods {
    fn default() -> Self {
        Self(0b111) // GET, HEAD, POST
    }
}

impl Methods {
    /// This one has been answered.
    pub(super) fn learn(&mut self, spoken: Spoken) {
        self.0 |= Self::bit(spoken);
    }

    /// The same with another method if it is none of these.
    pub(super) fn known(self, spoken: Spoken) -> Spoken {
        match self.0 & Self::bit(spoken) {
            0 => Spoken(OTHER * LENGTH + spoken.0 % LENGTH),
            _ => spoken,
        }
    }

    fn bit(spoken: Spoken) -> u16 {
        1 << (spoken.0 / LENGTH)
    }
}

/// Those of RFC 9110, section 9.3, and PATCH; the last stands for what clients may think of.
const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "other",
];
const OTHER: u8 = 9;
const VERSIONS: [&str; 3] = ["1.0", "1.1", "2"];
const LENGTH: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_and_version_has_its_word_and_every_other_method_one() {
        for (number, word) in METHODS.iter().enumerate().take(usize::from(OTHER)) {
            let method: Method = word.parse().unwrap();
            for (version, name) in [
                (Version::HTTP_10, "1.0"),
                (Version::HTTP_11, "1.1"),
                (Version::HTTP_2, "2"),
            ] {
                let spoken = Spoken::of(&method, version);
                assert_eq!((spoken.method(), spoken.version()), (*word, name));
                assert_eq!(usize::from(spoken.0 / LENGTH), number);
            }
        }
        for strange in ["PROPFIND", "get", "X"] {
            let method: Method = strange.parse().unwrap();
            assert_eq!(Spoken::of(&method, Version::HTTP_2).method(), "other");
        }
    }
}
