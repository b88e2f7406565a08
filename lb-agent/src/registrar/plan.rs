//! From what a Consul agent holds to what it should hold, as steps. Pure.
//!
//! A service that is as it should be makes no step. One that does not carry the mark of this host is never changed.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{
    meta::{CHECKS, CONTAINER, REGISTRAR},
    registration::{CheckKind, CheckStatus, Registration},
    wish::{OUR_REASON, Phase, Wish, Wishes},
};
use crate::{
    catalog::Problem,
    discover::consul::agent::{Held, Report, Service, tagged, weights},
};

/// One request to the Consul agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Maintenance on.
    Maintain { id: String, reason: String },
    /// Registered, anew or again.
    Register(Box<Registration>),
    /// Maintenance off.
    Resume { id: String },
    /// Removed.
    Deregister { id: String },
    /// The state of a check.
    Report { check: String, report: Report },
}

/// Whose services are ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ownership<'o> {
    /// The identity of this host.
    pub(super) host: &'o str,
    /// Host names under which a Registrator registered what may be taken over.
    pub(super) adopt: &'o BTreeSet<String>,
}

/// What is remembered of earlier steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// What was reported last and when, unless it is due again.
    pub(super) reported: BTreeMap<String, (Report, Instant)>,
    /// Services whose scripts Consul refused, by id: as they should be, and as they were registered instead.
    pub(super) without_scripts: BTreeMap<String, (Registration, Registration)>,
    /// Services with a critical check for which Consul removes them, by id, as they should be.
    pub(super) failing: BTreeMap<String, Registration>,
    /// Maintenances that somebody else set and a registration ends, by id, with their reasons: from before the registration until
    /// they are in force again.
    pub(super) owed: BTreeMap<String, String>,
}

impl Memory {
    /// Forgets all that Consul may not hold any more. What is owed is known to nobody else.
    pub(super) fn reset(&mut self) {
        *self = Self {
            owed: std::mem::take(&mut self.owed),
            ..Self::default()
        };
    }

    /// Takes note of the maintenances that `steps` will end, and put back.
    pub(super) fn owe(&mut self, steps: &[Step]) {
        for step in steps {
            if let Step::Maintain { id, reason } = step
                && !reason.starts_with(OUR_REASON)
            {
                self.owed.insert(id.clone(), reason.clone());
            }
        }
    }

    /// Takes note of what Consul may soon remove by itself.
    pub(super) fn look(&mut self, wishes: &Wishes, held: &Held) {
        self.failing.retain(|id, registration| {
            let wish = wishes.services.get(id);
            wish.is_some_and(|wish| {
                wish.phase != Phase::Ending && wish.registration == *registration
            })
        });
        self.owed.retain(|id, _| wishes.services.contains_key(id));
        for (id, wish) in &wishes.services {
            if !held.services.contains_key(id) {
                continue;
            }
            let mut removing = wish.registration.checks.iter();
            let fails = removing.any(|check| {
                let now = held.checks.get(&check.id).map(|it| it.status.as_str());
                check.deregister_after.is_some() && now == Some(CheckStatus::Critical.as_str())
            });
            if fails {
                self.failing.insert(id.clone(), wish.registration.clone());
            } else {
                self.failing.remove(id);
            }
        }
    }
}

/// The steps from `held` to `wishes`. What clients depend on comes first: drains, then what is new, and last
/// what goes.
pub(super) fn plan(
    wishes: &Wishes,
    held: &Held,
    owner: Ownership<'_>,
    memory: &Memory,
) -> (Vec<Step>, Vec<Problem>) {
    let mut stages = Stages::default();
    let mut problems = Vec::new();
    for (id, wish) in &wishes.services {
        match held.services.get(id) {
            Some(service) if !owner.owns(id, service) => {
                problems.push(taken(id, service, wish));
            }
            service => stages.serve(id, wish, service, held, owner, memory),
        }
    }
    for (id, service) in &held.services {
        let container = service.meta.get(CONTAINER);
        let kept = container.is_some_and(|it| wishes.kept.contains(it));
        if !wishes.services.contains_key(id) && !kept && owner.owns(id, service) {
            stages.gone.push(Step::Deregister { id: id.clone() });
        }
    }
    (stages.steps(), problems)
}

#[derive(Default)]
struct Stages {
    drains: Vec<Step>,
    new: Vec<Step>,
    reports: Vec<Step>,
    gone: Vec<Step>,
}

impl Stages {
    fn serve(
        &mut self,
        id: &str,
        wish: &Wish,
        service: Option<&Service>,
        held: &Held,
        owner: Ownership<'_>,
        memory: &Memory,
    ) {
        let in_force = held.maintenance(id);
        let maintain = |reason: &str| Step::Maintain {
            id: id.to_owned(),
            reason: reason.to_owned(),
        };
        if wish.phase == Phase::Ending {
            // A registration would end the maintenance, and there is no point in a new one.
            if service.is_some() && in_force.is_none() {
                self.drains.extend(wish.phase.reason().map(maintain));
            }
            return;
        }
        let asked = match memory.without_scripts.get(id) {
            Some((wished, instead)) if *wished == wish.registration => instead,
            _ => &wish.registration,
        };
        let is_held = |it| is_as_asked(it, asked) && has_checks(held, id, asked);
        let unchanged = service.is_some_and(is_held) && !outlives(held, asked, owner.host);
        if !unchanged {
            let mut registration = wish.registration.clone();
            if service.is_none() && memory.failing.get(id) == Some(&registration) {
                // Consul removed it because it fails: it comes back when its checks say so, not by its first state.
                for check in &mut registration.checks {
                    check.initial = None;
                }
            }
            self.new.push(Step::Register(Box::new(registration)));
        }
        let theirs = in_force.filter(|reason| !reason.starts_with(OUR_REASON));
        let theirs = theirs.or_else(|| memory.owed.get(id).map(String::as_str));
        let wanted = theirs.or(wish.phase.reason());
        match (wanted, in_force) {
            // Registering again has ended it.
            (Some(reason), Some(_)) if !unchanged => self.new.push(maintain(reason)),
            (Some(reason), None) => self.new.push(maintain(reason)),
            (Some(reason), Some(now)) if reason != now => {
                // A second reason does not replace the first.
                self.new.push(Step::Resume { id: id.to_owned() });
                self.new.push(maintain(reason));
            }
            (None, Some(_)) if unchanged => self.new.push(Step::Resume { id: id.to_owned() }),
            _ => {}
        }
        for (check, report) in &wish.reports {
            let now = held.checks.get(check).map(|it| it.status.as_str());
            let told = memory
                .reported
                .get(check)
                .is_some_and(|(last, _)| last == report);
            if !told || now != Some(report.status.as_str()) {
                self.reports.push(Step::Report {
                    check: check.clone(),
                    report: report.clone(),
                });
            }
        }
    }

    fn steps(self) -> Vec<Step> {
        let Self {
            drains,
            new,
            reports,
            gone,
        } = self;
        [drains, new, reports, gone].concat()
    }
}

impl Ownership<'_> {
    /// Whether we may change the service `id`.
    pub(super) fn owns(self, id: &str, service: &Service) -> bool {
        match service.meta.get(REGISTRAR) {
            Some(host) => host == self.host,
            None => registrator_host(id).is_some_and(|host| self.adopt.contains(host)),
        }
    }
}

/// The host name in an id of Registrator's own form, `<host>:<container>:<port>[:udp]`.
fn registrator_host(id: &str) -> Option<&str> {
    let id = id.strip_suffix(":udp").unwrap_or(id);
    let (rest, port) = id.rsplit_once(':')?;
    let (host, name) = rest.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let named = name.len() > 1
        && name.bytes().all(inner)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric());
    (digits && named && !host.is_empty()).then_some(host)
}

fn is_as_asked(service: &Service, asked: &Registration) -> bool {
    service.name == asked.name
        && service.address.parse() == Ok(asked.address.ip())
        && service.port == i64::from(asked.address.port())
        && service.tags == asked.tags
        && service.meta == asked.meta
        && service.weights == weights(asked)
        && is_tagged_as_asked(service, asked)
}

fn is_tagged_as_asked(service: &Service, asked: &Registration) -> bool {
    let asked = tagged(&asked.tagged);
    let held = service.tagged_addresses.iter();
    let mut held = held.filter(|(tag, _)| !CONSULS_TAGS.contains(&tag.as_str()));
    held.clone().count() == asked.len()
        && held.all(|(tag, address)| asked.get(&**tag) == Some(address))
}

/// Whether every check is there; that they are the right ones says [`CHECKS`] in the Meta.
fn has_checks(held: &Held, id: &str, asked: &Registration) -> bool {
    debug_assert!(asked.meta.contains_key(CHECKS));
    let held = |check: &String| held.checks.get(check).is_some_and(|it| it.service_id == id);
    asked.checks.iter().all(|check| held(&check.id))
}

/// Whether an alias passes although what it stands for is gone, which Consul may notice a minute later; registered
/// again it looks at once. Of services of others the token may hide that they are there.
fn outlives(held: &Held, asked: &Registration, host: &str) -> bool {
    let is_ours = |id: &str| {
        id.strip_prefix(host)
            .is_some_and(|rest| rest.starts_with(':'))
    };
    asked.checks.iter().any(|check| {
        let CheckKind::Alias(other) = &check.kind else {
            return false;
        };
        let now = held.checks.get(&check.id).map(|it| it.status.as_str());
        let passes = now == Some(CheckStatus::Passing.as_str());
        passes && is_ours(other) && !held.services.contains_key(other)
    })
}

fn taken(id: &str, service: &Service, wish: &Wish) -> Problem {
    let whose = match service.meta.get(REGISTRAR) {
        Some(host) => format!(
            "by the registrar of host {host}; give each host its own [registrar] host, or stop \
             that one"
        ),
        None => "by something else; stop that, or take over what a Registrator left with \
                 [registrar] adopt"
            .to_owned(),
    };
    let container: String = wish.registration.container.chars().take(12).collect();
    Problem::new(
        format!("service {}", wish.registration.name),
        format!(
            "{id} of container {container} is not registered: Consul has that id already, {whose}"
        ),
    )
}

/// Tags of addresses that Consul makes by itself from the address of a service.
pub(crate) const CONSULS_TAGS: [&str; 4] = ["lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6"];

#[cfg(test)]
mod tests;
