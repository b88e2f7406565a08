//! What operators ordered of instances. The orders outlive the agent in a file of their own.

use std::{
    collections::BTreeMap,
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::{
    catalog::{Catalog, Instance, InstanceKey, Problem},
    order::{Mode, Order, Orders},
    snapshot::ServiceName,
    state_file,
};

/// One order as the file has it. Version 1 knew nothing but drains, and had neither of the last two fields.
#[derive(Serialize, Deserialize)]
struct Kept {
    service: String,
    instance: InstanceKey,
    #[serde(default = "drain")]
    mode: Mode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_unix_ms: Option<u64>,
}

fn drain() -> Mode {
    Mode::Drain
}

/// The orders and the file that keeps them.
pub(super) struct Standing {
    pub(super) orders: Arc<Orders>,
    pub(super) problems: Vec<Problem>,
    path: PathBuf,
}

impl Standing {
    /// What the last agent left.
    pub(super) async fn load(state_dir: PathBuf) -> Self {
        let path = state_dir.join(FILE);
        let file = path.clone();
        let loaded = blocking(move || state_file::load_any(&file, FIRST..=VERSION)).await;
        let (orders, problems) = match loaded {
            Ok(kept) => (read(kept.unwrap_or_default()), Vec::new()),
            Err(why) => {
                let message = format!(
                    "what operators had taken out is not known any more: {why}; take it out again where that is needed, or put the file back and start the agent again"
                );
                (Orders::new(), vec![Problem::new("drains", message)])
            }
        };
        Self {
            orders: Arc::new(orders),
            problems,
            path,
        }
    }

    /// Keeps `orders` from now on.
    ///
    /// # Errors
    ///
    /// Why they could not be written, as a sentence; then the old ones stay in force.
    pub(super) async fn store(&mut self, orders: Orders) -> Result<(), String> {
        if orders == *self.orders {
            return Ok(());
        }
        let path = self.path.clone();
        let kept = written(&orders);
        let saved = blocking(move || state_file::save(&path, VERSION, &kept)).await;
        saved.map_err(|why| {
            format!("{why}; make room or correct the permissions of the state directory")
        })?;
        self.orders = Arc::new(orders);
        Ok(())
    }
}

fn read(kept: Vec<Kept>) -> Orders {
    let mut orders = Orders::new();
    for kept in kept.into_iter().filter(|it| it.mode != Mode::Ready) {
        let until = kept.until_unix_ms.map(Duration::from_millis);
        let order = Order {
            mode: kept.mode,
            until: until.and_then(|since| UNIX_EPOCH.checked_add(since)),
        };
        let instances = orders.entry(kept.service).or_default();
        instances.insert(kept.instance, order);
    }
    orders
}

fn written(orders: &Orders) -> Vec<Kept> {
    let all = orders.iter().flat_map(|(service, instances)| {
        instances
            .iter()
            .map(move |(instance, order)| (service, instance, order))
    });
    let kept = all.map(|(service, instance, order)| Kept {
        service: service.clone(),
        instance: instance.clone(),
        mode: order.mode,
        until_unix_ms: order.until.map(unix_ms),
    });
    kept.collect()
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The orders after one request, and the instances that it concerns.
///
/// # Errors
///
/// When nothing in `catalog` matches, or more than one thing, with the names there are.
pub(super) fn after_request(
    orders: &Orders,
    catalog: &Catalog,
    wanted: (&str, Option<&str>),
    order: Order,
) -> Result<(Orders, Vec<InstanceKey>), String> {
    let (service, instances) = find(catalog, wanted.0)?;
    let matched: Vec<InstanceKey> = match wanted.1 {
        None => instances,
        Some(backend) => vec![pick(&service, &instances, backend)?],
    };
    let mut orders = orders.clone();
    let mut of_service = orders.remove(&service).unwrap_or_default();
    for instance in &matched {
        match order.mode {
            Mode::Ready => drop(of_service.remove(instance)),
            Mode::Drain | Mode::Maintenance => drop(of_service.insert(instance.clone(), order)),
        }
    }
    if !of_service.is_empty() {
        orders.insert(service, of_service);
    }
    Ok((orders, matched))
}

/// The orders without those for instances that left `catalog`, which must be complete: whatever comes back under an
/// old id is another process. A container that was renamed since `before` is the same one.
pub(super) fn after_leaving(orders: &Orders, before: &Catalog, catalog: &Catalog) -> Orders {
    let mut orders = orders.clone();
    orders.retain(|service, ordered| {
        let of = |catalog: &Catalog| -> Vec<Arc<Instance>> {
            let instances = catalog.services.get(&**service);
            instances.map(|all| all.to_vec()).unwrap_or_default()
        };
        let (was, is) = (of(before), of(catalog));
        let has = |all: &[Arc<Instance>], key: &InstanceKey| all.iter().any(|it| it.key == *key);
        let renamed = |key: &InstanceKey| {
            let left = was.iter().find(|it| it.key == *key)?;
            let same = |it: &&Arc<Instance>| {
                it.container.is_some()
                    && (&it.container, it.address) == (&left.container, left.address)
                    && !has(&was, &it.key)
            };
            is.iter().find(same).map(|it| it.key.clone())
        };
        let (stay, leave): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(ordered)
            .into_iter()
            .partition(|(key, _)| has(&is, key));
        *ordered = stay;
        let moved = leave
            .into_iter()
            .filter_map(|(key, order)| Some((renamed(&key)?, order)));
        ordered.extend(moved);
        !ordered.is_empty()
    });
    orders
}

/// The service that people call `name`, or the instances of its part: `www`, `www.hello`, `hello_www`.
fn find(catalog: &Catalog, name: &str) -> Result<(String, Vec<InstanceKey>), String> {
    for ServiceName { service, tag } in ServiceName::meant_by(name) {
        let Some(instances) = catalog.services.get(&*service) else {
            continue;
        };
        let is_meant =
            |it: &&Arc<Instance>| tag.as_ref().is_none_or(|tag| it.tags.contains(&**tag));
        let meant = instances.iter().filter(is_meant);
        let keys: Vec<_> = meant.map(|it| it.key.clone()).collect();
        if tag.is_none() || !keys.is_empty() {
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

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

/// Called as in version 1, whose orders were drains.
const FILE: &str = "drains.json";
const VERSION: u32 = 2;
/// The oldest that can be read.
const FIRST: u32 = 1;
/// Names in one message.
const LISTED: usize = 20;
