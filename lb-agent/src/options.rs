//! The options of a service, as its registrations write them in tags, meta or the file.
//!
//! Pure: registrations in, resolved options and problems out. A wrong option is reported and has no effect;
//! it never breaks the service, nor another option.

mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use crate::catalog::{Instance, InstanceKey, Problem};

pub(crate) use value::{dotted, is_dns_name, parse_duration};

/// What a service's registrations ask for, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Options {
    /// `lb_balance`: how a backend is chosen.
    pub balance: Balance,
    /// `lb_check`: how our own probe asks.
    pub check: CheckKind,
    /// `lb_port`: the ports its VIP answers on; empty means every port.
    pub ports: BTreeSet<u16>,
    /// `lb_drain`: how long established flows of a drained backend may go on.
    pub drain: Duration,
    /// `lb_expose`: whether the front routes to it; `None` leaves that to the configuration.
    pub expose: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            balance: Balance::LeastConn,
            check: CheckKind::Tcp,
            ports: BTreeSet::new(),
            drain: Duration::from_secs(30),
            expose: None,
        }
    }
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Two random backends; the one with fewer active flows wins.
    LeastConn,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
}

/// How our own probe asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// A TCP connect.
    Tcp,
    /// An HTTP GET of this path; 2xx and 3xx answers pass.
    Http(String),
    /// No probe: the source's word alone counts.
    Off,
}

/// Everything that the tags and the meta of a service's instances say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The options of the service.
    pub options: Options,
    /// Complete host names, the union over all instances.
    pub aliases: BTreeSet<String>,
    /// Tags that select a part of the service.
    pub domain_tags: BTreeSet<String>,
    /// `lb_weight`, where an instance states one; it replaces the weight of the registration.
    pub weights: BTreeMap<InstanceKey, u16>,
    /// What could not be used, and where instances disagree.
    pub problems: BTreeSet<Problem>,
}

/// Resolves what `instances` of `service` ask for. For each option the newest registration that states it
/// wins; an instance that does not state it does not disagree. Within one registration meta wins over tags.
pub fn resolve(service: &str, instances: &[Arc<Instance>]) -> Resolved {
    let mut resolved = Resolved::default();
    let mut newest_first: Vec<&Instance> = instances.iter().map(|it| &**it).collect();
    newest_first.sort_by(|a, b| (b.registered, &b.key).cmp(&(a.registered, &a.key)));

    // Per option, the distinct usable values with the winner first.
    let mut stated: BTreeMap<String, Vec<(String, Setting)>> = BTreeMap::new();
    for instance in newest_first {
        for (name, text) in words(instance, &mut resolved) {
            match value::setting(&name, &text) {
                Err(remedy) => {
                    let message = format!("`{name}={text}` has no effect: {remedy}");
                    resolved.report(service, message);
                }
                Ok(Setting::Weight(weight)) => {
                    resolved
                        .weights
                        .entry(instance.key.clone())
                        .or_insert(weight);
                }
                Ok(setting) => {
                    let values = stated.entry(name).or_default();
                    if values.iter().all(|(_, other)| *other != setting) {
                        values.push((text, setting));
                    }
                }
            }
        }
    }
    for (name, values) in stated {
        let others: Vec<&str> = values.iter().skip(1).map(|(text, _)| &**text).collect();
        if let Some((winner, _)) = values.first().filter(|_| !others.is_empty()) {
            let message = format!(
                "its registrations disagree on {name}: `{winner}` of the newest wins over `{}`; \
                 register all of them with the same value",
                others.join("`, `")
            );
            resolved.report(service, message);
        }
        if let Some((_, setting)) = values.into_iter().next() {
            setting.apply(&mut resolved.options);
        }
    }
    for alias in std::mem::take(&mut resolved.aliases) {
        let name = alias.to_ascii_lowercase();
        if is_dns_name(&dotted(&name)) {
            resolved.aliases.insert(name);
        } else {
            let message = format!("alias `{alias}` has no effect: it is not a host name");
            resolved.report(service, message);
        }
    }
    resolved
}

impl Resolved {
    fn report(&mut self, service: &str, message: String) {
        let subject = format!("service {service}");
        self.problems.insert(Problem::new(subject, message));
    }
}

/// One usable option.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Setting {
    Balance(Balance),
    Check(CheckKind),
    Ports(BTreeSet<u16>),
    Drain(Duration),
    Expose(bool),
    Weight(u16),
}

impl Setting {
    fn apply(self, options: &mut Options) {
        match self {
            Self::Balance(balance) => options.balance = balance,
            Self::Check(check) => options.check = check,
            Self::Ports(ports) => options.ports = ports,
            Self::Drain(drain) => options.drain = drain,
            Self::Expose(expose) => options.expose = Some(expose),
            // A weight belongs to its instance.
            Self::Weight(_) => {}
        }
    }
}

/// The options that `instance` states, by name; its aliases and domain tags go straight to `resolved`.
fn words(instance: &Instance, resolved: &mut Resolved) -> Vec<(String, String)> {
    let mut words = Vec::new();
    for (name, text) in &*instance.meta {
        if name.starts_with(PREFIX) {
            words.push((name.clone(), text.trim().to_owned()));
        }
    }
    let stated = |name: &str| name.starts_with(PREFIX) && !instance.meta.contains_key(name);
    for tag in &*instance.tags {
        match tag.split_once('=') {
            Some(("server_alias", alias)) => {
                resolved.aliases.insert(alias.trim().to_owned());
            }
            // Colon separated, because Registrator splits tags at commas.
            Some(("server_aliases", aliases)) => {
                let parts = aliases.split(':').map(|alias| alias.trim().to_owned());
                resolved
                    .aliases
                    .extend(parts.filter(|alias| !alias.is_empty()));
            }
            Some((name, text)) if stated(name) => {
                words.push((name.to_owned(), text.trim().to_owned()));
            }
            // `public_ipaddress=`, `server_name=` and whatever other tools write.
            Some(_) => {}
            None if stated(tag) => words.push((tag.clone(), String::new())),
            None if !RESERVED_TAGS.contains(&&**tag) && is_dns_name(tag) => {
                resolved.domain_tags.insert(tag.clone());
            }
            None => {}
        }
    }
    words
}

const PREFIX: &str = "lb_";

/// Tags with a meaning of their own, which therefore name no part of a service.
const RESERVED_TAGS: [&str; 2] = ["sticky_session", "udp"];

#[cfg(test)]
mod tests;
