//! What is known of every service, and the catalog made of it. Pure.
//!
//! Here is what is learnt; `publish` says what of it is shown and when, `hosts` what host names mean.
//! What stays the same keeps its allocation, so that whoever reads the next catalog can tell by the pointer.

mod hosts;
mod publish;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use self::hosts::{Host, hosts_of};
use super::parse::{Listing, Named, name_problem, reachable};
use crate::{
    catalog::{Instance, Problem},
    cow_map::CowMap,
};

/// The instances of each service, by its name.
pub(super) type Services = CowMap<Arc<str>, Arc<[Arc<Instance>]>>;

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
}

/// Whether a URL can carry the name: it loses `.` and `..`, and these characters out of any other.
fn can_be_asked_for(service: &str) -> bool {
    !matches!(service, "." | "..") && !service.contains(['\t', '\n', '\r'])
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
