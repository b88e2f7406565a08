//! The devices of containers whose packets are to be balanced: by the label `lb.client=packet`, or because their runtime has
//! a network stack of its own that no socket hook sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    thread,
    time::Duration,
};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{Fault, Wanted, peers, process},
    docker::{Container, Containers, Engine},
};

/// The devices of containers that are to be served, by their indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// Those that are known.
    pub devices: BTreeSet<u32>,
    /// Whether these are all: until the engine has told its containers, and where a container could not be looked at, there may be
    /// others, which an earlier agent served.
    pub complete: bool,
}

impl Labelled {
    /// Where there is no engine there are no containers.
    pub fn without_engine() -> Self {
        Self {
            devices: BTreeSet::new(),
            complete: true,
        }
    }
}

/// Says which devices they are until `stop`, by their indexes. `proc` is where the processes of the engine's host are.
pub async fn follow(
    proc: PathBuf,
    mut engine: watch::Receiver<Engine>,
    labelled: watch::Sender<Labelled>,
    stop: CancellationToken,
) {
    let mut known = Known::default();
    loop {
        let now = engine.borrow_and_update().clone();
        if let Some(containers) = now.containers {
            let wanted = known.wanted(&containers);
            if !wanted.is_empty() {
                let (proc, asked) = (proc.clone(), wanted.clone());
                // The thread stays in the last namespace that it entered, so it is one of its own and ends.
                let look = move || thread::spawn(move || peers(&proc, &asked)).join();
                match spawn_blocking(look).await {
                    Ok(Ok(found)) => known.found(wanted, found),
                    _ => tracing::warn!("cannot look at the devices of containers"),
                }
            }
            let all = Labelled {
                devices: known.devices(),
                complete: !known.is_incomplete() && now.unread.is_empty(),
            };
            labelled.send_if_modified(|told| {
                let changed = *told != all;
                *told = all;
                changed
            });
        }
        tokio::select! {
            changed = engine.changed() => if changed.is_err() {
                stop.cancelled().await;
                return;
            },
            () = sleep(AGAIN), if known.is_incomplete() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Whether the packets of a container are to be balanced.
fn is_meant(container: &Container) -> bool {
    match container.labels.get(LABEL).map(String::as_str) {
        Some(said) => said == PACKET,
        None => {
            let runtime = container.runtime.to_ascii_lowercase();
            OWN_STACKS.iter().any(|name| runtime.contains(name))
        }
    }
}

/// What is known of each container that is meant, by its id.
#[derive(Debug, Default)]
struct Known {
    by_id: BTreeMap<String, (Of, Option<BTreeSet<u32>>)>,
}

/// What its devices depend on: its process, and its networks.
type Of = (u32, u64, Vec<String>);

impl Known {
    /// Those that have to be looked at.
    fn wanted(&mut self, containers: &Containers) -> Vec<Wanted> {
        let meant = containers.values().filter(|it| is_meant(it));
        let meant: BTreeMap<String, Of> = meant
            .filter_map(|it| {
                let process = process(it)?;
                let networks = it.networks.keys().cloned().collect();
                Some((it.id.clone(), (process.pid, process.started, networks)))
            })
            .collect();
        self.by_id.retain(|id, (of, _)| meant.get(id) == Some(of));
        let mut wanted = Vec::new();
        for (id, of) in meant {
            let pid = of.0;
            let (_, found) = self.by_id.entry(id.clone()).or_insert((of, None));
            if found.is_none() {
                wanted.push(Wanted { container: id, pid });
            }
        }
        wanted
    }

    fn found(&mut self, wanted: Vec<Wanted>, found: Vec<Result<BTreeSet<u32>, Fault>>) {
        for (wanted, found) in wanted.into_iter().zip(found) {
            if let Some((_, known)) = self.by_id.get_mut(&wanted.container) {
                // Why not is told where it is told who the clients are.
                *known = found.ok();
            }
        }
    }

    fn devices(&self) -> BTreeSet<u32> {
        let all = self.by_id.values().filter_map(|(_, found)| found.as_ref());
        all.flatten().copied().collect()
    }

    fn is_incomplete(&self) -> bool {
        self.by_id.values().any(|(_, found)| found.is_none())
    }
}

const LABEL: &str = "lb.client";
const PACKET: &str = "packet";
/// Runtimes whose containers do not use the host's sockets: Kata Containers, gVisor.
const OWN_STACKS: [&str; 2] = ["kata", "runsc"];
/// Before the next look at what was not found.
const AGAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::docker::{Endpoint, NetworkMode, Process, State};

    fn container(id: &str, label: Option<&str>, runtime: &str) -> Container {
        Container {
            id: id.to_owned(),
            name: id.to_owned(),
            image: String::new(),
            created: 0,
            environment: Vec::new(),
            labels: label
                .map(|it| (LABEL.to_owned(), it.to_owned()))
                .into_iter()
                .collect(),
            exposed: BTreeSet::new(),
            published: Vec::new(),
            network: NetworkMode::Networks,
            networks: BTreeMap::new(),
            state: State::Running,
            process: Some(Process { pid: 7, started: 1 }),
            health: None,
            runtime: runtime.to_owned(),
        }
    }

    #[test]
    fn a_container_is_meant_by_its_label_or_its_runtime() {
        for (label, runtime, expect) in [
            (None, "runc", false),
            (Some("packet"), "runc", true),
            (None, "io.containerd.kata.v2", true),
            (None, "kata-runtime", true),
            (None, "runsc", true),
            (None, "", false),
            // The label has the last word.
            (Some("socket"), "runsc", false),
        ] {
            let found = is_meant(&container("a", label, runtime));
            assert_eq!(found, expect, "{label:?} {runtime}");
        }
    }

    #[test]
    fn devices_are_looked_at_again_when_the_process_or_the_networks_change() {
        let all = |it: &Container| Containers::from([(it.id.clone(), Arc::new(it.clone()))]);
        let ids = |wanted: &[Wanted]| wanted.iter().map(|it| it.pid).collect::<Vec<_>>();
        let mut known = Known::default();
        let mut one = container("a", Some("packet"), "");
        let wanted = known.wanted(&all(&one));
        assert_eq!(ids(&wanted), [7]);
        known.found(wanted, vec![Err(Fault::NotThere)]);
        assert!(known.is_incomplete() && known.devices().is_empty());
        let wanted = known.wanted(&all(&one));
        known.found(wanted, vec![Ok([3, 5].into())]);
        assert_eq!(known.devices(), [3, 5].into());
        assert!(known.wanted(&all(&one)).is_empty() && !known.is_incomplete());
        one.networks.insert("web".to_owned(), Endpoint::default());
        assert_eq!(ids(&known.wanted(&all(&one))), [7]);
        one.process = Some(Process { pid: 8, started: 2 });
        assert_eq!(ids(&known.wanted(&all(&one))), [8]);
        one.state = State::Exited(0);
        assert!(known.wanted(&all(&one)).is_empty());
        assert!(known.devices().is_empty() && !known.is_incomplete());
    }

    #[tokio::test]
    async fn devices_are_all_only_when_the_engine_has_told_and_each_container_was_looked_at() {
        let (engine_in, engine) = watch::channel(Engine::default());
        let (labelled, mut told) = watch::channel(Labelled::default());
        let stop = CancellationToken::new();
        // No process has a directory there, so no container can be looked at.
        let proc = PathBuf::from("/nonexistent");
        let run = tokio::spawn(follow(proc, engine, labelled, stop.clone()));
        let tell = |containers: Containers| {
            engine_in.send_modify(|it| it.containers = Some(Arc::new(containers)));
        };
        let in_time = Duration::from_secs(10);
        assert!(!told.borrow().complete, "nobody has told anything");

        tell(Containers::new());
        let all = tokio::time::timeout(in_time, told.wait_for(|it| it.complete));
        assert_eq!(*all.await.unwrap().unwrap(), Labelled::without_engine());

        let one = container("a", Some("packet"), "");
        tell(Containers::from([(one.id.clone(), Arc::new(one))]));
        let part = tokio::time::timeout(in_time, told.wait_for(|it| !it.complete));
        assert_eq!(*part.await.unwrap().unwrap(), Labelled::default());

        stop.cancel();
        run.await.unwrap();
    }
}
