//! Which version of its API is spoken with an engine.

use serde::Deserialize;

/// Those that an engine speaks.
#[derive(Deserialize)]
pub(super) struct Versions {
    #[serde(rename = "ApiVersion", default)]
    newest: Version,
    #[serde(rename = "MinAPIVersion", default)]
    oldest: Version,
}

impl Versions {
    /// The highest that both sides know. What is read here has been the same in all of them: an engine that refuses
    /// all that we know gets its oldest one, which is the nearest.
    pub(super) fn choose(&self) -> Version {
        self.newest.min(KNOWN).max(self.oldest)
    }
}

/// `1.44`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub(super) struct Version(u32, u32);

impl From<String> for Version {
    fn from(text: String) -> Self {
        let parts = text.split_once('.');
        let numbers = parts.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        // Without a version the engine is an old one, and then every request may name the oldest that was.
        numbers.map_or(Self(1, 12), |(major, minor)| Self(major, minor))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The newest version whose description was read for what is used here.
const KNOWN: Version = Version(1, 51);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_that_both_sides_know_is_spoken() {
        let choose = |newest: &str, oldest: &str| {
            let text = format!(r#"{{"ApiVersion":"{newest}","MinAPIVersion":"{oldest}"}}"#);
            let versions: Versions = serde_json::from_str(&text).unwrap();
            versions.choose().to_string()
        };
        assert_eq!(choose("1.41", "1.12"), "1.41");
        assert_eq!(choose("1.52", "1.44"), "1.51");
        // Newer than anything we know.
        assert_eq!(choose("1.90", "1.60"), "1.60");
        assert_eq!(choose("1.9", "1.1"), "1.9");
    }
}
