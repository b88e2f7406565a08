//! What operators ask of the VIP stage, what is answered, and the judgement on an order.

use std::{fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{Names, allocator::Allocator, record::Owner};
use crate::snapshot::ServiceName;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// To see every address that is given or kept.
    List,
    /// A service to have this address from now on, on every host.
    Pin {
        /// The service, or the part `service.tag`; it need not exist yet.
        service: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// To end a pin, a record or a quarantine.
    Release {
        /// The address, or the service that it is kept for.
        target: String,
    },
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
pub struct Entry {
    /// The address.
    pub address: Ipv4Addr,
    /// Whose it is or was; `null` if its record cannot be read.
    pub service: Option<String>,
    /// Why it is.
    pub how: How,
    /// Whether the service is there.
    pub in_use: bool,
    /// Since when, in seconds since 1970: recorded, given by this agent, or left; `null` when not known.
    pub since_unix: Option<u64>,
    /// When the quarantine ends, in seconds since 1970.
    pub until_unix: Option<u64>,
}

/// Why an address is a service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// By the hash of its name.
    Hash,
    /// By a record, because the hash leads to another's address.
    Record,
    /// By the wish of its registration.
    Wish,
    /// By an operator.
    Pin,
    /// It had it before.
    Kept,
    /// It left a short time ago.
    Quarantine,
    /// The record cannot be read.
    Unreadable,
}

impl How {
    /// The word in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Record => "record",
            Self::Wish => "wish",
            Self::Pin => "pin",
            Self::Kept => "kept",
            Self::Quarantine => "quarantine",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which service `text` means: a service of that name, else a part, else a service that is yet to come.
pub fn named(text: &str, names: &Names, allocator: &Allocator) -> ServiceName {
    let whole = ServiceName::whole(text);
    let owners = allocator.records().values().flatten().map(|it| &it.name);
    let left = allocator.left().values().map(|it| &it.name);
    let mut known = names.keys().chain(left).chain(owners);
    if names.contains_key(&whole) {
        return whole;
    }
    let meant = known.find(|name| name.to_string() == text);
    meant.cloned().unwrap_or(whole)
}

/// Whether `name` may be pinned to `address`.
///
/// # Errors
/// Why not, as a sentence with the remedy.
pub fn may_pin(name: &ServiceName, address: Ipv4Addr, allocator: &Allocator) -> Result<(), String> {
    let pool = allocator.pool();
    if name.service.is_empty() {
        return Err("a service has a name: give it before the address".to_owned());
    }
    if address == pool.own() {
        return Err(format!(
            "{address} is the agent's own address: choose another one of {pool}"
        ));
    }
    if !pool.serves(address) {
        return Err(format!(
            "{address} is not one that services may have in the pool {pool}: choose one in it"
        ));
    }
    match allocator.records().get(&address) {
        Some(None) => Err(format!(
            "the record of {address} cannot be read: `lb-agent vip release {address}` deletes it"
        )),
        Some(Some(Owner { name: owner, .. })) if owner != name => Err(format!(
            "{address} is recorded for service {owner}: release that first with `lb-agent vip release \
             {address}`, or choose another one"
        )),
        _ => match allocator.known().get(&address) {
            Some((other, None)) if *other != name => Err(format!(
                "{address} is in use by service {other}: choose another one, or pin {other} to another one first"
            )),
            Some((other, Some(_))) if *other != name => Err(format!(
                "service {other} had {address} until a short time ago and clients may remember it: choose \
                 another one, wait for the end of the quarantine (`lb-agent vip list`), or end it with \
                 `lb-agent vip release {address}`"
            )),
            _ => Ok(()),
        },
    }
}

/// The address that a release of `target` frees.
///
/// # Errors
/// Why nothing may be released, as a sentence with the remedy.
pub fn may_release(target: &str, names: &Names, allocator: &Allocator) -> Result<Entry, String> {
    let entries = allocator.list(names);
    let entry = match target.parse::<Ipv4Addr>() {
        Ok(address) => entries.into_iter().find(|it| it.address == address),
        Err(_) => {
            let name = named(target, names, allocator).to_string();
            let mut of_it: Vec<_> = entries
                .into_iter()
                .filter(|it| it.service.as_ref() == Some(&name))
                .collect();
            // What may be released comes first, and of that what lasts.
            of_it.sort_by_key(|it| (it.in_use && it.how != How::Pin, it.how == How::Quarantine));
            of_it.into_iter().next()
        }
    };
    let Some(entry) = entry else {
        return Err(format!(
            "nothing is kept for {target}: `lb-agent vip list` has what is"
        ));
    };
    let service = entry.service.as_deref().unwrap_or_default();
    match (entry.in_use, entry.how) {
        (false, _) | (true, How::Pin | How::Unreadable) => Ok(entry),
        (true, _) => Err(format!(
            "{} is in use by service {service}: it is released when that has left; to move it, pin it to \
             another address",
            entry.address
        )),
    }
}

#[cfg(test)]
mod tests;
