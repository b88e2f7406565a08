//! What the allocator knows of addresses, for people to read.

use std::collections::BTreeMap;

use super::Allocator;
use crate::vip::{
    Names,
    order::{Entry, How},
};

impl Allocator {
    /// Every address that somebody has or that is kept from others, in their order.
    pub fn list(&self, names: &Names) -> Vec<Entry> {
        let mut entries = BTreeMap::new();
        for (name, given) in &self.given {
            let home = self.pool.home(&self.datacenter, name);
            let how = match names.get(name) {
                Some(Some(wish)) if *wish == given.address => How::Wish,
                _ if given.address == home => How::Hash,
                _ => How::Kept,
            };
            let entry = Entry {
                address: given.address,
                service: Some(name.to_string()),
                how,
                in_use: true,
                since_unix: Some(given.since.as_secs()),
                until_unix: None,
            };
            entries.insert(given.address, entry);
        }
        for (address, left) in &self.left {
            let entry = Entry {
                address: *address,
                service: Some(left.name.to_string()),
                how: How::Quarantine,
                in_use: false,
                since_unix: Some(left.since.as_secs()),
                until_unix: Some(left.since.saturating_add(self.quarantine).as_secs()),
            };
            entries.insert(*address, entry);
        }
        for (address, owner) in &self.records {
            let here = entries.get(address).filter(|entry| entry.in_use);
            let in_use = here.is_some();
            let given = here.and_then(|entry| entry.since_unix);
            let recorded = owner.as_ref().and_then(|it| it.since);
            let entry = Entry {
                address: *address,
                service: owner.as_ref().map(|it| it.name.to_string()),
                how: match owner {
                    None => How::Unreadable,
                    Some(owner) if owner.pinned => How::Pin,
                    Some(_) if here.is_some_and(|entry| entry.how == How::Wish) => How::Wish,
                    Some(_) => How::Record,
                },
                in_use,
                since_unix: recorded.map(|since| since.as_secs()).or(given),
                until_unix: None,
            };
            entries.insert(*address, entry);
        }
        entries.into_values().collect()
    }
}
