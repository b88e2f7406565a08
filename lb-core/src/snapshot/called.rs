//! What people and metrics call services: a label names one of them, and so does what somebody types.

use std::sync::Arc;

use super::{Service, ServiceName, Snapshot};
use crate::cow_map::CowMap;

/// The name on the page, in metrics and as an anchor: `www_hello`, or `hello_www` for the part of `www` that is tagged
/// `hello`. Where a whole service is called so, the part has one more `_` in front (`_hello_www`).
///
/// No two services have the same: a tag is a DNS name, without `_`, so that a part's label is read in one way only.
pub fn label(services: &CowMap<ServiceName, Arc<Service>>, name: &ServiceName) -> Arc<str> {
    let Some(tag) = &name.tag else {
        return name.service.clone();
    };
    let mut label = format!("{tag}_{}", name.service);
    while services.contains_key(&ServiceName::whole(&*label)) {
        label.insert(0, '_');
    }
    label.into()
}

impl Snapshot {
    /// The [`label`] of a service.
    pub fn label(&self, name: &ServiceName) -> Arc<str> {
        label(&self.services, name)
    }

    /// The service that people call `text`: by its name or its label.
    pub fn find(&self, text: &str) -> Option<(&ServiceName, &Service)> {
        let mut meant = ServiceName::meant_by(text);
        let found = meant.find_map(|it| self.services.get_key_value(&it));
        found.map(|(name, service)| (name, &**service))
    }
}

impl ServiceName {
    /// Whom `text` may mean; the first that there is, is meant: a whole service, else a part by its name (`www.hello`), else
    /// one by its label (`hello_www`).
    pub fn meant_by(text: &str) -> impl Iterator<Item = Self> {
        let names = text
            .match_indices('.')
            .map(|(at, _)| Self::part(&text[..at], &text[at + 1..]));
        let label = text.trim_start_matches('_');
        let labels = label
            .match_indices('_')
            .map(|(at, _)| Self::part(&label[at + 1..], &label[..at]));
        std::iter::once(Self::whole(text))
            .chain(names)
            .chain(labels)
    }
}
