//! What is known of every service, and the catalog made of it. Pure.
//!
//! What stays the same keeps its allocation, so that whoever reads the next catalog can tell by the pointer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::parse::{Listing, Named, name_problem, reachable};
use crate::catalog::{Catalog, Instance, Problem};

/// The instances of each service, by its name.
pub(super) type Services = BTreeMap<Arc<str>, Arc<[Arc<Instance>]>>;

/// Everything that was learnt so far.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<Arc<str>, Row>,
    /// What is published of the rows; at first, what was known when the last agent ended.
    services: Services,
    hosts: BTreeMap<Arc<str>, Host>,
    /// Whether the list of services was ever read.
    listed: bool,
    /// Why the list cannot be read at the moment.
    trouble: Option<String>,
    /// The services without a first answer.
    awaited: BTreeSet<Arc<str>>,
    /// Whether host names that have no first answer yet are waited for no more.
    impatient: bool,
    /// Set with the first full answer, for good.
    complete: bool,
    /// Whether `services` may be shown before that.
    resumed: bool,
    /// What is wrong with the source as a whole, and costs no service.
    notices: BTreeSet<Problem>,
    /// Whether the catalog differs from the last one taken.
    changed: bool,
}

#[derive(Debug, Default)]
struct Row {
    /// Whether the list names the service. One that it no longer names is kept until its own answer says
    /// that no instance is left.
    named: bool,
    /// How many entries there are; `None` until the first answer.
    registered: Option<usize>,
    /// The instances whose address is a host name.
    by_host: Vec<Named>,
    problems: Vec<Problem>,
    trouble: Option<Hitch>,
}

/// A host name that instances are registered with.
#[derive(Debug, Default)]
struct Host {
    /// What it means; the last good answer.
    ip: Option<IpAddr>,
    /// Why it cannot be resolved now.
    error: Option<String>,
    /// The services that have such instances.
    services: BTreeSet<Arc<str>>,
}

/// Why a service cannot be read at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hitch {
    pub(super) text: String,
    /// Whether it stays so until somebody changes something. Then it must not hold up the others.
    pub(super) is_final: bool,
    /// Whether the token may not see it. It holds up no others if something else can be seen.
    pub(super) is_of_rights: bool,
}

/// What follows from news.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Follow this service from now on.
    Follow(Arc<str>),
    /// It is gone.
    Leave(Arc<str>),
    /// Keep resolving this host name.
    Resolve(Arc<str>),
    /// Nobody is registered with it any more.
    Forget(Arc<str>),
}

impl Table {
    /// A table that may show `services` until it knows better.
    pub(super) fn resuming(services: Services) -> Self {
        Self {
            services,
            ..Self::default()
        }
    }

    /// Takes in the list of services.
    pub(super) fn name(&mut self, names: BTreeSet<String>, stale: Option<String>) -> Vec<Task> {
        let first = !std::mem::replace(&mut self.listed, true);
        self.trouble = stale;
        for (service, row) in &mut self.rows {
            row.named = names.contains(&**service);
        }
        let mut tasks = Vec::new();
        if first {
            // What was known when the last agent ended leaves by its own answer only, like anything else.
            let kept = self.services.keys().filter(|it| !names.contains(&***it));
            for service in kept {
                tasks.push(Task::Follow(service.clone()));
                self.awaited.insert(service.clone());
                self.rows.insert(service.clone(), Row::default());
            }
        }
        for service in names {
            if self.rows.contains_key(service.as_str()) {
                continue;
            }
            let service: Arc<str> = service.into();
            let mut row = Row {
                named: true,
                ..Row::default()
            };
            if !can_be_asked_for(&service) {
                row.trouble = Some(Hitch {
                    text: "its name cannot be asked for; register it under another".to_owned(),
                    is_final: true,
                    is_of_rights: false,
                });
                self.changed = true;
            } else {
                tasks.push(Task::Follow(service.clone()));
                self.awaited.insert(service.clone());
            }
            self.rows.insert(service, row);
        }
        let unnamed: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, row)| !row.named)
            .map(|(service, _)| service.clone())
            .collect();
        for service in unnamed {
            self.sweep(&service, &mut tasks);
        }
        tasks
    }

    /// The list cannot be read.
    pub(super) fn name_failed(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// Takes in what is registered for a service.
    pub(super) fn list(
        &mut self,
        service: &str,
        listing: Listing,
        stale: Option<String>,
    ) -> Vec<Task> {
        let mut tasks = Vec::new();
        let Some((name, row)) = self.rows.get_key_value(service) else {
            return tasks;
        };
        let name = name.clone();
        let hosts_before = hosts_of(&row.by_host);
        let mut problems = listing.problems;
        if listing.registered > 0 {
            problems.extend(name_problem(service));
        }
        self.changed |= row.problems != problems;
        self.changed |= row.trouble.as_ref().is_some_and(|hitch| hitch.is_final);
        let hosts = hosts_of(&listing.named);
        for host in hosts.difference(&hosts_before) {
            let known = self.hosts.entry(host.clone()).or_insert_with(|| {
                tasks.push(Task::Resolve(host.clone()));
                Host::default()
            });
            known.services.insert(name.clone());
        }
        let row = Row {
            named: row.named,
            registered: Some(listing.registered),
            by_host: listing.named,
            problems,
            trouble: stale.map(|text| Hitch {
                text,
                is_final: false,
                is_of_rights: false,
            }),
        };
        self.rows.insert(name.clone(), row);
        self.awaited.remove(&name);
        self.leave_hosts(&name, hosts_before.difference(&hosts), &mut tasks);
        self.show(&name, listing.instances);
        self.sweep(&name, &mut tasks);
        tasks
    }

    /// A service cannot be read; what is known of it stays.
    pub(super) fn list_failed(&mut self, service: &str, why: Hitch) -> Vec<Task> {
        let mut tasks = Vec::new();
        let Some((name, _)) = self.rows.get_key_value(service) else {
            return tasks;
        };
        let name = name.clone();
        if why.is_final {
            self.awaited.remove(&name);
        }
        if let Some(row) = self.rows.get_mut(&name) {
            let told = |hitch: Option<&Hitch>| {
                let text = hitch.filter(|hitch| hitch.is_final)?.text.clone();
                Some(text)
            };
            self.changed |= told(row.trouble.as_ref()) != told(Some(&why));
            row.trouble = Some(why);
        }
        self.sweep(&name, &mut tasks);
        tasks
    }

    /// Takes in what a host name means. One that cannot be resolved keeps its last meaning.
    pub(super) fn resolved(&mut self, host: &str, answer: Result<IpAddr, String>) {
        let Some(known) = self.hosts.get_mut(host) else {
            return;
        };
        let before = (known.ip, known.error.clone());
        match answer {
            Ok(ip) => (known.ip, known.error) = (Some(ip), None),
            Err(error) => known.error = Some(error),
        }
        if before == (known.ip, known.error.clone()) {
            return;
        }
        self.changed = true;
        for service in known.services.clone() {
            let by_host = self.rows.get(&service).map(|row| &row.by_host);
            let is_named = |instance: &Instance| {
                by_host.is_some_and(|named| named.iter().any(|it| it.instance.key == instance.key))
            };
            let shown = self.services.get(&service);
            let literal = shown.into_iter().flat_map(|it| it.iter());
            let literal = literal.filter(|it| !is_named(it)).cloned().collect();
            self.show(&service, literal);
        }
    }

    /// Lets what was known when the last agent ended be shown from now on, if that is all there is.
    pub(super) fn resume(&mut self) {
        if !self.complete && !self.resumed && !self.services.is_empty() {
            self.resumed = true;
            self.changed = true;
        }
    }

    /// Tells `problem` from now on.
    pub(super) fn notice(&mut self, problem: Problem) {
        self.changed |= self.notices.insert(problem);
    }

    /// Tells no problem of `subject` any more.
    pub(super) fn settle(&mut self, subject: &str) {
        let before = self.notices.len();
        self.notices.retain(|problem| problem.subject != subject);
        self.changed |= self.notices.len() < before;
    }

    /// Whether every service of the first list was heard of.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The catalog, if it is not what was taken last; `None` also until every service of the first list has
    /// been heard of.
    pub(super) fn take_catalog(&mut self) -> Option<Catalog> {
        self.complete_if_heard();
        let news = std::mem::take(&mut self.changed);
        if news { self.catalog() } else { None }
    }

    /// Whether every service of the first list has its answer, or cannot have one. A token that may see no
    /// instance, but for those of Consul itself, knows nothing.
    fn is_heard(&self) -> bool {
        let is_hidden = |service: &Arc<str>| {
            let trouble = self.rows.get(service).and_then(|row| row.trouble.as_ref());
            trouble.is_some_and(|hitch| hitch.is_of_rights)
        };
        let is_seen = |(service, row): (&Arc<str>, &Row)| {
            &**service != "consul" && row.registered.is_some_and(|registered| registered > 0)
        };
        let awaited = &self.awaited;
        self.listed
            && (awaited.is_empty()
                || awaited.iter().all(is_hidden) && self.rows.iter().any(is_seen))
    }

    /// Whether nothing but host names is missing.
    pub(super) fn waits_for_hosts(&self) -> bool {
        let unasked = |host: &Host| host.ip.is_none() && host.error.is_none();
        !self.complete && self.is_heard() && !self.impatient && self.hosts.values().any(unasked)
    }

    /// Leaves out the instances whose host name has had no answer, until it has one.
    pub(super) fn wait_for_hosts_no_more(&mut self) {
        self.impatient = true;
    }

    fn complete_if_heard(&mut self) {
        if self.complete || !self.is_heard() || self.waits_for_hosts() {
            return;
        }
        self.complete = true;
        self.changed = true;
        // One whose answer cannot be read keeps what was known of it when the last agent ended.
        let rows = &self.rows;
        self.services.retain(|service, _| {
            let row = rows.get(service);
            row.is_some_and(|row| row.registered != Some(0))
        });
    }

    fn catalog(&self) -> Option<Catalog> {
        if !self.complete && !self.resumed {
            return None;
        }
        let services = self.services.clone();
        let mut problems: Vec<_> = self.notices.iter().cloned().collect();
        for (service, row) in &self.rows {
            if let Some(hitch) = row.trouble.as_ref().filter(|hitch| hitch.is_final) {
                problems.push(Problem::new(format!("service {service}"), &hitch.text));
            }
            problems.extend(row.problems.iter().cloned());
            problems.extend(row.by_host.iter().filter_map(|named| {
                let host = self.hosts.get(&named.host)?;
                host.problem(named)
            }));
        }
        Some(Catalog { services, problems })
    }

    /// Why what is known may be old.
    pub(super) fn error(&self) -> Option<String> {
        let why = self.trouble.clone().or_else(|| self.unread());
        if !self.resumed || self.complete {
            return why;
        }
        let why = why.unwrap_or_else(|| "Consul has not told everything yet".to_owned());
        Some(format!(
            "{why}; what was known when the last agent ended is used until then"
        ))
    }

    fn unread(&self) -> Option<String> {
        let mut unread = self.rows.iter().filter_map(|(service, row)| {
            let hitch = row.trouble.as_ref().filter(|hitch| !hitch.is_final)?;
            Some((service, hitch))
        });
        let (service, hitch) = unread.next()?;
        Some(match unread.count() {
            0 => format!("service {service}: {}", hitch.text),
            more => format!("service {service} and {more} more: {}", hitch.text),
        })
    }

    /// How many services are followed.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Publishes `literal` and what the host names of the service mean.
    fn show(&mut self, service: &Arc<str>, literal: Vec<Arc<Instance>>) {
        let Some(row) = self.rows.get(service) else {
            return;
        };
        if row.registered.is_none_or(|registered| registered == 0) {
            self.changed |= self.services.remove(service).is_some();
            return;
        }
        let mut instances = literal;
        for named in &row.by_host {
            let ip = self.hosts.get(&named.host).and_then(|host| host.ip);
            if let Some(ip) = ip.and_then(|ip| reachable(ip).ok()) {
                let address = SocketAddr::new(ip, named.instance.address.port());
                let instance = (*named.instance).clone();
                instances.push(Arc::new(Instance {
                    address,
                    ..instance
                }));
            }
        }
        instances.sort_by(|a, b| a.key.cmp(&b.key));
        let shown = self.services.get(service);
        if let Some(instances) = renewed(shown, instances) {
            self.services.insert(service.clone(), instances);
            self.changed = true;
        }
    }

    /// Forgets a service that both the list and its own answer call gone.
    fn sweep(&mut self, service: &Arc<str>, tasks: &mut Vec<Task>) {
        let gone = self.rows.get(service).is_some_and(|row| {
            let empty = match row.registered {
                Some(registered) => registered == 0,
                // What was kept is not gone because it cannot be read.
                None => {
                    !self.services.contains_key(service)
                        && row
                            .trouble
                            .as_ref()
                            .is_some_and(|hitch| hitch.is_final || hitch.is_of_rights)
                }
            };
            !row.named && empty
        });
        if !gone {
            return;
        }
        if let Some(row) = self.rows.remove(service) {
            self.changed |= row.trouble.is_some_and(|hitch| hitch.is_final);
            self.leave_hosts(service, hosts_of(&row.by_host).iter(), tasks);
        }
        self.awaited.remove(service);
        self.changed |= self.services.remove(service).is_some();
        tasks.push(Task::Leave(service.clone()));
    }

    fn leave_hosts<'h>(
        &mut self,
        service: &Arc<str>,
        hosts: impl Iterator<Item = &'h Arc<str>>,
        tasks: &mut Vec<Task>,
    ) {
        for host in hosts {
            let Some(known) = self.hosts.get_mut(host) else {
                continue;
            };
            known.services.remove(service);
            if known.services.is_empty() {
                self.hosts.remove(host);
                tasks.push(Task::Forget(host.clone()));
            }
        }
    }
}

impl Host {
    /// What is wrong with `named` at this host.
    fn problem(&self, named: &Named) -> Option<Problem> {
        let host = &named.host;
        let text = match (self.ip.map(reachable), &self.error) {
            (Some(Ok(_)), None) | (None, None) => return None,
            (Some(Err(wrong)), _) => wrong,
            (Some(Ok(ip)), Some(error)) => format!(
                "its address `{host}` cannot be resolved now ({error}); the last answer, {ip}, is used: see \
                 to its name server"
            ),
            (None, Some(error)) => format!(
                "its address `{host}` cannot be resolved ({error}) and it was left out; register it with an \
                 IP address or see to its name server"
            ),
        };
        let subject = format!("instance {}", named.instance.key);
        Some(Problem::new(subject, text))
    }
}

/// Whether a URL can carry the name: it loses `.` and `..`, and these characters out of any other.
fn can_be_asked_for(service: &str) -> bool {
    !matches!(service, "." | "..") && !service.contains(['\t', '\n', '\r'])
}

fn hosts_of(named: &[Named]) -> BTreeSet<Arc<str>> {
    named.iter().map(|named| named.host.clone()).collect()
}

/// `now` with the allocations of what `before` has, too; `None` if nothing differs. Both are in order.
fn renewed(
    before: Option<&Arc<[Arc<Instance>]>>,
    mut now: Vec<Arc<Instance>>,
) -> Option<Arc<[Arc<Instance>]>> {
    let Some(before) = before else {
        return Some(now.into());
    };
    let mut same = 0;
    let mut old = before.iter().peekable();
    for instance in &mut now {
        while old.next_if(|old| old.key < instance.key).is_some() {}
        if let Some(kept) = old.next_if(|old| *old == instance) {
            *instance = kept.clone();
            same += 1;
        }
    }
    (same < now.len() || same < before.len()).then(|| now.into())
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
