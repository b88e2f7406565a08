//! The source.

use std::{sync::Arc, time::Duration};

use lb_agent::{
    catalog::{Catalog, SourceState},
    discover::consul::{self, Config},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::SOON;
use crate::support::BOUND;

/// A running consul source.
pub(crate) struct Source {
    pub(crate) state: watch::Receiver<SourceState>,
    stop: CancellationToken,
    stage: JoinHandle<Result<(), consul::Error>>,
}

impl Source {
    pub(crate) fn start(config: Config) -> Self {
        let (out, state) = watch::channel(SourceState::default());
        let stop = CancellationToken::new();
        let stage = tokio::spawn(consul::run(config, out, stop.clone()));
        Self { state, stop, stage }
    }

    /// Waits until the state is as told, and gives it.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        bound: Duration,
        mut told: impl FnMut(&SourceState) -> bool,
    ) -> impl Future<Output = SourceState> {
        let caller = std::panic::Location::caller();
        async move {
            let found = timeout(bound, self.state.wait_for(|state| told(state))).await;
            let found = found.map(|state| state.unwrap().clone());
            found.unwrap_or_else(|_| panic!("{caller}: still {:#?}", *self.state.borrow()))
        }
    }

    #[track_caller]
    pub(crate) fn catalog(
        &mut self,
        bound: Duration,
        mut told: impl FnMut(&Catalog) -> bool,
    ) -> impl Future<Output = Arc<Catalog>> {
        let state = self.until(bound, move |state| {
            state.catalog.as_ref().is_some_and(|catalog| told(catalog))
        });
        async move { state.await.catalog.unwrap() }
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        timeout(SOON, self.stage).await.unwrap().unwrap().unwrap();
    }
}

/// The ids of the instances of `service`; empty also if there is no such service.
pub(crate) fn ids<'a>(catalog: &'a Catalog, service: &str) -> Vec<&'a str> {
    let instances = catalog
        .services
        .get(service)
        .into_iter()
        .flat_map(|it| it.iter());
    instances.map(|instance| &*instance.key.id).collect()
}

/// A source that knows the one instance of `a` of a fake Consul.
pub(crate) async fn knowing(config: Config) -> Source {
    let mut source = Source::start(config);
    source
        .catalog(BOUND, |catalog| ids(catalog, "a") == ["a1"])
        .await;
    source
}
