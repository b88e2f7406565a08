//! What follows the Docker Engine: its containers as clients, as instances of services, as registrations in Consul, and
//! as devices of the packet path.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_agent::{
    catalog::SourceState,
    clients::{self, Clients},
    config::Config,
    discover::{self, consul},
    docker, front, packet, registrar,
};
use tokio::sync::watch;

use super::assembly::Assembly;
use crate::run::show::{
    clients_figures, clients_line, docker_figures, docker_line, registrar_line,
};

/// What others learn by it.
pub(super) struct Followed {
    /// Who the clients are.
    pub(super) clients: watch::Receiver<Option<Arc<Clients>>>,
    /// The containers that are known to be ending or gone.
    pub(super) departed: watch::Receiver<Arc<BTreeSet<String>>>,
    /// The devices of containers.
    pub(super) labelled: watch::Receiver<packet::Labelled>,
    /// How registration is, where containers are registered.
    pub(super) registered: Option<watch::Receiver<registrar::Status>>,
}

impl Followed {
    /// Without an engine. The last value of a channel without a sender stays.
    fn nothing() -> Self {
        Self {
            // Everybody stands on the host.
            clients: watch::channel(Some(Arc::new(Clients::default()))).1,
            departed: watch::channel(Arc::default()).1,
            labelled: watch::channel(packet::Labelled::without_engine()).1,
            registered: None,
        }
    }
}

/// Spawns all of it, if there is an engine; its containers become one of the `sources` where they are to be.
pub(super) fn spawn(
    assembly: &mut Assembly,
    config: &Config,
    consul: Option<&consul::Config>,
    sources: &mut BTreeMap<String, watch::Receiver<SourceState>>,
    end: &front::End,
) -> Followed {
    let Some(docker) = config.sources.docker.clone() else {
        return Followed::nothing();
    };
    let stop = &end.stop;
    let (engine_in, engine) = watch::channel(docker::Engine::default());
    assembly.figures(docker_figures(engine.clone()));
    let shown = engine.clone();
    assembly.line(move || docker_line(&shown.borrow()));

    let mut registered = None;
    if let (Some(registrar), Some(consul)) = (config.registrar.clone(), consul) {
        let outputs = registrar::Outputs::default();
        assembly.problems.push(outputs.problems.subscribe());
        registered = Some(outputs.status.subscribe());
        assembly
            .lines
            .push(registrar_line(outputs.status.subscribe()));
        let metrics = registrar::Metrics::default();
        metrics.register(&mut assembly.registry);
        let run = registrar::run(
            registrar,
            consul.clone(),
            engine.clone(),
            outputs,
            metrics,
            stop.clone(),
            end.keep_front.clone(),
        );
        assembly.spawn("registrar", run);
    }

    let outputs = clients::Outputs::default();
    let clients = outputs.clients.subscribe();
    assembly.problems.push(outputs.problems.subscribe());
    let shown = (clients.clone(), outputs.problems.subscribe());
    assembly.line(move || clients_line(shown.0.borrow().as_deref(), &shown.1.borrow()));
    assembly.figures(clients_figures(clients.clone()));
    // Until the engine has told, an earlier agent's programs stay on the devices of containers.
    let (labelled_in, labelled) = watch::channel(packet::Labelled::default());
    if config.packet.is_some() {
        let (proc, engine) = (docker.proc.clone(), engine.clone());
        let run = packet::follow_containers(proc, engine, labelled_in, stop.clone());
        assembly.spawn_sure("containers' devices", run);
    }
    let places = clients::Config { proc: docker.proc };
    let run = clients::run(places, engine.clone(), outputs, stop.clone());
    assembly.spawn("clients", run);

    if let Some(source) = docker.source {
        let (state_in, state) = watch::channel(SourceState::default());
        sources.insert("docker".to_owned(), state);
        let run = discover::docker::run(source, engine, state_in, stop.clone());
        assembly.spawn_sure("docker source", run);
    }
    let (departed_in, departed) = watch::channel(Arc::default());
    let follow = docker::Config::new(docker.address);
    let run = docker::run(follow, engine_in, departed_in, stop.clone());
    assembly.spawn("docker", run);
    Followed {
        clients,
        departed,
        labelled,
        registered,
    }
}
