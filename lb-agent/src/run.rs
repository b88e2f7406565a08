//! `lb-agent run`: makes the channels, spawns every stage in one place, and ends them in order.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use lb_agent::{
    admin::{self, Component, Figure, Figures, Mark, Readiness, Sample},
    assemble,
    catalog::SourceState,
    config::{self, Config},
    discover::{consul, file},
    dns,
    front::{self, FrontStats},
    health,
    maps::Maps,
    network,
    programs::{self, Programs},
    reconcile,
    routes::{RouteConfig, Routes},
    snapshot::Snapshot,
    vip,
};
use lb_sys::inherit::Inherited;
use prometheus_client::registry::Registry;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::preflight;

/// How long the stages have to end; the front has its own, shorter one for requests in flight.
const GRACE: Duration = Duration::from_secs(40);

/// How long the front's requests in flight have.
const FRONT_GRACE: Duration = Duration::from_secs(30);

/// What must have happened before the agent is ready.
const IN_MAPS: &str = "the first complete catalog is in the maps";
const ROUTED: &str = "the front has the first complete routes";
const BOUND: &str = "all listeners are bound";

type Stages = JoinSet<(&'static str, Result<()>)>;

/// Runs the agent until it is told to end.
///
/// # Errors
/// When it cannot start, or a stage ends by itself.
pub(crate) fn run(config: Config, inherited: Inherited) -> Result<()> {
    preflight::kernel()?;
    preflight::privileges()?;
    let _lock = preflight::lock(&config.state_dir)?;
    preflight::bpffs(&config.bpffs)?;
    let pins = programs::pin_root(&config.bpffs);
    tracing::info!(?config, "resolved configuration");
    tracing::debug!(pins = %pins.display(), "pins");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(agent(config, inherited))
}

async fn agent(config: Config, mut inherited: Inherited) -> Result<()> {
    let pool = vip::Pool::try_from(config.vip.pool)?;
    network::take_pool(pool.net(), pool.own()).await?;
    let listeners = Listeners::bind(&config, &mut inherited)?;
    for name in inherited.names() {
        tracing::warn!(
            name,
            "a passed descriptor is not used; the names are front, admin and dns"
        );
    }
    let mut programs = Programs::load(&programs::Config {
        bpffs: config.bpffs.clone(),
        cgroup: config.cgroup.clone(),
        pool: pool.net(),
        own: pool.own(),
        services: config.limits.services,
        backends: config.limits.backends,
    })?;
    let (maps, events) = Maps::open(&mut programs)?;
    programs.attach()?;

    let mut conditions = vec![IN_MAPS, BOUND];
    if config.front.enabled {
        conditions.push(ROUTED);
    }
    let readiness = Readiness::new(conditions);
    let stop = CancellationToken::new();
    let mut stages = spawn(
        config,
        pool,
        listeners,
        reconcile::Plane {
            programs,
            maps,
            events,
            pool: pool.net(),
        },
        &readiness,
        &stop,
    )?;
    readiness.set(BOUND);
    tracing::info!("running");

    let early = tokio::select! {
        signal = shutdown_signal() => signal.map(|name| tracing::info!(signal = name, "ending")),
        ended = stages.join_next() => Err(fault(ended)),
    };
    readiness.stop();
    stop.cancel();
    let late = tokio::select! {
        drained = timeout(GRACE, async { while stages.join_next().await.is_some() {} }) => drained.is_err(),
        // The second signal means now.
        signal = shutdown_signal() => signal.is_ok(),
    };
    if late {
        tracing::warn!(
            stages = stages.len(),
            "stages were still running when the agent ended"
        );
    }
    early
}

/// Every listener, passed in or bound.
struct Listeners {
    front: Vec<TcpListener>,
    admin: Vec<TcpListener>,
    admin_socket: std::os::unix::net::UnixListener,
    dns_udp: Vec<UdpSocket>,
    dns_tcp: Vec<TcpListener>,
}

impl Listeners {
    fn bind(config: &Config, inherited: &mut Inherited) -> Result<Self> {
        let bad = "a passed descriptor is no listener";
        let mut admin = inherited.tcp("admin").context(bad)?;
        if admin.is_empty() {
            admin.push(bound(
                "[admin] listen",
                config.admin.listen,
                TcpListener::bind,
            )?);
        }
        let (mut dns_udp, mut dns_tcp) = (
            inherited.udp("dns").context(bad)?,
            inherited.tcp("dns").context(bad)?,
        );
        if config.dns.enabled && dns_udp.is_empty() && dns_tcp.is_empty() {
            for &address in &config.dns.listen {
                dns_udp.push(bound("[dns] listen", address, UdpSocket::bind)?);
                dns_tcp.push(bound("[dns] listen", address, TcpListener::bind)?);
            }
        }
        Ok(Self {
            // The supervisor binds them itself, once it knows that no living front already has.
            front: inherited.tcp("front").context(bad)?,
            admin,
            admin_socket: admin::bind_socket(&config.socket)?,
            dns_udp,
            dns_tcp,
        })
    }
}

fn bound<T>(
    key: &str,
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T> {
    bind(address).with_context(|| {
        format!("cannot listen on {address}; free it or set {key} to another address")
    })
}

fn spawn(
    config: Config,
    pool: vip::Pool,
    listeners: Listeners,
    plane: reconcile::Plane,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Result<Stages> {
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
    let (drains_in, drains) = mpsc::channel(16);
    let (map_problems_in, map_problems) = watch::channel(Vec::new());
    let (front_problems_in, front_problems) = watch::channel(Vec::new());
    let (front_stats_in, front_stats) = watch::channel(None);
    let (installed_in, installed) = watch::channel(false);
    let (routed_in, routed) = watch::channel(false);
    let mut conditions = vec![(IN_MAPS, installed)];

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
    let consul = config
        .sources
        .consul
        .as_ref()
        .map(consul_config)
        .transpose()?;
    if let Some(consul) = consul.clone() {
        let (state_in, state) = watch::channel(SourceState::default());
        sources.insert("consul".to_owned(), state);
        let metrics = consul::Metrics::default();
        metrics.register(&mut registry);
        let run = consul::run(consul, state_in, metrics, stop.clone());
        stage(
            "consul source",
            Box::pin(async { run.await.map_err(Into::into) }),
        );
    }

    // What the agent adds.
    let vip_config = vip::Config {
        pool,
        datacenter: config.vip.datacenter.clone(),
        records: config.state_dir.join("vips.json"),
        consul,
    };
    let run = vip::run(vip_config, names, vips_in, stop.clone());
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
    let inputs = assemble::Inputs {
        sources,
        vips,
        verdicts,
        drains,
        problems: vec![map_problems, front_problems],
    };
    let outputs = assemble::Outputs {
        names: names_in,
        snapshots: snapshots_in,
    };
    let run = assemble::run(config.state_dir.clone(), inputs, outputs, stop.clone());
    stage(
        "assemble",
        Box::pin(async {
            run.await;
            Ok(())
        }),
    );

    // What is made of the snapshot.
    let metrics = Arc::new(reconcile::Metrics::default());
    registry.register_collector(Box::new(reconcile_figures(metrics.clone())));
    let channels = reconcile::Channels {
        snapshots: snapshots.clone(),
        suspects: suspects_in,
        stats,
        problems: map_problems_in,
        installed: installed_in,
    };
    let run = reconcile::run(plane, channels, metrics, stop.clone());
    stage(
        "reconcile",
        Box::pin(async { run.await.map_err(Into::into) }),
    );

    let routes = RouteConfig {
        domains: config.front.domains.clone(),
        expose: config.front.expose,
        listeners: listeners
            .admin
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect(),
        ..RouteConfig::default()
    };
    let mut components: Vec<admin::ComponentLine> = Vec::new();
    if config.front.enabled {
        let control = config.socket.with_file_name("front.sock");
        let mut supervisor = front::Supervisor::new(control, config.front.listen.clone());
        supervisor.grace = FRONT_GRACE;
        supervisor.routes = routes.clone();
        supervisor.settings.no_route_status = config.front.no_route_status;
        let run = front::supervise(
            supervisor,
            listeners.front,
            snapshots.clone(),
            front_stats_in,
            front_problems_in,
            routed_in,
            stop.clone(),
        );
        conditions.push((ROUTED, routed));
        stage("front", Box::pin(async { run.await.map_err(Into::into) }));
        registry.register_collector(Box::new(front_figures(front_stats.clone())));
        components.push(Box::new(move || front_line(front_stats.borrow().as_ref())));
    }
    if config.dns.enabled {
        let metrics = Arc::new(dns::Metrics::default());
        metrics.register(&mut registry);
        components.push(dns_line(&listeners.dns_udp));
        let dns_config = dns_config(&config, pool)?;
        let run = dns::run(
            dns_config,
            listeners.dns_udp,
            listeners.dns_tcp,
            snapshots.clone(),
            metrics,
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
        drains: drains_in,
        readiness: readiness.clone(),
        registry,
        hosts: Box::new(move || host_names(hosts.borrow().as_deref(), &routes)),
        components,
    };
    let admin_config = admin::Config {
        state_dir: config.state_dir.clone(),
        token_file: config.admin.token_file.clone(),
        names: Vec::new(),
    };
    let run = admin::run(
        admin_config,
        listeners.admin_socket,
        listeners.admin,
        inputs,
        stop.clone(),
    );
    stage("admin", Box::pin(async { run.await.map_err(Into::into) }));
    Ok(stages)
}

type BoxedStage = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

fn consul_config(consul: &config::Consul) -> Result<consul::Config> {
    let address = consul
        .address
        .parse()
        .with_context(|| format!("[sources.consul] address {:?}", consul.address))?;
    let mut config = consul::Config::new(address);
    config.token = consul.token.as_ref().map(|token| match token {
        config::ConsulToken::Value(token) => consul::Token::Value(token.reveal().to_owned()),
        config::ConsulToken::File(path) => consul::Token::File(path.clone()),
    });
    config.datacenter.clone_from(&consul.datacenter);
    Ok(config)
}

fn dns_config(config: &Config, pool: vip::Pool) -> Result<dns::Config> {
    let upstreams = match &config.dns.upstreams {
        Some(upstreams) => upstreams.clone(),
        None => dns::system_upstreams(pool.own()).context(
            "cannot read /etc/resolv.conf for the resolver's upstreams; set [dns] upstreams",
        )?,
    };
    let mut allow = dns::private_networks();
    allow.push(pool.net().into());
    Ok(dns::Config {
        own: pool.own(),
        domains: config.front.domains.clone(),
        upstreams,
        consul: config.dns.consul,
        allow,
    })
}

/// Sets the conditions of readiness as they come true.
async fn report_readiness(
    mut conditions: Vec<(&'static str, watch::Receiver<bool>)>,
    readiness: Readiness,
    stop: CancellationToken,
) -> Result<()> {
    for (condition, reached) in &mut conditions {
        tokio::select! {
            // An error means that the stage ended, which is told elsewhere.
            reached = reached.wait_for(|reached| *reached) => if reached.is_ok() {
                readiness.set(condition);
            },
            () = stop.cancelled() => return Ok(()),
        }
    }
    tracing::info!("ready");
    stop.cancelled().await;
    Ok(())
}

fn host_names(snapshot: Option<&Snapshot>, config: &RouteConfig) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if let Some(snapshot) = snapshot {
        let (routes, _) = Routes::new(snapshot, config);
        for (host, label) in routes.hosts() {
            names
                .entry(label.to_owned())
                .or_default()
                .push(host.to_owned());
        }
    }
    names
}

fn front_line(stats: Option<&FrontStats>) -> Component {
    match stats {
        None => Component::new("front", Mark::Warning, "has not reported yet"),
        Some(stats) => {
            let served: u64 = stats.requests.iter().map(|requests| requests.count).sum();
            let FrontStats {
                pid, workers, open, ..
            } = stats;
            let detail = format!(
                "process {pid}, {workers} workers, {open} connections open, {served} requests"
            );
            Component::new("front", Mark::Ok, detail)
        }
    }
}

fn dns_line(sockets: &[UdpSocket]) -> admin::ComponentLine {
    let addresses: Vec<_> = sockets
        .iter()
        .filter_map(|socket| socket.local_addr().ok())
        .map(|address| address.to_string())
        .collect();
    let detail = format!("listens on {}", addresses.join(", "));
    Box::new(move || Component::new("dns", Mark::Ok, detail.clone()))
}

fn reconcile_figures(
    metrics: Arc<reconcile::Metrics>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let value = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed) as f64;
        vec![
            Figure::counter(
                "reconcile_operations",
                "Map writes by result.",
                vec![
                    Sample::labelled([("result", "ok")], value(&metrics.operations)),
                    Sample::labelled([("result", "failed")], value(&metrics.failures)),
                ],
            ),
            Figure::gauge(
                "reconcile_duration_seconds",
                "Time from the newest snapshot to its last map write.",
                vec![Sample::plain(value(&metrics.last_duration_micros) / 1e6)],
            ),
            Figure::counter(
                "suspicions",
                "Connects that the kernel saw fail at a backend.",
                vec![Sample::plain(value(&metrics.suspicions))],
            ),
        ]
    })
}

fn front_figures(
    stats: watch::Receiver<Option<FrontStats>>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        let Some(stats) = stats.borrow().clone() else {
            return Vec::new();
        };
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let value = |number: u64| number as f64;
        let requests = stats.requests.iter().map(|requests| {
            let service = if requests.service.is_empty() {
                "_unmatched"
            } else {
                &requests.service
            };
            Sample::labelled(
                [("service", service), ("code", &requests.class)],
                value(requests.count),
            )
        });
        let rejected = stats
            .rejected
            .iter()
            .map(|(reason, count)| Sample::labelled([("reason", reason)], value(*count)));
        vec![
            Figure::counter(
                "http_requests",
                "Requests by service and class of status.",
                requests.collect(),
            ),
            Figure::counter(
                "http_rejected",
                "Streams refused before there was a request.",
                rejected.collect(),
            ),
            Figure::counter(
                "http_retries",
                "Attempts after a failed one of the same request.",
                vec![Sample::plain(value(stats.retries))],
            ),
            Figure::gauge(
                "http_client_connections",
                "Client connections open now.",
                vec![Sample::plain(value(stats.open))],
            ),
            Figure::counter(
                "http_backend_connections_opened",
                "Connections opened to backends.",
                vec![Sample::plain(value(stats.connects))],
            ),
        ]
    })
}

async fn shutdown_signal() -> Result<&'static str> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut term, mut int, mut hup): (Signal, Signal, Signal) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
        listen(SignalKind::hangup())?,
    );
    loop {
        tokio::select! {
            _ = term.recv() => return Ok("SIGTERM"),
            _ = int.recv() => return Ok("SIGINT"),
            _ = hup.recv() => tracing::warn!("SIGHUP: the configuration is read at the start; restart the agent to change it"),
        }
    }
}

/// A stage that ends before it is told to is a fault, even when it says that all is well.
fn fault(ended: Option<Result<(&'static str, Result<()>), JoinError>>) -> anyhow::Error {
    match ended {
        None => anyhow!("no stage is left"),
        Some(Err(error)) => anyhow!("a stage failed: {error}"),
        Some(Ok((name, Ok(())))) => anyhow!("the stage {name} ended by itself"),
        Some(Ok((name, Err(error)))) => error.context(format!("the stage {name} ended")),
    }
}
