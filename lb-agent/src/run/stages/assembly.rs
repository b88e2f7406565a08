//! What is gathered while stages are spawned: their tasks, and what each shows of itself to others.

use anyhow::Result;
use lb_agent::{
    admin::{self, Component},
    catalog::Problem,
};
use prometheus_client::{collector::Collector, registry::Registry};
use tokio::sync::watch;

use crate::run::Stages;

/// A number of a snapshot that is reached in time, and what reaches it.
pub(super) type Reached = (&'static str, watch::Receiver<Option<u64>>);

pub(super) struct Assembly {
    pub(super) stages: Stages,
    /// The metrics.
    pub(super) registry: Registry,
    /// The lines of `status`.
    pub(super) lines: Vec<admin::ComponentLine>,
    /// What stages found wrong.
    pub(super) problems: Vec<watch::Receiver<Vec<Problem>>>,
    /// What must have been reached before the agent is ready.
    pub(super) conditions: Vec<Reached>,
    /// Whom an order waits for.
    pub(super) followers: Vec<Reached>,
}

impl Assembly {
    pub(super) fn new() -> Self {
        Self {
            stages: Stages::new(),
            registry: Registry::with_prefix("lb"),
            lines: Vec::new(),
            problems: Vec::new(),
            conditions: Vec::new(),
            followers: Vec::new(),
        }
    }

    /// Spawns a stage.
    pub(super) fn spawn<E: Into<anyhow::Error>>(
        &mut self,
        name: &'static str,
        run: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let run = Box::pin(run);
        self.stages
            .spawn(async move { (name, run.await.map_err(Into::into)) });
    }

    /// Spawns a stage that cannot fail.
    pub(super) fn spawn_sure(
        &mut self,
        name: &'static str,
        run: impl Future<Output = ()> + Send + 'static,
    ) {
        let run = Box::pin(run);
        self.stages.spawn(async move {
            run.await;
            (name, Ok(()))
        });
    }

    pub(super) fn figures(&mut self, figures: impl Collector) {
        self.registry.register_collector(Box::new(figures));
    }

    pub(super) fn line(&mut self, line: impl Fn() -> Component + Send + Sync + 'static) {
        self.lines.push(Box::new(line));
    }

    /// Where a stage tells what it finds wrong.
    pub(super) fn problems(&mut self) -> watch::Sender<Vec<Problem>> {
        let (tell, told) = watch::channel(Vec::new());
        self.problems.push(told);
        tell
    }
}
