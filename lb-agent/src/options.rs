//! The options of a service, as its registrations write them in tags, meta or the file.
//!
//! Pure: registrations in, resolved options and problems out. A wrong option is reported and has no effect;
//! it never breaks the service, nor another option. Which options there are stands in [`table`].

pub mod table;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
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
    /// `lb_local`: what it matters that an instance runs on this host.
    pub local: Local,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            balance: Balance::LeastConn,
            check: CheckKind::Tcp,
            ports: BTreeSet::new(),
            drain: Duration::from_secs(30),
            expose: None,
            local: Local::Any,
        }
    }
}

/// What it matters that an instance runs on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Local {
    /// Nothing.
    #[default]
    Any,
    /// Those of this host take most of the new flows.
    Prefer,
    /// Only those of this host take any.
    Only,
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
        let mut own: BTreeMap<String, String> = BTreeMap::new();
        for (name, text) in words(service, instance, &mut resolved) {
            match own.entry(name) {
                Entry::Vacant(free) => drop(free.insert(text)),
                Entry::Occupied(first) if *first.get() == text => {}
                Entry::Occupied(first) => {
                    let (name, first) = (cut(first.key()), cut(first.get()));
                    let message = format!(
                        "`{name}={}` has no effect: the same registration says `{name}={first}`, which counts; \
                         say it once",
                        cut(&text)
                    );
                    resolved.report(service, message);
                }
            }
        }
        for (name, text) in own {
            match value::setting(&name, &text) {
                Err(remedy) => {
                    let (name, text) = (cut(&name), cut(&text));
                    let message = format!("`{name}={text}` has no effect: {remedy}");
                    resolved.report(service, message);
                }
                Ok(Setting::Weight(weight)) => {
                    resolved.weights.insert(instance.key.clone(), weight);
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
        let others = values.iter().skip(1).map(|(text, _)| cut(text));
        let others: Vec<&str> = others.take(DISAGREEMENTS).collect();
        if let Some((winner, _)) = values.first().filter(|_| !others.is_empty()) {
            let winner = cut(winner);
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
        let name = name.strip_suffix('.').unwrap_or(&name);
        // Digits alone are an address, or a port behind a colon.
        let is_number = name
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        if is_dns_name(&dotted(name)) && !is_number {
            resolved.aliases.insert(name.to_owned());
        } else {
            let message = format!(
                "alias `{}` has no effect: it is not a host name; write letters, digits, `-` and `_` between \
                 dots, without a port",
                cut(&alias)
            );
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
    Local(Local),
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
            Self::Local(local) => options.local = local,
            // A weight belongs to its instance.
            Self::Weight(_) => {}
        }
    }
}

/// The options that `instance` states, by name, those of its meta first; its aliases and domain tags go
/// straight to `resolved`.
fn words(service: &str, instance: &Instance, resolved: &mut Resolved) -> Vec<(String, String)> {
    let mut words = Vec::new();
    for (name, text) in &*instance.meta {
        words.extend(option(name, text));
    }
    let of_meta = words.len();
    for tag in &*instance.tags {
        let (name, text) = match tag.split_once('=') {
            Some((name, text)) => (name.trim(), Some(text)),
            None => (tag.trim(), None),
        };
        match (name, text) {
            ("server_alias", Some(alias)) => {
                resolved.aliases.insert(alias.trim().to_owned());
            }
            // Colon separated, because Registrator splits tags at commas.
            ("server_aliases", Some(aliases)) => {
                let parts = aliases.split(':').map(|alias| alias.trim().to_owned());
                resolved
                    .aliases
                    .extend(parts.filter(|alias| !alias.is_empty()));
            }
            _ => match option(name, text.unwrap_or_else(|| bare(name))) {
                Some(word) => {
                    let meta = &words[..of_meta];
                    if meta.iter().all(|(stated, _)| *stated != word.0) {
                        words.push(word);
                    }
                }
                // `public_ipaddress=`, `server_name=` and whatever other tools write.
                None if text.is_some() => {}
                None if !RESERVED_TAGS.contains(&&**tag) && is_dns_name(tag) => {
                    resolved.domain_tags.insert(tag.clone());
                }
                // Parts hold the instances with the very tag.
                None if name != &**tag && is_dns_name(name) => resolved.report(
                    service,
                    format!(
                        "tag `{}` makes no part: there is a blank before or behind it; remove it",
                        cut(tag)
                    ),
                ),
                None => {}
            },
        }
    }
    words
}

/// An option, if the name is one of ours; in any case, since meta made from labels comes in capitals, too.
fn option(name: &str, text: &str) -> Option<(String, String)> {
    let ours = name
        .get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    ours.then(|| (name.trim().to_ascii_lowercase(), text.trim().to_owned()))
}

/// What the tag `name` says that has no value: an empty one, as some tools make it of a variable that is not set, says less.
fn bare(name: &str) -> &'static str {
    match name.eq_ignore_ascii_case("lb_expose") {
        true => "true",
        false => "",
    }
}

/// The beginning of a text that somebody else wrote, for a message.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN)]
}

/// Bytes of a foreign text that a message repeats.
const SHOWN: usize = 120;
/// Values that a message about a disagreement names.
const DISAGREEMENTS: usize = 3;

const PREFIX: &str = "lb_";

/// Tags with a meaning of their own, which therefore name no part of a service.
const RESERVED_TAGS: [&str; 2] = ["sticky_session", "udp"];

#[cfg(test)]
mod tests;
