//! What is known of every service, and the catalog made of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::parse::{Listing, name_problem};
use crate::catalog::{Catalog, Problem};

/// Everything that was learnt so far.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<String, Row>,
    /// Whether the list of services was ever read.
    listed: bool,
    /// Why the list cannot be read at the moment.
    trouble: Option<String>,
    /// Set with the first full answer, for good.
    complete: bool,
}

#[derive(Debug, Default)]
struct Row {
    /// Whether the list names the service. One that it no longer names is kept until its own answer says
    /// that no instance is left.
    named: bool,
    /// `None` until its first answer.
    listing: Option<Listing>,
    trouble: Option<Hitch>,
}

/// Why a service cannot be read at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hitch {
    pub(super) text: String,
    /// Whether it stays so until somebody changes something. Then it must not hold up the others.
    pub(super) is_final: bool,
}

/// What follows from news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Follow this service from now on.
    Follow(String),
    /// It is gone.
    Leave(String),
}

impl Table {
    /// Takes in the list of services.
    pub(super) fn name(&mut self, names: BTreeSet<String>, stale: Option<String>) -> Vec<Task> {
        self.listed = true;
        self.trouble = stale;
        for (service, row) in &mut self.rows {
            row.named = names.contains(service);
        }
        let mut tasks = Vec::new();
        for service in names {
            if let Some(row) = self.rows.get_mut(&service) {
                row.named = true;
            } else {
                let mut row = Row {
                    named: true,
                    ..Row::default()
                };
                // These two would be lost in the path of a URL, whatever the encoding.
                if matches!(service.as_str(), "." | "..") {
                    row.trouble = Some(Hitch {
                        text: "its name cannot be asked for; register it under another".to_owned(),
                        is_final: true,
                    });
                } else {
                    tasks.push(Task::Follow(service.clone()));
                }
                self.rows.insert(service, row);
            }
        }
        tasks.extend(self.sweep());
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
        if let Some(row) = self.rows.get_mut(service) {
            row.listing = Some(listing);
            row.trouble = stale.map(|text| Hitch {
                text,
                is_final: false,
            });
        }
        self.sweep()
    }

    /// A service cannot be read; what is known of it stays.
    pub(super) fn list_failed(&mut self, service: &str, why: Hitch) -> Vec<Task> {
        if let Some(row) = self.rows.get_mut(service) {
            row.trouble = Some(why);
        }
        self.sweep()
    }

    /// Forgets the services that both the list and their own answer call gone.
    fn sweep(&mut self) -> Vec<Task> {
        let gone = self.rows.extract_if(.., |_, row| {
            let empty = match &row.listing {
                Some(listing) => listing.registered == 0,
                None => row.trouble.as_ref().is_some_and(|hitch| hitch.is_final),
            };
            !row.named && empty
        });
        gone.map(|(service, _)| Task::Leave(service)).collect()
    }

    /// The catalog; `None` until every service of the first list has been heard of.
    pub(super) fn catalog(&mut self) -> Option<Catalog> {
        self.complete |= self.listed
            && self.rows.values().all(|row| {
                row.listing.is_some() || row.trouble.as_ref().is_some_and(|hitch| hitch.is_final)
            });
        if !self.complete {
            return None;
        }
        let mut catalog = Catalog::default();
        for (service, row) in &self.rows {
            if let Some(hitch) = row.trouble.as_ref().filter(|hitch| hitch.is_final) {
                let subject = format!("service {service}");
                catalog.problems.push(Problem::new(subject, &hitch.text));
            }
            let Some(listing) = row.listing.as_ref().filter(|l| l.registered > 0) else {
                continue;
            };
            catalog.problems.extend(name_problem(service));
            catalog.problems.extend(listing.problems.iter().cloned());
            let instances = listing.instances.clone();
            catalog.services.insert(service.as_str().into(), instances);
        }
        Some(catalog)
    }

    /// Why what is known may be old.
    pub(super) fn error(&self) -> Option<String> {
        if self.trouble.is_some() {
            return self.trouble.clone();
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(table.catalog(), Some(Catalog::default()));
    }

    #[test]
    fn a_new_service_does_not_make_the_rest_unknown_again() {
        let mut table = Table::default();
        table.name(names(&["a"]), None);
        table.list("a", registered(1), None);
        table.catalog();
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
        table.name(names(&["a", "bad", ".."]), None);
        table.list("a", registered(1), None);
        table.list_failed("bad", hitch(true));
        let catalog = table.catalog().unwrap();
        assert_eq!(catalog.services.len(), 1);
        let subjects: Vec<_> = catalog
            .problems
            .iter()
            .map(|p| p.subject.as_str())
            .collect();
        assert_eq!(subjects, ["service ..", "service bad"]);
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
}
