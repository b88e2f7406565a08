//! The host names that instances are registered with, and what they mean.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    super::parse::{Named, reachable},
    Table, Task,
};
use crate::catalog::{Instance, Problem};

/// A host name that instances are registered with.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// What it means; the last good answer.
    pub(super) ip: Option<IpAddr>,
    /// Why it cannot be resolved now.
    pub(super) error: Option<String>,
    /// The services that have such instances.
    pub(super) services: BTreeSet<Arc<str>>,
}

impl Table {
    /// Takes in what a host name means. One that cannot be resolved keeps its last meaning.
    pub(in super::super) fn resolved(&mut self, host: &str, answer: Result<IpAddr, String>) {
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

    pub(super) fn leave_hosts<'h>(
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
    pub(super) fn problem(&self, named: &Named) -> Option<Problem> {
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

pub(super) fn hosts_of(named: &[Named]) -> BTreeSet<Arc<str>> {
    named.iter().map(|named| named.host.clone()).collect()
}
