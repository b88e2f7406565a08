//! `lb_header_*`: fields that are set or removed, in requests to a backend and in its answers.

use std::collections::BTreeMap;

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

/// What becomes of some fields; with `None` they are removed.
pub(super) struct Fields(Box<[(HeaderName, Option<HeaderValue>)]>);

impl Fields {
    pub(super) fn new(rules: &BTreeMap<String, Option<String>>) -> Self {
        let ready = rules.iter().filter_map(|(name, value)| {
            let name = HeaderName::try_from(name).ok()?;
            let value = value.as_ref().map(HeaderValue::try_from);
            Some((name, value.transpose().ok()?))
        });
        Self(ready.collect())
    }

    /// A field that is set stands once, whatever was there.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            match value {
                Some(value) => drop(headers.insert(name, value.clone())),
                None => drop(headers.remove(name)),
            }
        }
    }

    /// The same, and no field stays that a server may read as one of these since it has `_` for `-`.
    pub(super) fn apply_alone(&self, headers: &mut HeaderMap) {
        self.apply(headers);
        let imitates = |name: &&HeaderName| name.as_str().contains('_') && self.rules(name);
        let imitations: Vec<_> = headers.keys().filter(imitates).cloned().collect();
        for name in imitations {
            headers.remove(name);
        }
    }

    /// Whether one of them is `name` with `-` for `_`.
    fn rules(&self, name: &HeaderName) -> bool {
        let read = |byte| if byte == b'_' { b'-' } else { byte };
        let mut names = self.0.iter();
        names.any(|(ruled, _)| name.as_str().bytes().map(read).eq(ruled.as_str().bytes()))
    }
}
