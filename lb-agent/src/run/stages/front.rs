//! The front: what it is told of certificates, users and pages, and who keeps its process.

use std::sync::Arc;

use lb_agent::{
    config::{Config, LogFormat},
    front,
    routes::RouteConfig,
    snapshot::Snapshot,
};
use lb_front::FrontStats;
use tokio::sync::watch;

use super::assembly::Assembly;
use crate::run::{
    ROUTED,
    configs::{front_control, front_kind},
    show::{certificates_figures, certificates_line, front_figures, front_line, routes_figures},
};

/// What it is told from outside.
pub(super) struct Inputs<'i> {
    pub(super) config: &'i Config,
    /// What it is told once; `None` if it is switched off.
    pub(super) settings: Option<lb_front::Settings>,
    pub(super) routes: RouteConfig,
    pub(super) listeners: lb_front::Listeners,
    pub(super) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// To read certificates again, and to open the access log again.
    pub(super) reload: watch::Receiver<()>,
    pub(super) end: &'i front::End,
}

/// Spawns it, if it is switched on; its figures.
pub(super) fn spawn(
    assembly: &mut Assembly,
    Inputs {
        config,
        settings,
        routes,
        listeners,
        snapshots,
        reload,
        end,
    }: Inputs<'_>,
) -> watch::Receiver<Option<FrontStats>> {
    let (stats_in, stats) = watch::channel(None);
    let Some(settings) = settings else {
        return stats;
    };
    let mut supervisor = front::Supervisor::new(front_control(config), config.front.listen.clone());
    supervisor.grace = config.front.drain;
    supervisor.retirement = config.front.retirement;
    supervisor.kind = front_kind(config);
    supervisor.routes = routes;
    supervisor.settings = settings;
    let log = config.front.access_log.format;
    let file = log.and(config.front.access_log_file.clone());
    supervisor.log_file = file.map(|path| front::LogFile {
        path,
        reopen: reload.clone(),
    });
    match config.log_format {
        LogFormat::Auto | LogFormat::Text => {}
        LogFormat::Json => supervisor.arguments.push("--log-json".into()),
        LogFormat::Journald => supervisor.arguments.push("--log-journald".into()),
    }
    certificates(assembly, config, &mut supervisor, reload, end);
    if !config.front.auth.is_empty() {
        let (users_in, users) = watch::channel(None);
        supervisor.users = users;
        let run = front::users::run(config.front.auth.clone(), users_in, end.stop.clone());
        assembly.spawn("users", run);
    }
    if !config.front.pages.is_empty() {
        let (pages_in, pages) = watch::channel(None);
        supervisor.pages = pages;
        let (files, problems) = (config.front.pages.clone(), assembly.problems());
        let run = front::pages::run(files, pages_in, problems, end.stop.clone());
        assembly.spawn("pages", run);
    }

    let metrics = Arc::new(front::Metrics::default());
    assembly.figures(routes_figures(metrics.clone()));
    let (routed_in, routed) = watch::channel(None);
    let outputs = front::Outputs {
        stats: stats_in,
        problems: assembly.problems(),
        routed: routed_in,
        metrics,
    };
    let run = front::supervise(supervisor, listeners, snapshots, outputs, end.clone());
    assembly.conditions.push((ROUTED, routed.clone()));
    assembly.followers.push(("the front", routed));
    assembly.spawn("front", run);
    assembly.figures(front_figures(stats.clone()));
    let shown = stats.clone();
    assembly.line(move || front_line(shown.borrow().as_ref()));
    stats
}

/// Those of files and of an authority, if the front speaks TLS.
fn certificates(
    assembly: &mut Assembly,
    config: &Config,
    supervisor: &mut front::Supervisor,
    reload: watch::Receiver<()>,
    end: &front::End,
) {
    let Some(tls) = config.front.tls.clone() else {
        return;
    };
    let outputs = front::CertificateOutputs {
        tls: watch::Sender::default(),
        in_use: watch::Sender::default(),
        problems: assembly.problems(),
    };
    supervisor.listen_tls = tls.listen;
    supervisor.certificates = Some(outputs.tls.subscribe());
    let in_use = outputs.in_use.subscribe();
    assembly.figures(certificates_figures(in_use.clone()));
    assembly.line(move || certificates_line(&in_use.borrow()));
    let channels = front::AcmeChannels {
        problems: assembly.problems(),
        ..front::AcmeChannels::default()
    };
    let issued = channels.issued.subscribe();
    supervisor.shown = channels.shown.clone();
    if let Some(acme) = tls.acme {
        let run = front::acme(acme, channels, end.stop.clone());
        assembly.spawn_sure("acme", run);
    }
    let run = front::certificates(tls.files, outputs, issued, reload, end.stop.clone());
    assembly.spawn_sure("certificates", run);
}
