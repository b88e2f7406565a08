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

    /// The services with an instance on a node that `is_it`.
    pub(super) fn on_node(&self, is_it: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let there = |instances: &[Arc<Instance>]| instances.iter().any(|it| is_it(&it.key.node));
        let services = self.services.iter().filter(|(_, it)| there(it));
        services.map(|(service, _)| service.clone()).collect()
    }

    /// Whether there was an answer about `service`. Until then, one that the token may not see holds up nobody.
    pub(super) fn has_heard_of(&self, service: &str) -> bool {
        let row = self.rows.get(service);
        row.is_some_and(|row| row.registered.is_some())
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

    /// Whether nothing but host names is missing.
    pub(super) fn waits_for_hosts(&self) -> bool {
        let unasked = |host: &Host| host.ip.is_none() && host.error.is_none();
        let ready = !self.complete && self.listed && self.awaited.is_empty();
        ready && !self.impatient && self.hosts.values().any(unasked)
    }

    /// Leaves out the instances whose host name has had no answer, until it has one.
    pub(super) fn wait_for_hosts_no_more(&mut self) {
        self.impatient = true;
    }

    fn complete_if_heard(&mut self) {
        let listed = self.listed && self.awaited.is_empty();
        if self.complete || !listed || self.waits_for_hosts() {
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
                        && row.trouble.as_ref().is_some_and(|hitch| hitch.is_final)
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
mod tests {
    use super::{
        super::parse::{self, Standpoint},
        *,
    };

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn registered(registered: usize) -> Listing {
        Listing {
            registered,
            ..Listing::default()
        }
    }

    fn services(table: &mut Table) -> Option<Vec<String>> {
        table.complete_if_heard();
        let names = |c: Catalog| c.services.into_keys().map(|it| it.to_string()).collect();
        table.catalog().map(names)
    }

    fn hitch(is_final: bool) -> Hitch {
        Hitch {
            text: "no".to_owned(),
            is_final,
        }
    }

    #[test]
    fn nothing_is_said_before_the_list_and_every_service_on_it_are_known() {
        let mut table = Table::default();
        assert_eq!(services(&mut table), None);
        let tasks = table.name(names(&["a", "b"]), None);
        assert_eq!(tasks, [Task::Follow("a".into()), Task::Follow("b".into())]);
        table.list("a", registered(1), None);
        assert_eq!(services(&mut table), None);
        table.list_failed("b", hitch(false));
        assert_eq!(services(&mut table), None);
        table.list("b", registered(1), None);
        assert_eq!(services(&mut table).unwrap(), ["a", "b"]);
    }

    #[test]
    fn an_empty_list_is_a_full_answer() {
        let mut table = Table::default();
        table.name(names(&[]), None);
        assert_eq!(table.take_catalog(), Some(Catalog::default()));
    }

    #[test]
    fn a_new_service_does_not_make_the_rest_unknown_again() {
        let mut table = Table::default();
        table.name(names(&["a"]), None);
        table.list("a", registered(1), None);
        services(&mut table).unwrap();
        table.name(names(&["a", "b"]), None);
        assert_eq!(services(&mut table).unwrap(), ["a"]);
    }

    #[test]
    fn a_service_leaves_only_when_the_list_and_its_own_answer_agree() {
        let mut table = Table::default();
        table.name(names(&["a"]), None);
        table.list("a", registered(2), None);
        assert_eq!(table.name(names(&[]), None), []);
        assert_eq!(services(&mut table).unwrap(), ["a"]);
        assert_eq!(
            table.list("a", registered(0), None),
            [Task::Leave("a".into())]
        );
        assert_eq!(services(&mut table).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_service_that_was_emptied_first_leaves_with_the_list() {
        let mut table = Table::default();
        table.name(names(&["a"]), None);
        assert_eq!(table.list("a", registered(0), None), []);
        assert_eq!(table.name(names(&[]), None), [Task::Leave("a".into())]);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_service_that_can_never_be_read_holds_up_no_other_and_is_named() {
        let mut table = Table::default();
        table.name(names(&["a", "bad", "..", "a\t"]), None);
        table.list("a", registered(1), None);
        table.list_failed("bad", hitch(true));
        let catalog = table.take_catalog().unwrap();
        assert_eq!(catalog.services.len(), 1);
        let subjects: Vec<_> = catalog
            .problems
            .iter()
            .map(|p| p.subject.as_str())
            .collect();
        assert_eq!(subjects, ["service ..", "service a\t", "service bad"]);
    }

    #[test]
    fn a_failure_keeps_what_is_known_and_is_told_until_the_next_answer() {
        let mut table = Table::default();
        table.name(names(&["a"]), None);
        table.list("a", registered(1), None);
        table.list_failed("a", hitch(false));
        assert_eq!(services(&mut table).unwrap(), ["a"]);
        assert_eq!(table.error().unwrap(), "service a: no");
        table.name_failed("cannot reach".to_owned());
        assert_eq!(table.error().unwrap(), "cannot reach");
        table.name(names(&["a"]), None);
        table.list("a", registered(1), None);
        assert_eq!(table.error(), None);
    }

    fn instance(id: u8, weight: u16) -> Arc<Instance> {
        let body = format!(
            r#"[{{"Node":{{"Node":"n","Address":"10.0.0.1"}},
                 "Service":{{"ID":"{id}","Port":1,"Weights":{{"Passing":{weight}}}}}}}]"#
        );
        let standpoint = Standpoint::default();
        let mut listing = parse::listing("s", body.as_bytes(), &standpoint).unwrap();
        listing.instances.remove(0)
    }

    fn listing(instances: &[(u8, u16)]) -> Listing {
        let mut instances: Vec<_> = instances.iter().map(|&(id, it)| instance(id, it)).collect();
        instances.sort_by(|a, b| a.key.cmp(&b.key));
        instances.dedup_by(|a, b| a.key == b.key);
        Listing {
            registered: instances.len(),
            instances,
            ..Listing::default()
        }
    }

    #[test]
    fn an_answer_that_says_the_same_changes_nothing() {
        let mut table = Table::default();
        table.name(names(&["a"]), None);
        table.list("a", listing(&[(1, 1), (2, 1)]), None);
        assert!(table.take_catalog().is_some());
        table.list("a", listing(&[(2, 1), (1, 1)]), None);
        table.name(names(&["a"]), None);
        assert_eq!(table.take_catalog(), None);
    }

    #[test]
    fn what_stays_the_same_keeps_its_allocation() {
        let mut table = Table::default();
        table.name(names(&["a", "b"]), None);
        table.list("a", listing(&[(1, 1), (2, 1)]), None);
        table.list("b", listing(&[(3, 1)]), None);
        let before = table.take_catalog().unwrap();
        table.list("a", listing(&[(0, 1), (1, 1), (2, 5)]), None);
        let after = table.take_catalog().unwrap();
        assert!(Arc::ptr_eq(&before.services["b"], &after.services["b"]));
        let (before, after) = (&before.services["a"], &after.services["a"]);
        assert!(Arc::ptr_eq(&before[0], &after[1]));
        assert_eq!((after.len(), after[2].weight), (3, 5));
    }

    #[test]
    fn what_was_kept_is_shown_only_when_consul_does_not_answer_and_makes_way_for_its_answer() {
        let kept = || {
            let shown: Services = [("a", 1), ("gone", 2)]
                .into_iter()
                .map(|(name, id)| (Arc::from(name), Arc::from([instance(id, 1)])))
                .collect();
            Table::resuming(shown)
        };
        let mut table = kept();
        assert_eq!(services(&mut table), None);
        table.name_failed("cannot reach".to_owned());
        table.resume();
        assert_eq!(services(&mut table).unwrap(), ["a", "gone"]);
        let error = table.error().unwrap();
        assert!(error.starts_with("cannot reach; what was known"), "{error}");
        let before = table.take_catalog().unwrap();
        table.name(names(&["a", "b"]), None);
        assert!(table.error().is_some());
        assert_eq!(services(&mut table).unwrap(), ["a", "gone"]);
        table.list("b", listing(&[(3, 1)]), None);
        table.list("a", listing(&[(1, 1)]), None);
        assert_eq!(services(&mut table).unwrap(), ["a", "b", "gone"]);
        let tasks = table.list("gone", registered(0), None);
        assert_eq!(tasks, [Task::Leave("gone".into())]);
        let after = table.take_catalog().unwrap();
        assert_eq!(services(&mut table).unwrap(), ["a", "b"]);
        assert!(Arc::ptr_eq(&before.services["a"], &after.services["a"]));
        assert_eq!(table.error(), None);

        // An answer that cannot be read takes nothing away.
        let mut table = kept();
        let tasks = table.name(names(&["a"]), None);
        let follow = ["gone", "a"].map(|it| Task::Follow(it.into()));
        assert_eq!(tasks, follow);
        table.list_failed("a", hitch(true));
        table.list_failed("gone", hitch(true));
        assert_eq!(services(&mut table).unwrap(), ["a", "gone"]);
        table.name(names(&["a"]), None);
        assert_eq!(services(&mut table).unwrap(), ["a", "gone"]);
    }

    fn at_host(id: u8, host: &str) -> Named {
        Named {
            host: host.into(),
            instance: instance(id, 1),
        }
    }

    fn addresses(table: &mut Table, service: &str) -> Vec<String> {
        table.complete_if_heard();
        let catalog = table.catalog().unwrap();
        let instances = catalog.services[service].iter();
        instances.map(|it| it.address.ip().to_string()).collect()
    }

    #[test]
    fn a_host_name_is_resolved_and_keeps_its_last_good_meaning() {
        let mut table = Table::default();
        table.name(names(&["a"]), None);
        let by_host = Listing {
            registered: 2,
            named: vec![at_host(2, "web.example")],
            ..listing(&[(1, 1)])
        };
        let tasks = table.list("a", by_host.clone(), None);
        assert_eq!(tasks, [Task::Resolve("web.example".into())]);
        assert_eq!(services(&mut table), None, "the first answer is awaited");
        table.resolved("web.example", Ok("10.0.0.7".parse().unwrap()));
        assert_eq!(addresses(&mut table, "a"), ["10.0.0.1", "10.0.0.7"]);
        assert_eq!(table.list("a", by_host, None), []);
        table.take_catalog();
        table.resolved("web.example", Err("no answer".to_owned()));
        assert_eq!(addresses(&mut table, "a"), ["10.0.0.1", "10.0.0.7"]);
        let problems = table.take_catalog().unwrap().problems;
        assert!(
            problems[0].message.contains("10.0.0.7, is used"),
            "{problems:?}"
        );
        table.resolved("web.example", Ok("10.0.0.8".parse().unwrap()));
        assert_eq!(addresses(&mut table, "a"), ["10.0.0.1", "10.0.0.8"]);
        let tasks = table.list("a", listing(&[(1, 1)]), None);
        assert_eq!(tasks, [Task::Forget("web.example".into())]);
        assert_eq!(addresses(&mut table, "a"), ["10.0.0.1"]);
    }

    #[test]
    fn a_host_name_without_an_answer_holds_up_the_others_for_a_time_only() {
        let mut table = Table::default();
        table.name(names(&["a"]), None);
        assert!(!table.waits_for_hosts());
        let by_host = Listing {
            registered: 2,
            named: vec![at_host(2, "web.example")],
            ..listing(&[(1, 1)])
        };
        table.list("a", by_host, None);
        assert!(table.waits_for_hosts());
        table.wait_for_hosts_no_more();
        assert_eq!(addresses(&mut table, "a"), ["10.0.0.1"]);
        assert!(!table.waits_for_hosts());
        table.resolved("web.example", Ok("10.0.0.7".parse().unwrap()));
        assert_eq!(addresses(&mut table, "a"), ["10.0.0.1", "10.0.0.7"]);
    }

    #[test]
    fn a_host_name_that_means_nothing_usable_is_named_and_holds_up_nobody() {
        for answer in [
            Err("no such host".to_owned()),
            Ok("169.254.169.254".parse().unwrap()),
        ] {
            let mut table = Table::default();
            table.name(names(&["a"]), None);
            let by_host = Listing {
                registered: 2,
                named: vec![at_host(2, "web.example")],
                ..listing(&[(1, 1)])
            };
            table.list("a", by_host, None);
            table.resolved("web.example", answer);
            let catalog = table.take_catalog().unwrap();
            assert_eq!(catalog.services["a"].len(), 1);
            assert_eq!(catalog.problems[0].subject, "instance n/2");
        }
    }

    use proptest::prelude::*;

    /// What a service says: its instances, or that it cannot be read.
    fn answer() -> impl Strategy<Value = Option<Vec<(u8, u16)>>> {
        prop::option::weighted(0.9, prop::collection::vec((0u8..5, 1u16..4), 0..5))
    }

    proptest! {
        #[test]
        fn any_sequence_of_answers_ends_in_the_same_table_as_the_last_ones_alone(
            answers in prop::collection::vec((0usize..4, answer()), 0..40),
            lists in prop::collection::vec((0usize..40, prop::collection::btree_set(0usize..4, 0..4)), 0..5),
            last in prop::collection::vec(prop::collection::vec((0u8..5, 1u16..4), 1..5), 4),
        ) {
            const NAMES: [&str; 4] = ["a", "b", "c", "d"];
            let mut table = Table::default();
            table.name(names(&NAMES), None);
            for (n, (service, answer)) in answers.into_iter().enumerate() {
                for (_, list) in lists.iter().filter(|(at, _)| *at == n) {
                    table.name(list.iter().map(|&it| NAMES[it].to_owned()).collect(), None);
                }
                match answer {
                    Some(instances) => table.list(NAMES[service], listing(&instances), None),
                    None => table.list_failed(NAMES[service], hitch(false)),
                };
                table.take_catalog();
            }
            let mut alone = Table::default();
            for table in [&mut table, &mut alone] {
                table.name(names(&NAMES), None);
                for (service, instances) in NAMES.into_iter().zip(&last) {
                    table.list(service, listing(instances), None);
                }
                table.complete_if_heard();
            }
            prop_assert_eq!(table.catalog(), alone.catalog());
            prop_assert_eq!(table.error(), None);
        }
    }
}
