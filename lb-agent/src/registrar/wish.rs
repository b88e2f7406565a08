//! What Consul should hold for the containers of this host, as a pure function of them.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::{
    grammar::registrations,
    registration::{CheckKind, CheckStatus, Registration},
    seen::{Life, Seen},
    settings::Settings,
};
use crate::{
    catalog::Problem,
    discover::consul::agent::Report,
    docker::{Container, Containers, Health, NetworkMode, State},
};

/// When the services of a container that ended are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deregister {
    /// Always.
    Always,
    /// When it ended well: with code 0, by a signal, or by being removed. Others stay, for people to see.
    OnSuccess,
}

/// One service that Consul should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) registration: Registration,
    pub(super) phase: Phase,
    /// The states of the checks that we report, by their ids.
    pub(super) reports: BTreeMap<String, Report>,
}

/// Where the container of a [`Wish`] is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It serves.
    Serving,
    /// It is frozen: in maintenance.
    Paused,
    /// It will end: in maintenance, and changed no more.
    Ending,
}

impl Phase {
    fn life(self) -> Life {
        match self {
            Self::Serving => Life::Running,
            Self::Paused => Life::Paused,
            Self::Ending => Life::Ending,
        }
    }

    /// Why the service is in maintenance.
    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Serving => None,
            Self::Paused => Some(PAUSED),
            Self::Ending => Some(ENDING),
        }
    }
}

/// All wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// By the id of the service.
    pub(super) services: BTreeMap<String, Wish>,
    /// Containers whose services stay as they are.
    pub(super) kept: BTreeSet<String>,
    pub(super) problems: Vec<Problem>,
    /// Containers that run and ask for nothing that could be registered.
    pub(super) left_out: usize,
    /// Every container that runs, in the order of their age.
    pub(super) seen: Vec<Seen>,
}

/// What the `containers` ask for. Those that are `unread` are there, and nobody knows what they ask for. Those in `overdue` are
/// ending for too long, and count as gone.
pub(super) fn wishes(
    containers: &Containers,
    unread: &BTreeSet<String>,
    overdue: &BTreeSet<String>,
    settings: &Settings,
    deregister: Deregister,
) -> Wishes {
    let mut wishes = Wishes {
        kept: unread.clone(),
        ..Wishes::default()
    };
    // Of two that claim one id, the older keeps it.
    let mut oldest_first: Vec<&Arc<Container>> = containers.values().collect();
    oldest_first.sort_by_key(|it| (it.created, &it.id));
    for container in oldest_first {
        if let NetworkMode::Container(other) = &container.network
            && unread.contains(other)
        {
            // Where it can be reached is not known either.
            wishes.kept.insert(container.id.clone());
            continue;
        }
        let phase = match container.state {
            State::Running => Phase::Serving,
            State::Paused => Phase::Paused,
            State::Ending if !overdue.contains(&container.id) => Phase::Ending,
            State::Exited(code) if deregister == Deregister::OnSuccess && !ended_well(code) => {
                wishes.kept.insert(container.id.clone());
                continue;
            }
            State::Created | State::Ending | State::Exited(_) => continue,
        };
        let reading = registrations(container, containers, settings);
        wishes.left_out += usize::from(reading.registrations.is_empty());
        if reading.lacks_host {
            wishes.kept.insert(container.id.clone());
        }
        let mut seen = Seen::new(container, phase.life(), &reading);
        wishes.problems.extend(reading.problems);
        for registration in reading.registrations {
            let id = registration.id.clone();
            if let Err(message) = wishes.add(registration, container, phase) {
                let subject = format!("container {}", container.name);
                wishes.problems.push(Problem::new(subject, &*message));
                seen.registers.retain(|it| it.id != id);
                seen.refused.push(message);
            }
        }
        wishes.seen.push(seen);
    }
    wishes
}

impl Wishes {
    /// Adds a service; says why it is not registered if another container has its id.
    fn add(
        &mut self,
        registration: Registration,
        container: &Container,
        phase: Phase,
    ) -> Result<(), String> {
        match self.services.entry(registration.id.clone()) {
            Entry::Vacant(free) => {
                let reports = reports(&registration, container);
                free.insert(Wish {
                    registration,
                    phase,
                    reports,
                });
                Ok(())
            }
            Entry::Occupied(taken) => {
                let other: String = taken
                    .get()
                    .registration
                    .container
                    .chars()
                    .take(12)
                    .collect();
                Err(format!(
                    "its service {} is not registered: container {other} has registered that id \
                     already; give one of them another SERVICE_ID",
                    registration.id
                ))
            }
        }
    }
}

/// As Registrator: killed by a signal counts as well.
fn ended_well(code: i64) -> bool {
    code == 0 || code & 128 != 0
}

pub(super) fn reports(
    registration: &Registration,
    container: &Container,
) -> BTreeMap<String, Report> {
    let report = |status, output: &str| Report {
        status,
        output: output.to_owned(),
    };
    let reports = registration.checks.iter().filter_map(|check| {
        let report = match &check.kind {
            CheckKind::Docker => match &container.health {
                Some(Health::Healthy) => report(CheckStatus::Passing, "the container is healthy"),
                Some(Health::Unhealthy(output)) => report(CheckStatus::Critical, output),
                Some(Health::Starting) | None => {
                    report(CheckStatus::Critical, "the container is starting")
                }
            },
            CheckKind::Heartbeat(_) => report(CheckStatus::Passing, "the registrar runs"),
            CheckKind::Unusable(reason) => report(CheckStatus::Critical, reason),
            _ => return None,
        };
        Some((check.id.clone(), report))
    });
    reports.collect()
}

/// Begins every reason of ours: a maintenance with another reason is an operator's.
pub(super) const OUR_REASON: &str = "lb-agent: ";
const PAUSED: &str = "lb-agent: the container is paused";
const ENDING: &str = "lb-agent: the container is ending";
