//! What services are called.

use std::{cmp::Ordering, fmt, sync::Arc};

use serde::Serialize;

/// A service, or the part of it whose instances carry a domain tag (`hello` of `www` is `www.hello`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceName {
    /// What Consul calls the service.
    pub service: Arc<str>,
    /// The domain tag that selects a part of it.
    pub tag: Option<Arc<str>>,
}

impl ServiceName {
    /// The whole of a service.
    pub fn whole(service: impl Into<Arc<str>>) -> Self {
        Self {
            service: service.into(),
            tag: None,
        }
    }

    /// The instances of a service that carry `tag`.
    pub fn part(service: impl Into<Arc<str>>, tag: impl Into<Arc<str>>) -> Self {
        Self {
            service: service.into(),
            tag: Some(tag.into()),
        }
    }
}

/// In the order of their texts; a name that shares the text of the other is not read.
impl Ord for ServiceName {
    fn cmp(&self, other: &Self) -> Ordering {
        let texts = |one: &Arc<str>, other: &Arc<str>| {
            if Arc::ptr_eq(one, other) {
                Ordering::Equal
            } else {
                one.cmp(other)
            }
        };
        texts(&self.service, &other.service).then_with(|| match (&self.tag, &other.tag) {
            (Some(one), Some(other)) => texts(one, other),
            (one, other) => one.is_some().cmp(&other.is_some()),
        })
    }
}

impl PartialOrd for ServiceName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            None => f.write_str(&self.service),
            Some(tag) => write!(f, "{}.{tag}", self.service),
        }
    }
}

impl Serialize for ServiceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
