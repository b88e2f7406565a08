//! Makes the channels and spawns every stage, in the order of the data's way.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result};
use lb_agent::{
    admin::{self, Readiness},
    announce, assemble,
    catalog::SourceState,
    clients::{self, Clients},
    config::{Config, LogFormat, Setting},
    discover::{self, consul, file},
    dns, docker, front, health,
    last_lines::LastLines,
    packet, reconcile, registrar, removal,
    routes::RouteConfig,
    sockets::Sockets,
    vip,
};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    privileges::Privileges,
    systemd::{self, Systemd},
};

use super::{
    IN_MAPS, ROUTED, Stages,
    configs::{addresses, admin_config, dns_config, front_control, front_kind, front_settings},
    hosts,
    listeners::Listeners,
    show::{
        Changes, announce_figures, announce_line, certificates_figures, certificates_line,
        clients_figures, clients_line, dns_line, docker_figures, docker_line, follow,
        front_figures, front_line, packet_line, reconcile_figures, registrar_line, removal_figures,
        routes_figures,
    },
};

/// What the stages are told from outside.
pub(super) struct Signals<'s> {
    pub(super) end: &'s front::End,
    /// To read tokens and certificates again.
    pub(super) reload: watch::Receiver<()>,
    /// Who is told how it goes.
    pub(super) systemd: Systemd,
    /// The configuration as it is shown.
    pub(super) settings: Vec<Setting>,
    /// What was logged of late.
    pub(super) log: LastLines,
    /// Where VIPs are announced.
    pub(super) devices: announce::Devices,
    /// The packet path, if there is one.
    pub(super) packet: Option<packet::Start>,
}

pub(super) fn spawn(
    config: Config,
    consul: Option<consul::Config>,
    listeners: Listeners,
    plane: reconcile::Plane,
    privileges: Privileges,
    readiness: &Readiness,
    Signals {
        end,
        reload,
        systemd,
        settings,
        log,
        devices,
        packet,
    }: Signals<'_>,
) -> Result<Stages> {
    let (stop, pools) = (&end.stop, plane.pools);
    let mut stages = Stages::new();
    let mut registry = Registry::with_prefix("lb");
    let mut stage = |name: &'static str, task: BoxedStage| {
        stages.spawn(async move { (name, task.await) });
    };

    // Channels, in the order of the data's way.
    let (names_in, names) = watch::channel(None);
    let (vips_in, vips) = watch::channel(None);
    let (verdicts_in, verdicts) = watch::channel(Arc::default());
    let (snapshots_in, snapshots) = watch::channel(None);
    let (suspects_in, suspects) = mpsc::channel(1024);
    let (stats_in, stats) = mpsc::channel(16);
    let (traces_in, traces) = mpsc::channel(16);
    let (kept_in, kept) = mpsc::channel(16);
    let (modes_in, modes) = mpsc::channel(16);
    // Without an engine nobody tells which containers end; the last value of a channel without a sender stays.
    let (departed_in, departed) = watch::channel(Arc::default());
    let (orders_in, orders) = mpsc::channel(16);
    let (map_problems_in, map_problems) = watch::channel(Vec::new());
    let (acme_problems_in, acme_problems) = watch::channel(Vec::new());
    let (tls_problems_in, tls_problems) = watch::channel(Vec::new());
    let (page_problems_in, page_problems) = watch::channel(Vec::new());
    let (front_problems_in, front_problems) = watch::channel(Vec::new());
    let (name_problems_in, name_problems) = watch::channel(Vec::new());
    let (front_stats_in, front_stats) = watch::channel(None);
    let (removal_problems_in, removal_problems) = watch::channel(Vec::new());
    let (announce_problems_in, announce_problems) = watch::channel(Vec::new());
    // Whoever acts on it asks `Announcing::holds` first.
    let (announcing_in, announcing) = watch::channel(announce::Announcing::default());
    let (installed_in, installed) = watch::channel(None);
    let (routed_in, routed) = watch::channel(None);
    let events = admin::Events::default();
    let mut conditions = vec![(IN_MAPS, installed.clone())];
    let mut followers = vec![("the maps", installed)];

    let mut components: Vec<admin::ComponentLine> = Vec::new();
    registry.register_collector(Box::new(privileges.figures()));
    components.push(Box::new(move || privileges.line()));

    // Sources.
    let mut sources = BTreeMap::new();
    if let Some(path) = config.sources.file.clone() {
        let (state_in, state) = watch::channel(SourceState::default());
        sources.insert("file".to_owned(), state);
        let run = file::run(file::FileConfig { path }, state_in, stop.clone());
        stage(
            "file source",
            Box::pin(async { run.await.map_err(Into::into) }),
        );
    }
    let consul_problems = consul.as_ref().map(|consul| consul.problems.subscribe());
    if let Some(consul) = consul.clone() {
        let (state_in, state) = watch::channel(SourceState::default());
        sources.insert("consul".to_owned(), state);
        // Those of whoever else asks Consul, too.
        consul.metrics.register(&mut registry);
        let consul = consul::Config {
            saved: Some(consul::file_in(&config.state_dir)),
            host: config.registrar.as_ref().and_then(|it| it.host.clone()),
            ..consul
        };
        let run = consul::run(consul, state_in, stop.clone());
        stage(
            "consul source",
            Box::pin(async { run.await.map_err(Into::into) }),
        );
    }
    let mut registrar_problems = None;
    let mut registered = None;
    let mut client_problems = None;
    // Until the engine has told, an earlier agent's programs stay on the devices of containers; without an engine there are none.
    let (labelled_in, labelled) = watch::channel(match &config.sources.docker {
        Some(_) => packet::Labelled::default(),
        None => packet::Labelled::without_engine(),
    });
    // Without an engine everybody stands on the host.
    let (_, mut clients) = watch::channel(Some(Arc::new(Clients::default())));
    if let Some(docker) = config.sources.docker.clone() {
        let (engine_in, engine) = watch::channel(docker::Engine::default());
        registry.register_collector(Box::new(docker_figures(engine.clone())));
        let shown = engine.clone();
        components.push(Box::new(move || docker_line(&shown.borrow())));
        if let (Some(registrar), Some(consul)) = (config.registrar.clone(), consul.clone()) {
            let outputs = registrar::Outputs::default();
            registrar_problems = Some(outputs.problems.subscribe());
            registered = Some(outputs.status.subscribe());
            components.push(registrar_line(outputs.status.subscribe()));
            let metrics = registrar::Metrics::default();
            metrics.register(&mut registry);
            let engine = engine.clone();
            let run = registrar::run(
                registrar,
                consul,
                engine,
                outputs,
                metrics,
                stop.clone(),
                end.keep_front.clone(),
            );
            stage(
                "registrar",
                Box::pin(async { run.await.map_err(Into::into) }),
            );
        }
        let outputs = clients::Outputs::default();
        clients = outputs.clients.subscribe();
        client_problems = Some(outputs.problems.subscribe());
        let shown = (clients.clone(), outputs.problems.subscribe());
        components.push(Box::new(move || {
            clients_line(shown.0.borrow().as_deref(), &shown.1.borrow())
        }));
        registry.register_collector(Box::new(clients_figures(clients.clone())));
        if config.packet.is_some() {
            let run = packet::follow_containers(
                docker.proc.clone(),
                engine.clone(),
                labelled_in,
                stop.clone(),
            );
            stage(
                "containers' devices",
                Box::pin(async {
                    run.await;
                    Ok(())
                }),
            );
        }
        let run = clients::run(
            clients::Config { proc: docker.proc },
            engine.clone(),
            outputs,
            stop.clone(),
        );
        stage("clients", Box::pin(async { run.await.map_err(Into::into) }));
        if let Some(source) = docker.source {
            let (state_in, state) = watch::channel(SourceState::default());
            sources.insert("docker".to_owned(), state);
            let run = discover::docker::run(source, engine, state_in, stop.clone());
            stage(
                "docker source",
                Box::pin(async {
                    run.await;
                    Ok(())
                }),
            );
        }
        let follow = docker::Config::new(docker.address);
        let run = docker::run(follow, engine_in, departed_in, stop.clone());
        stage("docker", Box::pin(async { run.await.map_err(Into::into) }));
    }

    let mut packet_problems = None;
    let mut packet_path = None;
    if let (Some(start), Some(configured)) = (packet, config.packet.clone()) {
        let (seen_in, seen) = watch::channel(Arc::default());
        let (requests_in, requests) = mpsc::channel(16);
        let (problems_in, problems) = watch::channel(Vec::new());
        packet_problems = Some(problems);
        let shown = seen.clone();
        components.push(Box::new(move || packet_line(&shown.borrow())));
        packet_path = Some(packet::Handle {
            seen,
            requests: requests_in,
        });
        let channels = packet::Channels {
            snapshots: snapshots.clone(),
            announcing: announcing.clone(),
            labelled,
            seen: seen_in,
            problems: problems_in,
            requests,
        };
        let config = packet::Config {
            packet: configured,
            pools,
        };
        // On a thread of its own: reading the flows takes a while.
        let run = packet::run(config, start, channels, stop.clone());
        let run = move || tokio::runtime::Handle::current().block_on(run);
        let run = tokio::task::spawn_blocking(run);
        stage(
            "packet path",
            Box::pin(async { run.await?.map_err(Into::into) }),
        );
    }

    // What the agent adds.
    let vip_config = vip::Config {
        pool: pools.v4,
        datacenter: config.vip.datacenter.clone(),
        quarantine: config.vip.quarantine,
        records: config.state_dir.join("vips.json"),
        consul: consul.clone(),
    };
    let run = vip::run(vip_config, names, vips_in, orders, stop.clone());
    stage("vip", Box::pin(async { run.await.map_err(Into::into) }));
    let health_metrics = Arc::new(health::Metrics::default());
    health_metrics.register(&mut registry);
    let run = health::run(
        config.health,
        snapshots.clone(),
        suspects,
        verdicts_in,
        health_metrics,
        stop.clone(),
    );
    stage(
        "health",
        Box::pin(async {
            run.await;
            Ok(())
        }),
    );
    let mut problems = vec![
        map_problems,
        front_problems,
        tls_problems,
        acme_problems,
        page_problems,
        name_problems,
        removal_problems,
        announce_problems,
    ];
    problems.extend(consul_problems);
    problems.extend(registrar_problems);
    problems.extend(client_problems);
    problems.extend(packet_problems);
    let inputs = assemble::Inputs {
        sources,
        vips,
        verdicts,
        orders: modes,
        departed,
        problems,
    };
    let outputs = assemble::Outputs {
        names: names_in,
        snapshots: snapshots_in,
        events: events.clone(),
    };
    let run = assemble::run(config.state_dir.clone(), inputs, outputs, stop.clone());
    stage(
        "assemble",
        Box::pin(async {
            run.await;
            Ok(())
        }),
    );

    if config.announce.is_on() {
        let metrics = Arc::new(announce::Metrics::default());
        let key = config.announce.key.clone();
        let figures = announce_figures(announcing.clone(), key, metrics.clone());
        registry.register_collector(Box::new(figures));
        let (status_in, status) = watch::channel(announce::Status::default());
        components.push(announce_line(announcing, status));
        let place = announce::Place {
            devices,
            pools,
            consul,
            state_dir: config.state_dir.clone(),
            keep: end.keep_front.clone(),
        };
        let channels = announce::Channels {
            snapshots: snapshots.clone(),
            announcing: announcing_in,
            status: status_in,
            problems: announce_problems_in,
            events: events.clone(),
        };
        let run = announce::run(
            config.announce.clone(),
            place,
            channels,
            metrics,
            stop.clone(),
        );
        stage(
            "announce",
            Box::pin(async { run.await.map_err(Into::into) }),
        );
    }

    let counted = Arc::new(Changes::default());
    registry.register_collector(Box::new(counted.clone().figures()));
    let run = follow(counted, snapshots.clone(), reload.clone(), stop.clone());
    stage(
        "changes",
        Box::pin(async {
            run.await;
            Ok(())
        }),
    );

    // What is made of the snapshot.
    let metrics = Arc::new(reconcile::Metrics::default());
    registry.register_collector(Box::new(reconcile_figures(metrics.clone())));
    let (beat, reloads) = (metrics.beat.subscribe(), reload.clone());
    let run = systemd::run(systemd, readiness.clone(), beat, reloads, stop.clone());
    stage(
        "systemd",
        Box::pin(async {
            run.await;
            Ok(())
        }),
    );
    let channels = reconcile::Channels {
        snapshots: snapshots.clone(),
        clients: clients.clone(),
        suspects: suspects_in,
        stats,
        traces,
        kept,
        problems: map_problems_in,
        installed: installed_in,
    };
    let sockets = Sockets::start(plane.programs.records()?)
        .context("cannot start the thread that lists sockets")?;
    let run = reconcile::run(plane, channels, metrics, stop.clone());
    stage(
        "reconcile",
        Box::pin(async { run.await.map_err(Into::into) }),
    );

    let (removal_in, removal) = watch::channel(removal::Status::default());
    let (followed_in, followed) = watch::channel(None);
    followers.push(("the cutting of flows", followed));
    let metrics = Arc::new(removal::Metrics::default());
    registry.register_collector(Box::new(removal_figures(metrics.clone())));
    let channels = removal::Channels {
        snapshots: snapshots.clone(),
        status: removal_in,
        problems: removal_problems_in,
        followed: followed_in,
    };
    let run = removal::run(sockets.clone(), channels, metrics, stop.clone());
    stage("removal", Box::pin(async { run.await.map_err(Into::into) }));

    let routes = RouteConfig {
        domains: config.front.domains.clone(),
        expose: config.front.expose,
        auth: config.front.auth.keys().cloned().collect(),
        // Those of the front are added where they are known.
        listeners: addresses(&listeners.dns_tcp),
        page: addresses(&listeners.admin),
        page_names: config.admin.names.clone(),
        pools,
        ..RouteConfig::default()
    };
    let front_seen = front_stats.clone();
    if config.front.enabled {
        let control = front_control(&config);
        let mut supervisor = front::Supervisor::new(control, config.front.listen.clone());
        supervisor.grace = config.front.drain;
        supervisor.retirement = config.front.retirement;
        supervisor.kind = front_kind(&config);
        supervisor.routes = routes.clone();
        supervisor.settings = front_settings(&config)?;
        let log = config.front.access_log.format;
        let file = log.and(config.front.access_log_file.clone());
        supervisor.log_file = file.map(|path| front::LogFile {
            path,
            reopen: reload.clone(),
        });
        if let Some(tls) = config.front.tls.clone() {
            let outputs = front::CertificateOutputs {
                tls: watch::Sender::default(),
                in_use: watch::Sender::default(),
                problems: tls_problems_in,
            };
            supervisor.listen_tls = tls.listen;
            supervisor.certificates = Some(outputs.tls.subscribe());
            let in_use = outputs.in_use.subscribe();
            registry.register_collector(Box::new(certificates_figures(in_use.clone())));
            components.push(Box::new(move || certificates_line(&in_use.borrow())));
            let channels = front::AcmeChannels {
                problems: acme_problems_in,
                ..front::AcmeChannels::default()
            };
            let issued = channels.issued.subscribe();
            supervisor.shown = channels.shown.clone();
            if let Some(acme) = tls.acme {
                let run = front::acme(acme, channels, stop.clone());
                stage(
                    "acme",
                    Box::pin(async {
                        run.await;
                        Ok(())
                    }),
                );
            }
            let run = front::certificates(tls.files, outputs, issued, reload, stop.clone());
            stage(
                "certificates",
                Box::pin(async {
                    run.await;
                    Ok(())
                }),
            );
        }
        if !config.front.auth.is_empty() {
            let (users_in, users) = watch::channel(None);
            supervisor.users = users;
            let run = front::users::run(config.front.auth.clone(), users_in, stop.clone());
            stage("users", Box::pin(async { run.await.map_err(Into::into) }));
        }
        if !config.front.pages.is_empty() {
            let (pages_in, pages) = watch::channel(None);
            supervisor.pages = pages;
            let files = config.front.pages.clone();
            let run = front::pages::run(files, pages_in, page_problems_in, stop.clone());
            stage("pages", Box::pin(async { run.await.map_err(Into::into) }));
        }
        match config.log_format {
            LogFormat::Auto | LogFormat::Text => {}
            LogFormat::Json => supervisor.arguments.push("--log-json".into()),
            LogFormat::Journald => supervisor.arguments.push("--log-journald".into()),
        }
        let metrics = Arc::new(front::Metrics::default());
        registry.register_collector(Box::new(routes_figures(metrics.clone())));
        let outputs = front::Outputs {
            stats: front_stats_in,
            problems: front_problems_in,
            routed: routed_in,
            metrics,
        };
        let run = front::supervise(
            supervisor,
            lb_front::Listeners {
                plain: listeners.front,
                tls: listeners.front_tls,
            },
            snapshots.clone(),
            outputs,
            end.clone(),
        );
        conditions.push((ROUTED, routed.clone()));
        followers.push(("the front", routed));
        stage("front", Box::pin(async { run.await.map_err(Into::into) }));
        registry.register_collector(Box::new(front_figures(front_stats.clone())));
        components.push(Box::new(move || front_line(front_stats.borrow().as_ref())));
    }
    if config.dns.enabled {
        let metrics = Arc::new(dns::Metrics::default());
        metrics.register(&mut registry);
        components.push(dns_line(&listeners.dns_udp));
        let dns_config = dns_config(&config, pools)?;
        let run = dns::run(
            dns_config,
            listeners.dns_udp,
            listeners.dns_tcp,
            snapshots.clone(),
            metrics,
            name_problems_in,
            stop.clone(),
        );
        stage("dns", Box::pin(async { run.await.map_err(Into::into) }));
    }
    let run = report_readiness(conditions, readiness.clone(), stop.clone());
    stage("readiness", Box::pin(run));
    let hosts = snapshots.clone();
    let inputs = admin::Inputs {
        snapshots,
        stats: stats_in,
        traces: traces_in,
        kept: kept_in,
        sockets,
        removal,
        front: front_seen,
        orders: modes_in,
        followers,
        vips: orders_in,
        clients,
        registrar: registered,
        packet: packet_path,
        settings,
        pools,
        events,
        log,
        readiness: readiness.clone(),
        registry,
        hosts: hosts::remembered(hosts, routes),
        components,
    };
    let run = admin::run(
        admin_config(&config),
        listeners.admin_socket,
        listeners.admin,
        inputs,
        stop.clone(),
    );
    stage("admin", Box::pin(async { run.await.map_err(Into::into) }));
    Ok(stages)
}

type BoxedStage = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Sets the conditions of readiness as they come true.
async fn report_readiness(
    mut conditions: Vec<(&'static str, watch::Receiver<Option<u64>>)>,
    readiness: Readiness,
    stop: CancellationToken,
) -> Result<()> {
    for (condition, reached) in &mut conditions {
        tokio::select! {
            // An error means that the stage ended, which is told elsewhere.
            reached = reached.wait_for(Option::is_some) => if reached.is_ok() {
                readiness.set(condition);
            },
            () = stop.cancelled() => return Ok(()),
        }
    }
    stop.cancelled().await;
    Ok(())
}
