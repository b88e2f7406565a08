//! What is written into a service's Meta: our marks, the options of the load balancer, and attributes.
//!
//! Consul refuses the whole registration if one pair breaks a limit, so whatever does is cut or left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{settings::Settings, words::PortWords};
use crate::catalog::Reach;

/// Holds the identity of the host whose registrar wrote the service. Only such services are ever removed.
pub const REGISTRAR: &str = "lb-registrar";
/// Holds the full id of the container.
pub const CONTAINER: &str = "lb-container";
/// Holds `network=address:port`, separated by commas.
pub const NETWORKS: &str = "lb-networks";
/// Holds `address:port` as the host publishes it.
pub const PUBLISHED: &str = "lb-published";
/// Holds a hash of the checks.
pub const CHECKS: &str = "lb-checks";

/// Pairs that Consul takes.
pub const PAIRS: usize = 64;
/// Bytes of a key that Consul takes.
pub const KEY_LIMIT: usize = 128;
/// Bytes of a value that Consul takes.
pub const VALUE_LIMIT: usize = 512;

/// What did not fit, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Misfits {
    cut: BTreeSet<String>,
    long: BTreeSet<String>,
    names: BTreeSet<String>,
    surplus: BTreeSet<String>,
}

impl Misfits {
    /// All of them in one sentence; `None` if everything fits.
    pub(super) fn explain(&self) -> Option<String> {
        let list = |keys: &BTreeSet<String>| {
            let named = keys
                .iter()
                .take(NAMED)
                .map(|key| format!("`{}`", shown(key)));
            let more = keys.len().saturating_sub(NAMED);
            let more = (more > 0).then(|| format!("{more} more"));
            named.chain(more).collect::<Vec<_>>().join(", ")
        };
        let mut parts = Vec::new();
        if !self.cut.is_empty() {
            parts.push(format!("{} cut at {VALUE_LIMIT} bytes", list(&self.cut)));
        }
        if !self.long.is_empty() {
            let long = list(&self.long);
            parts.push(format!("{long} left out (over {VALUE_LIMIT} bytes)"));
        }
        if !self.names.is_empty() {
            parts.push(format!(
                "{} left out (a key has letters, digits, `_` and `-`, at most {KEY_LIMIT}, and does \
                 not begin with consul- or lb-)",
                list(&self.names)
            ));
        }
        if !self.surplus.is_empty() {
            parts.push(format!(
                "{} left out (Consul takes {PAIRS} pairs)",
                list(&self.surplus)
            ));
        }
        (!parts.is_empty()).then(|| {
            format!(
                "Consul would refuse its metadata: {}; shorten or rename them",
                parts.join("; ")
            )
        })
    }
}

/// The Meta of one registration.
pub(super) fn meta(
    words: &PortWords,
    container: &str,
    reach: &Reach,
    checks: &str,
    settings: &Settings,
    misfits: &mut Misfits,
) -> BTreeMap<String, String> {
    let mut meta = BTreeMap::from([
        (REGISTRAR.to_owned(), settings.host.clone()),
        (CONTAINER.to_owned(), container.to_owned()),
        (CHECKS.to_owned(), checks.to_owned()),
    ]);
    if let Some(published) = reach.published {
        meta.insert(PUBLISHED.to_owned(), published.to_string());
    }
    let networks = networks(&reach.networks, misfits);
    if !networks.is_empty() {
        meta.insert(NETWORKS.to_owned(), networks);
    }
    for value in meta.values_mut() {
        cut(value);
    }
    // Options first: attributes must not crowd them out.
    let is_option = |key: &str| key.starts_with("lb_");
    let wanted = |key: &str| {
        let listed = settings.attributes.as_ref();
        is_option(key) || listed.is_none_or(|keys| keys.contains(key))
    };
    let is_attribute = |key: &str| !key.is_empty() && !is_reserved(key) && wanted(key);
    let (options, attributes): (Vec<_>, Vec<_>) = words
        .iter()
        .filter(|(key, _)| is_attribute(key))
        .partition(|(key, _)| is_option(key));
    for (key, text) in options.into_iter().chain(attributes) {
        if is_option(key) && text.is_empty() {
            // Of a variable that is not set: as every empty word, none.
        } else if is_option(key) && text.len() > VALUE_LIMIT {
            // Half an option would say something else.
            misfits.long.insert(key.to_owned());
        } else if !is_key(key) {
            misfits.names.insert(key.to_owned());
        } else if meta.len() >= PAIRS {
            misfits.surplus.insert(key.to_owned());
        } else {
            let mut text = text.to_owned();
            if cut(&mut text) {
                misfits.cut.insert(key.to_owned());
            }
            meta.insert(key.to_owned(), text);
        }
    }
    meta
}

/// The networks as one value, as many whole entries as fit.
fn networks(networks: &BTreeMap<String, SocketAddr>, misfits: &mut Misfits) -> String {
    let mut text = String::new();
    for (name, address) in networks {
        let entry = format!("{name}={address}");
        let fits = text.len() + usize::from(!text.is_empty()) + entry.len() <= VALUE_LIMIT;
        if !fits || name.contains([',', '=']) {
            misfits.cut.insert(NETWORKS.to_owned());
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&entry);
    }
    text
}

/// The networks that [`NETWORKS`] holds; what is not of its form is left out.
pub fn parse_networks(text: &str) -> BTreeMap<String, SocketAddr> {
    let entries = text.split(',').filter_map(|entry| {
        let (name, address) = entry.split_once('=')?;
        Some((name.to_owned(), address.parse().ok()?))
    });
    entries.collect()
}

/// Words that mean something else than an attribute.
fn is_reserved(key: &str) -> bool {
    key == "check" || key.starts_with("check_") || WORDS.contains(&key)
}

fn is_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    key.len() <= KEY_LIMIT
        && key.bytes().all(plain)
        && !key.starts_with("consul-")
        && !key.starts_with("lb-")
}

/// Cuts `text` to the limit, at a character; says whether it had to.
fn cut(text: &mut String) -> bool {
    let long = text.len() > VALUE_LIMIT;
    text.truncate(text.floor_char_boundary(VALUE_LIMIT));
    long
}

/// A key as it may be shown: somebody may have made it very long.
fn shown(key: &str) -> &str {
    &key[..key.floor_char_boundary(40)]
}

/// Keys that a problem names.
const NAMED: usize = 16;
const WORDS: [&str; 7] = ["name", "tags", "id", "ignore", "ip", "weight", "network"];
