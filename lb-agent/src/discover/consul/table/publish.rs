//! What of the table is shown, and from when on.

use std::sync::Arc;

use super::{Host, Row, Table};
use crate::catalog::{Catalog, Problem};

impl Table {
    /// Lets what was known when the last agent ended be shown from now on, if that is all there is.
    pub(in super::super) fn resume(&mut self) {
        if !self.complete && !self.resumed && !self.services.is_empty() {
            self.resumed = true;
            self.changed = true;
        }
    }

    /// Tells `problem` from now on.
    pub(in super::super) fn notice(&mut self, problem: Problem) {
        self.changed |= self.notices.insert(problem);
    }

    /// Tells no problem of `subject` any more.
    pub(in super::super) fn settle(&mut self, subject: &str) {
        let before = self.notices.len();
        self.notices.retain(|problem| problem.subject != subject);
        self.changed |= self.notices.len() < before;
    }

    /// Whether every service of the first list was heard of.
    pub(in super::super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The catalog, if it is not what was taken last; `None` also until every service of the first list has
    /// been heard of.
    pub(in super::super) fn take_catalog(&mut self) -> Option<Catalog> {
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
    pub(in super::super) fn waits_for_hosts(&self) -> bool {
        let unasked = |host: &Host| host.ip.is_none() && host.error.is_none();
        !self.complete && self.is_heard() && !self.impatient && self.hosts.values().any(unasked)
    }

    /// Leaves out the instances whose host name has had no answer, until it has one.
    pub(in super::super) fn wait_for_hosts_no_more(&mut self) {
        self.impatient = true;
    }

    pub(super) fn complete_if_heard(&mut self) {
        if self.complete || !self.is_heard() || self.waits_for_hosts() {
            return;
        }
        self.complete = true;
        self.changed = true;
        // One whose answer cannot be read keeps what was known of it when the last agent ended.
        let is_gone = |service: &&Arc<str>| {
            let row = self.rows.get(*service);
            row.is_none_or(|row| row.registered == Some(0))
        };
        let gone: Vec<_> = self.services.keys().filter(is_gone).cloned().collect();
        for service in gone {
            self.services.remove(&service);
        }
    }

    pub(super) fn catalog(&self) -> Option<Catalog> {
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
    pub(in super::super) fn error(&self) -> Option<String> {
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
}
