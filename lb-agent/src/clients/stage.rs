//! The stage: asks for the cookies of new containers, and says who the clients are.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Clients,
    compose::{clients, problems, process},
    namespaces::{Fault, Namespaces, Wanted},
};
use crate::{
    catalog::Problem,
    docker::{Containers, Engine, Networks, Process},
};

/// How the stage is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the processes of the engine's host are.
    pub proc: PathBuf,
}

/// What the stage sends.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Who the clients are; `None` before the engine has told its containers.
    pub clients: watch::Sender<Option<Arc<Clients>>>,
    /// What keeps some of them from being known.
    pub problems: watch::Sender<Vec<Problem>>,
}

/// Why the stage ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There can be no thread, or it knows nothing of its own namespace.
    #[error("cannot tell the agent's own network namespace")]
    Start(#[source] io::Error),
    /// A fault of the program.
    #[error("the thread that enters network namespaces has ended")]
    Ended,
}

/// Says who the clients are until `stop`.
///
/// # Errors
/// When there can be no thread that enters network namespaces.
pub async fn run(
    config: Config,
    mut engine: watch::Receiver<Engine>,
    outputs: Outputs,
    stop: CancellationToken,
) -> Result<(), Error> {
    let namespaces = Namespaces::start(config.proc.clone()).map_err(Error::Start)?;
    let mut seen = Seen::default();
    loop {
        let told = engine.borrow_and_update().clone();
        if let Some((containers, networks)) = complete(told) {
            let wanted = seen.wanted(&containers);
            if !wanted.is_empty() {
                let found = namespaces.cookies(wanted.clone()).await;
                seen.found(wanted, found.ok_or(Error::Ended)?);
            }
            let cookies = seen.cookies();
            let clients = clients(&containers, &networks, &cookies, namespaces.own);
            publish(&outputs.clients, clients);
            tell(
                &outputs.problems,
                problems(seen.faults(&containers), &config.proc),
            );
        }
        tokio::select! {
            // An error means that the follower ended, which is told elsewhere: what is known stays.
            changed = engine.changed() => if changed.is_err() {
                stop.cancelled().await;
                return Ok(());
            },
            () = sleep(seen.pause()) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// The containers and networks, once both are known. An engine that does not tell its networks has none that is known
/// to lead nowhere.
fn complete(engine: Engine) -> Option<(Arc<Containers>, Arc<Networks>)> {
    let networks = match (engine.networks, engine.error) {
        (Some(networks), _) => networks,
        (None, Some(_)) => Arc::default(),
        (None, None) => return None,
    };
    Some((engine.containers?, networks))
}

fn publish(out: &watch::Sender<Option<Arc<Clients>>>, clients: Clients) {
    out.send_if_modified(|told| {
        let changed = told.as_deref() != Some(&clients);
        if changed {
            *told = Some(Arc::new(clients));
        }
        changed
    });
}

fn tell(out: &watch::Sender<Vec<Problem>>, problems: Vec<Problem>) {
    out.send_if_modified(|told| {
        let changed = *told != problems;
        if changed {
            for problem in problems.iter().filter(|problem| !told.contains(problem)) {
                warn!("{problem}");
            }
            *told = problems;
        }
        changed
    });
}

/// What was found of each process, by the id of its container.
#[derive(Debug, Default)]
struct Seen {
    by_id: BTreeMap<String, (Process, Finding)>,
}

#[derive(Clone, Copy, Debug)]
enum Finding {
    Cookie(u64),
    /// Not found, so many times.
    Fault(Fault, u32),
    /// It is to be looked at.
    Open,
}

impl Seen {
    /// The processes that have to be looked at: those that are new, and those that were not found the last time.
    fn wanted(&mut self, containers: &Containers) -> Vec<Wanted> {
        self.by_id
            .retain(|id, (known, _)| containers.get(id).and_then(|it| process(it)) == Some(*known));
        let mut wanted = Vec::new();
        for container in containers.values() {
            let Some(process) = process(container) else {
                continue;
            };
            let known = self
                .by_id
                .entry(container.id.clone())
                .or_insert((process, Finding::Open));
            if !matches!(known.1, Finding::Cookie(_)) {
                wanted.push(Wanted {
                    container: container.id.clone(),
                    pid: process.pid,
                });
            }
        }
        wanted
    }

    fn found(&mut self, wanted: Vec<Wanted>, found: Vec<Result<u64, Fault>>) {
        for (wanted, found) in wanted.into_iter().zip(found) {
            let Some((_, known)) = self.by_id.get_mut(&wanted.container) else {
                continue;
            };
            *known = match (found, &*known) {
                (Ok(cookie), _) => Finding::Cookie(cookie),
                (Err(fault), Finding::Fault(_, times)) => {
                    Finding::Fault(fault, times.saturating_add(1))
                }
                (Err(fault), _) => Finding::Fault(fault, 1),
            };
        }
    }

    fn cookies(&self) -> BTreeMap<String, u64> {
        let all = self.by_id.iter();
        all.filter_map(|(id, (_, finding))| match finding {
            Finding::Cookie(cookie) => Some((id.clone(), *cookie)),
            _ => None,
        })
        .collect()
    }

    /// The names of the containers that people have to do something about. One that has just ended is not there
    /// either, and the engine is about to say so.
    fn faults<'a>(&self, containers: &'a Containers) -> Vec<(&'a str, Fault)> {
        let all = self.by_id.iter();
        all.filter_map(|(id, (_, finding))| match finding {
            Finding::Fault(Fault::NotThere, 1) => None,
            Finding::Fault(fault, _) => Some((containers.get(id)?.name.as_str(), *fault)),
            _ => None,
        })
        .collect()
    }

    /// How long to wait before the next look, if the engine says nothing meanwhile.
    fn pause(&self) -> Duration {
        let pauses = self.by_id.values().map(|(_, finding)| match finding {
            Finding::Fault(_, 1) => SOON,
            Finding::Fault(..) => LATER,
            _ => IDLE,
        });
        pauses.min().unwrap_or(IDLE)
    }
}

/// By then the engine has said that a container ended.
const SOON: Duration = Duration::from_secs(1);
/// What is still missing then is a matter of rights or mounts.
const LATER: Duration = Duration::from_secs(10);
/// Nothing is missing.
const IDLE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
