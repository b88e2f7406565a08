//! The host names that the front serves, for the report.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use lb_agent::{admin::HostNames, routes::RouteConfig, snapshot::Snapshot};
use tokio::sync::watch;

use super::show::host_names;

/// By the label of the service.
type Names = BTreeMap<String, Vec<String>>;

/// Those of the newest snapshot. They are worked out when it is another one than last time: a report is asked for
/// more often than services change.
pub(super) fn remembered(
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    config: RouteConfig,
) -> HostNames {
    let known: Mutex<Option<(Option<u64>, Arc<Names>)>> = Mutex::new(None);
    Box::new(move || {
        let snapshot = snapshots.borrow().clone();
        let number = snapshot.as_ref().map(|it| it.number);
        let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = lock().clone();
        if let Some((of, names)) = remembered
            && of == number
        {
            return BTreeMap::clone(&names);
        }
        // Without the lock: with many services this takes a while, and whoever asks meanwhile would hold up a thread. At
        // worst two work out the same.
        let names = Arc::new(host_names(snapshot.as_deref(), &config));
        let mut known = lock();
        // Whoever was faster may know a newer one.
        if known.as_ref().is_none_or(|(of, _)| *of <= number) {
            *known = Some((number, Arc::clone(&names)));
        }
        drop(known);
        Arc::unwrap_or_clone(names)
    })
}

#[cfg(test)]
mod tests {
    use lb_agent::snapshot::{Service, ServiceName};

    use super::*;

    #[test]
    fn names_follow_the_snapshot() {
        let snapshot = |number, name: &str| {
            let service = Service {
                vip: None,
                options: Default::default(),
                aliases: Default::default(),
                backends: Default::default(),
            };
            Some(Arc::new(Snapshot {
                number,
                services: [(ServiceName::whole(name), service.into())].into(),
                ..Snapshot::default()
            }))
        };
        let (out, snapshots) = watch::channel(None);
        let names = remembered(snapshots, RouteConfig::default());
        let labels = || names().into_keys().collect::<Vec<_>>();
        assert_eq!(labels(), [""; 0]);
        out.send_replace(snapshot(1, "web"));
        assert_eq!((labels(), labels()), (vec!["web".to_owned()], labels()));
        out.send_replace(snapshot(2, "db"));
        assert_eq!(labels(), ["db"]);
    }
}
