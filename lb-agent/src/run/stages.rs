//! Makes the channels and spawns every stage, in the order of the data's way.
//!
//! The only place that knows every stage, which is what its length is for. Those of the engine and of the front are spawned
//! beside it, since others need little of them.

mod assembly;
mod engine;
mod front;
mod readiness;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use lb_agent::{
    admin::{self, Readiness},
    announce, assemble,
    catalog::SourceState,
    config::{Config, Setting},
    discover::{consul, file},
    dns,
    front::End,
    health,
    last_lines::LastLines,
    network, packet, reconcile, removal,
    routes::RouteConfig,
    sockets::Sockets,
    vip,
};
use tokio::sync::{mpsc, watch};

use super::{
    IN_MAPS, Stages,
    configs::{addresses, admin_config, dns_config},
    hosts,
    listeners::Listeners,
    shares,
    show::{
        Changes, announce_figures, announce_line, dns_line, follow, packet_line, reconcile_figures,
        removal_figures,
    },
};
use crate::{
    privileges::Privileges,
    systemd::{self, Systemd},
};
use assembly::Assembly;

/// What the stages are told from outside.
pub(super) struct Signals<'s> {
    pub(super) end: &'s End,
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
    /// What a front is told, if there is one.
    pub(super) front: Option<lb_front::Settings>,
    /// Whom the resolver asks at first, if there is one.
    pub(super) upstreams: Option<Vec<SocketAddr>>,
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
        front,
        upstreams,
    }: Signals<'_>,
) -> Result<Stages> {
    let (stop, pools) = (&end.stop, plane.pools);
    let mut assembly = Assembly::new();

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
    let (orders_in, orders) = mpsc::channel(16);
    // Whoever acts on it asks `Announcing::holds` first.
    let (announcing_in, announcing) = watch::channel(announce::Announcing::default());
    let (installed_in, installed) = watch::channel(None);
    let events = admin::Events::default();
    assembly.conditions.push((IN_MAPS, installed.clone()));
    assembly.followers.push(("the maps", installed));
    assembly.figures(privileges.figures());
    assembly.line(move || privileges.line());

    // Sources.
    let mut sources = BTreeMap::new();
    if let Some(path) = config.sources.file.clone() {
        let (state_in, state) = watch::channel(SourceState::default());
        sources.insert("file".to_owned(), state);
        let run = file::run(file::FileConfig { path }, state_in, stop.clone());
        assembly.spawn("file source", run);
    }
    if let Some(consul) = consul.clone() {
        assembly.problems.push(consul.problems.subscribe());
        let (state_in, state) = watch::channel(SourceState::default());
        sources.insert("consul".to_owned(), state);
        // Those of whoever else asks Consul, too.
        consul.metrics.register(&mut assembly.registry);
        let consul = consul::Config {
            saved: Some(consul::file_in(&config.state_dir)),
            host: config.registrar.as_ref().and_then(|it| it.host.clone()),
            ..consul
        };
        assembly.spawn("consul source", consul::run(consul, state_in, stop.clone()));
    }
    let engine::Followed {
        clients,
        departed,
        labelled,
        registered,
    } = engine::spawn(&mut assembly, &config, consul.as_ref(), &mut sources, end);

    let mut packet_path = None;
    if let (Some(start), Some(configured)) = (packet, config.packet.clone()) {
        let (seen_in, seen) = watch::channel(Arc::default());
        let (requests_in, requests) = mpsc::channel(16);
        let shown = seen.clone();
        assembly.line(move || packet_line(&shown.borrow()));
        packet_path = Some(packet::Handle {
            seen,
            requests: requests_in,
        });
        let channels = packet::Channels {
            snapshots: snapshots.clone(),
            announcing: announcing.clone(),
            labelled,
            seen: seen_in,
            problems: assembly.problems(),
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
        assembly.spawn("packet path", async { anyhow::Ok(run.await??) });
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
    assembly.spawn("vip", run);
    let health_metrics = Arc::new(health::Metrics::default());
    health_metrics.register(&mut assembly.registry);
    let run = health::run(
        config.health,
        snapshots.clone(),
        suspects,
        verdicts_in,
        health_metrics,
        stop.clone(),
    );
    assembly.spawn_sure("health", run);

    let run = network::keep(shares(pools), assembly.problems(), stop.clone());
    assembly.spawn_sure("network", run);

    if config.announce.is_on() {
        let metrics = Arc::new(announce::Metrics::default());
        let key = config.announce.key.clone();
        assembly.figures(announce_figures(announcing.clone(), key, metrics.clone()));
        let (status_in, status) = watch::channel(announce::Status::default());
        assembly.lines.push(announce_line(announcing, status));
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
            problems: assembly.problems(),
            events: events.clone(),
        };
        let run = announce::run(
            config.announce.clone(),
            place,
            channels,
            metrics,
            stop.clone(),
        );
        assembly.spawn("announce", run);
    }

    let counted = Arc::new(Changes::default());
    assembly.figures(counted.clone().figures());
    let run = follow(counted, snapshots.clone(), reload.clone(), stop.clone());
    assembly.spawn_sure("changes", run);

    // What is made of the snapshot.
    let metrics = Arc::new(reconcile::Metrics::default());
    assembly.figures(reconcile_figures(metrics.clone()));
    let (beat, reloads) = (metrics.beat.subscribe(), reload.clone());
    let run = systemd::run(systemd, readiness.clone(), beat, reloads, stop.clone());
    assembly.spawn_sure("systemd", run);
    let channels = reconcile::Channels {
        snapshots: snapshots.clone(),
        clients: clients.clone(),
        suspects: suspects_in,
        stats,
        traces,
        kept,
        problems: assembly.problems(),
        installed: installed_in,
    };
    let sockets = Sockets::start(plane.programs.records()?)
        .context("cannot start the thread that lists sockets")?;
    let run = reconcile::run(plane, channels, metrics, stop.clone());
    assembly.spawn("reconcile", run);

    let (removal_in, removal) = watch::channel(removal::Status::default());
    let (followed_in, followed) = watch::channel(None);
    assembly.followers.push(("the cutting of flows", followed));
    let metrics = Arc::new(removal::Metrics::default());
    assembly.figures(removal_figures(metrics.clone()));
    let channels = removal::Channels {
        snapshots: snapshots.clone(),
        status: removal_in,
        problems: assembly.problems(),
        followed: followed_in,
    };
    let run = removal::run(sockets.clone(), channels, metrics, stop.clone());
    assembly.spawn("removal", run);

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
    let inputs = front::Inputs {
        config: &config,
        settings: front,
        routes: routes.clone(),
        listeners: lb_front::Listeners {
            plain: listeners.front,
            tls: listeners.front_tls,
        },
        snapshots: snapshots.clone(),
        reload,
        end,
    };
    let front_stats = front::spawn(&mut assembly, inputs);
    if let Some(first) = upstreams {
        let metrics = Arc::new(dns::Metrics::default());
        metrics.register(&mut assembly.registry);
        assembly.lines.push(dns_line(&listeners.dns_udp));
        let (upstreams_in, upstreams) = watch::channel(first);
        if config.dns.upstreams.is_none() {
            let run = dns::follow_system_upstreams(pools, upstreams_in, stop.clone());
            assembly.spawn_sure("upstreams", run);
        }
        let run = dns::run(
            dns_config(&config, pools, upstreams),
            listeners.dns_udp,
            listeners.dns_tcp,
            snapshots.clone(),
            metrics,
            assembly.problems(),
            stop.clone(),
        );
        assembly.spawn("dns", run);
    }

    // What all of them depend on comes last, when everybody has said where it will find problems.
    let inputs = assemble::Inputs {
        sources,
        vips,
        verdicts,
        orders: modes,
        departed,
        problems: std::mem::take(&mut assembly.problems),
    };
    let outputs = assemble::Outputs {
        names: names_in,
        snapshots: snapshots_in,
        events: events.clone(),
    };
    let run = assemble::run(config.state_dir.clone(), inputs, outputs, stop.clone());
    assembly.spawn_sure("assemble", run);

    let conditions = std::mem::take(&mut assembly.conditions);
    let run = readiness::report(conditions, readiness.clone(), stop.clone());
    assembly.spawn_sure("readiness", run);
    let hosts = snapshots.clone();
    let inputs = admin::Inputs {
        snapshots,
        stats: stats_in,
        traces: traces_in,
        kept: kept_in,
        sockets,
        removal,
        front: front_stats,
        orders: modes_in,
        followers: std::mem::take(&mut assembly.followers),
        vips: orders_in,
        clients,
        registrar: registered,
        packet: packet_path,
        settings,
        pools,
        events,
        log,
        readiness: readiness.clone(),
        registry: std::mem::take(&mut assembly.registry),
        hosts: hosts::remembered(hosts, routes),
        components: std::mem::take(&mut assembly.lines),
    };
    let run = admin::run(
        admin_config(&config),
        listeners.admin_socket,
        listeners.admin,
        inputs,
        stop.clone(),
    );
    assembly.spawn("admin", run);
    Ok(assembly.stages)
}
