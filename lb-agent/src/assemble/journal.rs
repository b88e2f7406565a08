//! What changed from one snapshot to the next, as values; and their lines in the log: each change once, with from and to.

use std::{collections::BTreeSet, sync::Arc};

use tracing::{debug, info, warn};

use crate::{
    admin::events::{Events, Happened, Kind},
    catalog::{InstanceKey, Problem},
    snapshot::{Backend, Service, ServiceName, Snapshot, changes},
};

/// Logs how `after` differs from `before`, and adds it to the events; of the first snapshot only its size and its problems.
pub(super) fn record(before: Option<&Snapshot>, after: &Snapshot, events: &Events) {
    for change in differences(before, after) {
        change.log();
        if let Some(happened) = change.happened() {
            events.add(happened);
        }
    }
}

/// One thing that changed.
enum Change<'s> {
    /// Something is wrong.
    Problem(&'s Problem),
    /// Something is wrong no more.
    Solved(&'s Problem),
    /// A source cannot be read, for this reason, or can be read again.
    Source(&'s str, Option<&'s str>),
    /// The first snapshot, of so many services and backends.
    First(usize, usize),
    /// All that there is to know at the start is known.
    Complete,
    ServiceAppeared(&'s ServiceName, usize),
    ServiceLeft(&'s ServiceName),
    Backend(&'s str, &'s InstanceKey, Turn<'s>),
}

/// What became of a backend.
enum Turn<'s> {
    Appeared(&'s Backend),
    Left(&'s Backend),
    /// It has another state.
    Changed(&'s Backend, &'s Backend),
    Moved(&'s Backend, &'s Backend),
    /// What nobody has to hear of.
    Details,
}

fn differences<'s>(before: Option<&'s Snapshot>, after: &'s Snapshot) -> Vec<Change<'s>> {
    let mut all = Vec::new();
    let known: BTreeSet<&Problem> = before.into_iter().flat_map(|it| &it.problems).collect();
    let new = after.problems.iter().filter(|it| !known.contains(it));
    all.extend(new.map(Change::Problem));
    if !known.is_empty() {
        let still: BTreeSet<&Problem> = after.problems.iter().collect();
        let solved = known.into_iter().filter(|it| !still.contains(it));
        all.extend(solved.map(Change::Solved));
    }
    for (name, source) in &after.sources {
        let old = before.and_then(|it| it.sources.get(name));
        let old = old.and_then(|it| it.error.as_deref());
        // Another reason is no news: it is stale as before.
        if old.is_some() != source.error.is_some() {
            all.push(Change::Source(name, source.error.as_deref()));
        }
    }
    match before {
        None => {
            let backends = |service: &Arc<Service>| service.backends.len();
            let backends: usize = after.services.values().map(backends).sum();
            all.push(Change::First(after.services.len(), backends));
        }
        Some(before) => {
            for (name, old, new) in changes(&before.services, &after.services) {
                match (old, new) {
                    (Some(old), Some(new)) => of_service(name, old, new, &mut all),
                    (None, Some(new)) => {
                        all.push(Change::ServiceAppeared(name, new.backends.len()));
                    }
                    (_, None) => all.push(Change::ServiceLeft(name)),
                }
            }
        }
    }
    if after.complete && !before.is_some_and(|it| it.complete) {
        all.push(Change::Complete);
    }
    all
}

fn of_service<'s>(
    name: &'s ServiceName,
    before: &'s Service,
    after: &'s Service,
    all: &mut Vec<Change<'s>>,
) {
    // The whole service tells it; its parts would say it again.
    if name.tag.is_some() {
        return;
    }
    let mut add = |instance, turn| all.push(Change::Backend(&name.service, instance, turn));
    for (instance, backend) in &after.backends {
        match before.backends.get(instance) {
            None => add(instance, Turn::Appeared(backend)),
            Some(old) if old.state() != backend.state() => {
                add(instance, Turn::Changed(old, backend));
            }
            Some(old) if old.address != backend.address => {
                add(instance, Turn::Moved(old, backend));
            }
            Some(old) if old != backend => add(instance, Turn::Details),
            Some(_) => {}
        }
    }
    for (instance, backend) in &before.backends {
        if !after.backends.contains_key(instance) {
            add(instance, Turn::Left(backend));
        }
    }
}

impl Change<'_> {
    fn log(&self) {
        match self {
            Self::Problem(Problem { subject, message }) => warn!(subject, message, "problem"),
            // Who reads the problems sees it; and sources log themselves.
            Self::Solved(_) | Self::Source(..) => {}
            Self::First(services, backends) => info!(services, backends, "first snapshot"),
            Self::Complete => info!("every source has answered and every backend was probed"),
            Self::ServiceAppeared(service, backends) => {
                info!(%service, backends, "service appeared");
            }
            Self::ServiceLeft(service) => info!(%service, "service left"),
            Self::Backend(service, instance, turn) => match turn {
                Turn::Appeared(backend) => {
                    let state = backend.state().as_str();
                    info!(service, %instance, address = %backend.address, state, "backend appeared");
                }
                Turn::Left(_) => info!(service, %instance, "backend left"),
                Turn::Changed(old, new) => {
                    let (from, to) = (old.state().as_str(), new.state().as_str());
                    let why = new.probe.error.as_deref().unwrap_or_default();
                    info!(service, %instance, from, to, why, "backend changed");
                }
                Turn::Moved(old, new) => {
                    let (from, to) = (old.address, new.address);
                    info!(service, %instance, %from, %to, "backend moved");
                }
                Turn::Details => debug!(service, %instance, "backend has new details"),
            },
        }
    }

    fn happened(&self) -> Option<Happened> {
        let event = |kind, subject: String, from: Option<&str>, to: Option<&str>| Happened {
            kind,
            subject,
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            cause: None,
            actor: None,
        };
        let why = |cause: Option<&str>, event| Happened {
            cause: cause.map(str::to_owned),
            ..event
        };
        Some(match self {
            Self::Problem(Problem { subject, message }) => {
                let event = event(Kind::Problem, subject.clone(), None, Some("wrong"));
                why(Some(message), event)
            }
            Self::Solved(Problem { subject, message }) => {
                let event = event(Kind::Problem, subject.clone(), Some("wrong"), None);
                why(Some(message), event)
            }
            Self::Source(name, error) => {
                let (from, to) = match error {
                    Some(_) => ("current", "stale"),
                    None => ("stale", "current"),
                };
                let event = event(Kind::Source, (*name).to_owned(), Some(from), Some(to));
                why(*error, event)
            }
            Self::First(services, backends) => {
                let to = format!("knows {services} services with {backends} backends");
                event(Kind::Agent, "agent".to_owned(), None, Some(&to))
            }
            Self::Complete => event(Kind::Agent, "agent".to_owned(), None, Some("complete")),
            Self::ServiceAppeared(service, backends) => {
                let to = format!("{backends} backends");
                event(Kind::Service, format!("service {service}"), None, Some(&to))
            }
            Self::ServiceLeft(service) => event(
                Kind::Service,
                format!("service {service}"),
                Some("there"),
                None,
            ),
            Self::Backend(service, instance, turn) => {
                let subject = format!("instance {instance} of service {service}");
                let event = |from: Option<&str>, to: Option<&str>| {
                    event(Kind::Backend, subject.clone(), from, to)
                };
                match turn {
                    Turn::Appeared(backend) => event(None, Some(backend.state().as_str())),
                    Turn::Left(backend) => event(Some(backend.state().as_str()), None),
                    Turn::Changed(old, new) => {
                        let (from, to) = (old.state().as_str(), new.state().as_str());
                        let event = event(Some(from), Some(to));
                        why(new.probe.error.as_deref(), event)
                    }
                    Turn::Moved(old, new) => {
                        let (from, to) = (old.address.to_string(), new.address.to_string());
                        event(Some(&from), Some(&to))
                    }
                    Turn::Details => return None,
                }
            }
        })
    }
}
