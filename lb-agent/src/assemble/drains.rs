//! Which backends an operator took out of service. The set outlives the agent in a file of its own.

use std::{collections::BTreeSet, error::Error, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::{
    catalog::{Catalog, InstanceKey, Problem},
    snapshot::ServiceName,
    state_file,
};

/// One instance of a service that takes no new flow because an operator said so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Drain {
    /// The service.
    pub service: String,
    /// Its instance.
    pub instance: InstanceKey,
}

/// The drains and the file that keeps them.
pub(super) struct Drains {
    pub(super) set: Arc<BTreeSet<Drain>>,
    pub(super) problems: Vec<Problem>,
    path: PathBuf,
}

impl Drains {
    /// What the last agent left.
    pub(super) async fn load(state_dir: PathBuf) -> Self {
        let path = state_dir.join(FILE);
        let file = path.clone();
        let loaded = blocking(move || state_file::load(&file, VERSION)).await;
        let (set, problems) = match loaded {
            Ok(set) => (set.unwrap_or_default(), Vec::new()),
            Err(why) => {
                let message = format!(
                    "what was drained is not known any more: {why}; drain again where it is needed"
                );
                (BTreeSet::new(), vec![Problem::new("drains", message)])
            }
        };
        Self {
            set: Arc::new(set),
            problems,
            path,
        }
    }

    /// Keeps `set` from now on.
    ///
    /// # Errors
    ///
    /// Why it could not be written, as a sentence; then the old set stays in force.
    pub(super) async fn store(&mut self, set: BTreeSet<Drain>) -> Result<(), String> {
        if set == *self.set {
            return Ok(());
        }
        let path = self.path.clone();
        let saved = blocking(move || state_file::save(&path, VERSION, &set).map(|()| set)).await;
        let saved = saved.map_err(|why| {
            format!("{why}; make room or correct the permissions of the state directory")
        })?;
        self.set = Arc::new(saved);
        Ok(())
    }
}

/// The set after one request, and the instances that it concerns.
///
/// # Errors
///
/// When nothing in `catalog` matches, or more than one thing, with the names there are.
pub(super) fn after_request(
    set: &BTreeSet<Drain>,
    catalog: &Catalog,
    wanted: (&str, Option<&str>),
    undo: bool,
) -> Result<(BTreeSet<Drain>, Vec<InstanceKey>), String> {
    let (service, instances) = find(catalog, wanted.0)?;
    let matched: Vec<InstanceKey> = match wanted.1 {
        None => instances,
        Some(backend) => vec![pick(&service, &instances, backend)?],
    };
    let mut set = set.clone();
    for instance in matched.iter().cloned() {
        let service = service.clone();
        let drain = Drain { service, instance };
        if undo {
            set.remove(&drain);
        } else {
            set.insert(drain);
        }
    }
    Ok((set, matched))
}

/// The set without the instances that left `catalog`, which must be complete: whatever comes back under an
/// old id is another process.
pub(super) fn after_leaving(set: &BTreeSet<Drain>, catalog: &Catalog) -> BTreeSet<Drain> {
    let lives = |drain: &&Drain| {
        let instances = catalog.services.get(&*drain.service);
        instances.is_some_and(|them| them.iter().any(|it| it.key == drain.instance))
    };
    set.iter().filter(lives).cloned().collect()
}

/// The service that people call `name`, or the instances of its part: `www`, `www.hello`, `hello_www`.
fn find(catalog: &Catalog, name: &str) -> Result<(String, Vec<InstanceKey>), String> {
    if let Some(instances) = catalog.services.get(name) {
        let keys = instances.iter().map(|it| it.key.clone()).collect();
        return Ok((name.to_owned(), keys));
    }
    for (service, instances) in &catalog.services {
        let called = |tag: &String| {
            let part = ServiceName::part(service.clone(), &**tag);
            part.label() == name || part.to_string() == name
        };
        let part = instances.iter().filter(|it| it.tags.iter().any(called));
        let keys: Vec<_> = part.map(|it| it.key.clone()).collect();
        if !keys.is_empty() {
            return Ok((service.to_string(), keys));
        }
    }
    let names: Vec<&str> = catalog.services.keys().map(|it| &**it).collect();
    Err(format!(
        "there is no service {name}; there are: {}",
        listed(&names)
    ))
}

fn pick(service: &str, instances: &[InstanceKey], backend: &str) -> Result<InstanceKey, String> {
    let called = |key: &&InstanceKey| *key.id == *backend || key.to_string() == backend;
    let mut found = instances.iter().filter(called);
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key.clone()),
        (Some(one), Some(other)) => Err(format!(
            "{backend} of service {service} is not one backend; say {one} or {other}"
        )),
        (None, _) => {
            let keys: Vec<String> = instances.iter().map(ToString::to_string).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            Err(format!(
                "service {service} has no backend {backend}; it has: {}",
                listed(&keys)
            ))
        }
    }
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        few if few.len() <= LISTED => few.join(", "),
        many => format!(
            "{} and {} more",
            many[..LISTED].join(", "),
            many.len() - LISTED
        ),
    }
}

/// Does `work` where it may wait for the disk; the error is one sentence with its cause.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, state_file::Error> + Send + 'static,
) -> Result<T, String> {
    match spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }),
        Err(error) => Err(error.to_string()),
    }
}

const FILE: &str = "drains.json";
const VERSION: u32 = 1;
/// Names in one message.
const LISTED: usize = 20;
