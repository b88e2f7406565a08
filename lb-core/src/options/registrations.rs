//! What the registrations of a service state, as the options of the service: who is heard, what is reported, and what
//! follows where nothing is stated.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::{
    CheckKind, Options, Proto, Setting, UDP, Wrong, cut, dotted,
    front::{self, FrontSetting},
    is_dns_name, value,
};
use crate::catalog::{Instance, InstanceKey, Problem};

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
    /// The instances that state `lb_canary`.
    pub canaries: BTreeSet<InstanceKey>,
    /// What could not be used, and where instances disagree.
    pub problems: BTreeSet<Problem>,
}

/// Resolves what `instances` of `service` ask for. For each option the newest registration that states it
/// wins; an instance that does not state it does not disagree. Within one registration meta wins over tags.
pub fn resolve(service: &str, instances: &[Arc<Instance>]) -> Resolved {
    let mut resolved = Resolved::default();
    let mut newest_first: Vec<&Instance> = instances.iter().map(|it| &**it).collect();
    newest_first.sort_by(|a, b| (b.registered, &b.key).cmp(&(a.registered, &a.key)));

    let mut stated = Stated::new();
    for instance in newest_first {
        for (name, text) in resolved.own(service, instance) {
            resolved.hear(service, instance, &mut stated, name, text);
        }
    }
    resolved.assume(instances, &stated);
    resolved.agree(service, stated);
    resolved.settle(service);
    resolved.keep_host_names(service);
    resolved
}

/// Per option, the distinct usable values with their texts, that of the newest registration first.
type Stated = BTreeMap<String, Vec<(String, Setting)>>;

fn state(stated: &mut Stated, name: String, text: String, setting: Setting) {
    let values = stated.entry(name).or_default();
    if values.iter().all(|(_, other)| *other != setting) {
        values.push((text, setting));
    }
}

impl Resolved {
    /// The options that `instance` states, each once.
    fn own(&mut self, service: &str, instance: &Instance) -> BTreeMap<String, String> {
        let mut own: BTreeMap<String, String> = BTreeMap::new();
        for (name, text) in words(service, instance, self) {
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
                    self.report(service, message);
                }
            }
        }
        own
    }

    /// Takes what `instance` states of one option: for itself, or for the service as one of those that may win.
    fn hear(
        &mut self,
        service: &str,
        instance: &Instance,
        stated: &mut Stated,
        name: String,
        text: String,
    ) {
        match value::setting(&name, &text) {
            Err(Wrong { remedy, left }) => {
                let effect = match &left {
                    None => "has no effect",
                    Some(_) => "counts only as far as it is right",
                };
                let (shown, value) = (cut(&name), cut(&text));
                self.report(service, format!("`{shown}={value}` {effect}: {remedy}"));
                if let Some(setting) = left {
                    state(stated, name, text, setting);
                }
            }
            Ok(Setting::Weight(weight)) => {
                self.weights.insert(instance.key.clone(), weight);
            }
            Ok(setting) => {
                if matches!(setting, Setting::Front(FrontSetting::Canary(_))) {
                    self.canaries.insert(instance.key.clone());
                }
                state(stated, name, text, setting);
            }
        }
    }

    /// Sets what follows where nothing is stated: the protocol from the mark that registrators set, and whether to
    /// probe from the protocol.
    fn assume(&mut self, instances: &[Arc<Instance>], stated: &Stated) {
        let spoken = stated.get(PROTO).and_then(|values| values.first());
        let marked = instances.iter().filter(|it| it.tags.contains(UDP)).count();
        match spoken {
            Some((_, setting)) => {
                setting.clone().apply(&mut self.options);
                // HTTP is spoken over TCP, and HTTP/3 at the UDP port beside it. `tcp` and `udp` are said of all of them.
                let beside = matches!(self.options.proto, Proto::Http | Proto::H2c);
                self.options.udp_by_tag = beside && marked > 0;
            }
            None if marked == instances.len() && marked > 0 => self.options.proto = Proto::Udp,
            None => self.options.udp_by_tag = marked > 0,
        }
        // A connect says nothing of a UDP port.
        if self.options.proto == Proto::Udp {
            self.options.check = CheckKind::Off;
        }
    }

    /// Applies what wins of each option, and tells what does not.
    fn agree(&mut self, service: &str, stated: Stated) {
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
                self.report(service, message);
            }
            if let Some((_, setting)) = values.into_iter().next() {
                setting.apply(&mut self.options);
            }
        }
    }

    /// Tells which options come to nothing beside the others, and lets the check follow them.
    fn settle(&mut self, service: &str) {
        if self.options.proto == Proto::Udp && self.options.expose == Some(true) {
            let message = "`lb_expose=true` has no effect: the front speaks HTTP over TCP, and the service is UDP; \
                           remove one of the two";
            self.report(service, message.to_owned());
        }
        // A server of HTTP/2 alone understands no other request.
        if self.options.proto == Proto::H2c
            && let CheckKind::Http(path) = &mut self.options.check
        {
            self.options.check = CheckKind::Http2(std::mem::take(path));
        }
        let unfollowed = front::proxy_protocol::settle(&mut self.options);
        let useless = front::useless(&self.options);
        for message in unfollowed.into_iter().chain(useless) {
            self.report(service, message.to_owned());
        }
    }

    /// Leaves of the aliases those that are host names, as they are written in lower case.
    fn keep_host_names(&mut self, service: &str) {
        for alias in std::mem::take(&mut self.aliases) {
            let name = alias.to_ascii_lowercase();
            let name = name.strip_suffix('.').unwrap_or(&name);
            // Digits alone are an address, or a port behind a colon.
            let is_number = name
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
            if is_dns_name(&dotted(name)) && !is_number {
                self.aliases.insert(name.to_owned());
            } else {
                let message = format!(
                    "alias `{}` has no effect: it is not a host name; write letters, digits, `-` and `_` between \
                     dots, without a port",
                    cut(&alias)
                );
                self.report(service, message);
            }
        }
    }

    fn report(&mut self, service: &str, message: String) {
        let subject = format!("service {service}");
        self.problems.insert(Problem::new(subject, message));
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
    // What was hoped for by that in HAProxy's template is an option of the front here, which may be stated itself.
    let sticky = instance.tags.contains(STICKY);
    if sticky && words.iter().all(|(stated, _)| stated != "lb_sticky") {
        words.extend(option("lb_sticky", bare("lb_sticky")));
    }
    words
}

/// An option, if the name is one of ours; in any case, since meta made from labels comes in capitals, too.
fn option(name: &str, text: &str) -> Option<(String, String)> {
    let ours = name
        .get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    ours.then(|| {
        let name = front::canonical(name.trim().to_ascii_lowercase());
        (name, text.trim().to_owned())
    })
}

/// What the tag `name` says that has no value: an empty one, as some tools make it of a variable that is not set, says less.
fn bare(name: &str) -> &'static str {
    let said = [
        "lb_compress",
        "lb_expose",
        "lb_maintenance",
        "lb_sticky",
        "lb_strip",
    ]
    .iter()
    .any(|flag| name.eq_ignore_ascii_case(flag));
    if said { "true" } else { "" }
}

/// Values that a message about a disagreement names.
const DISAGREEMENTS: usize = 3;

const PREFIX: &str = "lb_";

/// Tags with a meaning of their own, which therefore name no part of a service.
const RESERVED_TAGS: [&str; 2] = [STICKY, UDP];

/// The tag by which templates for HAProxy were told to keep clients at their instance.
const STICKY: &str = "sticky_session";

const PROTO: &str = "lb_proto";
