//! The last good catalog on disk, for an agent that starts while Consul is away.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Config, table::Services};
use crate::{
    catalog::{Catalog, Instance, SourceState},
    state_file,
};

/// What is on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Whose catalog it is. Another Consul has nothing to do with it.
    consul: Identity,
    /// When it was true.
    pub(super) updated: SystemTime,
    services: BTreeMap<String, Vec<Instance>>,
}

/// Its version on disk.
pub(super) const VERSION: u32 = 1;
/// A change is written no sooner than this after the last; a crash loses so much.
const PAUSE: Duration = Duration::from_secs(5);
/// How often its time is renewed when nothing changes.
const RENEW: Duration = Duration::from_secs(300);

impl Saved {
    pub(super) fn into_services(self) -> Services {
        let shared = |instances: Vec<Instance>| instances.into_iter().map(Arc::new).collect();
        let services = self.services.into_iter();
        services
            .map(|(name, it)| (name.into(), shared(it)))
            .collect()
    }

    fn new(consul: Identity, updated: SystemTime, catalog: &Catalog) -> Self {
        let bare = |instance: &Arc<Instance>| {
            let mut instance = Instance::clone(instance);
            for check in &mut instance.checks {
                // Large, and out of date by the time it is read.
                check.output.clear();
            }
            instance
        };
        let services = catalog.services.iter();
        let services = services.map(|(name, it)| (name.to_string(), it.iter().map(bare).collect()));
        Self {
            consul,
            updated,
            services: services.collect(),
        }
    }
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    addresses: BTreeSet<String>,
    datacenter: Option<String>,
    namespace: Option<String>,
    partition: Option<String>,
}

impl Identity {
    fn of(config: &Config) -> Self {
        Self {
            addresses: config.addresses.iter().map(ToString::to_string).collect(),
            datacenter: config.datacenter.clone(),
            namespace: config.namespace.clone(),
            partition: config.partition.clone(),
        }
    }

    /// Whether both are the same Consul. One address in common is enough: servers come and go.
    fn is_as(&self, other: &Self) -> bool {
        let scope = |it: &Self| {
            let Self {
                datacenter,
                namespace,
                partition,
                ..
            } = it.clone();
            (datacenter, namespace, partition)
        };
        scope(self) == scope(other) && !self.addresses.is_disjoint(&other.addresses)
    }
}

/// What was kept of the Consul of `config`.
///
/// # Errors
/// When the file is damaged or cannot be read; it was set aside.
pub(super) async fn load(config: &Config) -> Result<Option<Saved>, String> {
    let Some(path) = config.saved.clone() else {
        return Ok(None);
    };
    let loaded = spawn_blocking(move || state_file::load::<Saved>(&path, VERSION)).await;
    let saved = match loaded {
        Ok(Ok(saved)) => saved,
        Ok(Err(error)) => {
            return Err(format!(
                "{error}; nothing is served from it, remove what was set aside"
            ));
        }
        Err(error) => return Err(format!("reading the kept catalog failed: {error}")),
    };
    let own = Identity::of(config);
    Ok(saved.filter(|saved| {
        let is_ours = saved.consul.is_as(&own);
        if !is_ours {
            info!("the kept catalog is another Consul's and is not used");
        }
        is_ours
    }))
}

/// Keeps the catalog of `states` up to date on disk, at most every few seconds, and once more at the end.
pub(super) async fn run(
    config: Config,
    mut states: watch::Receiver<SourceState>,
    stop: CancellationToken,
) {
    let Some(path) = config.saved.clone() else {
        return;
    };
    let consul = Identity::of(&config);
    let mut kept: Option<(Arc<Catalog>, SystemTime)> = None;
    let mut failed = false;
    loop {
        let ends = tokio::select! {
            biased; // What is known at the end is written, too.
            () = stop.cancelled() => true,
            changed = states.changed() => changed.is_err(),
            () = tokio::time::sleep(RENEW) => false,
        };
        let now = {
            let state = states.borrow_and_update();
            state.catalog.clone().zip(state.updated)
        };
        let is_kept = |(catalog, updated): &(Arc<Catalog>, SystemTime)| {
            let same = |(kept, at): &(Arc<Catalog>, SystemTime)| {
                Arc::ptr_eq(kept, catalog) && at == updated
            };
            kept.as_ref().is_some_and(same)
        };
        let began = Instant::now();
        if let Some((catalog, updated)) = now.filter(|now| !is_kept(now)) {
            let value = (consul.clone(), catalog.clone(), path.clone());
            let written = spawn_blocking(move || save(value.0, updated, &value.1, &value.2)).await;
            match written.map_err(|error| error.to_string()).flatten() {
                Ok(()) => {
                    failed = false;
                    kept = Some((catalog, updated));
                }
                Err(error) if !failed => {
                    failed = true;
                    warn!(
                        error,
                        "Consul's catalog is not kept; an agent that starts while Consul is away knows nothing"
                    );
                }
                Err(_) => {}
            }
        }
        if ends {
            return;
        }
        // A large catalog is written less often.
        let pause = PAUSE.max(began.elapsed() * 50);
        tokio::select! {
            () = sleep_until(began + pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

fn save(
    consul: Identity,
    updated: SystemTime,
    catalog: &Catalog,
    path: &Path,
) -> Result<(), String> {
    let saved = Saved::new(consul, updated, catalog);
    state_file::save(path, VERSION, &saved).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    })
}

/// The file, in the state directory.
pub fn file_in(state_dir: &Path) -> PathBuf {
    state_dir.join("consul-catalog.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(addresses: &[&str], datacenter: &str) -> Identity {
        Identity {
            addresses: addresses.iter().map(|&it| it.to_owned()).collect(),
            datacenter: Some(datacenter.to_owned()),
            namespace: None,
            partition: None,
        }
    }

    #[test]
    fn a_consul_is_known_by_one_of_its_addresses_in_any_order() {
        let before = identity(&["http://a:8500", "http://b:8500"], "dc1");
        assert!(before.is_as(&identity(&["http://c:8500", "http://b:8500"], "dc1")));
        assert!(!before.is_as(&identity(&["http://c:8500"], "dc1")));
        assert!(!before.is_as(&identity(&["http://a:8500", "http://b:8500"], "dc2")));
    }
}
