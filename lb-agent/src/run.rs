//! `lb-agent run`: brings everything up in order, waits for the end, and takes it down in order.

pub(crate) mod configs;
mod ending;
mod hosts;
mod listeners;
mod show;
mod stages;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use lb_agent::{
    admin::{self, Readiness},
    announce, causes,
    config::{self, Config, Setting},
    discover::consul,
    front, host_dns,
    last_lines::LastLines,
    maps::Maps,
    network, packet,
    programs::{self, Programs},
    reconcile, vip,
};
use lb_sys::inherit::Inherited;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    preflight,
    privileges::{self, Privileges},
    systemd::Systemd,
};
pub(crate) use ending::{Ending, fault, last_words, shutdown_signal};
use listeners::Listeners;
use stages::{Signals, spawn};

/// How long the stages have to end beside what requests in flight at the front have.
const GRACE: Duration = Duration::from_secs(10);

/// What must have happened before the agent is ready.
const IN_MAPS: &str = "the first complete catalog is in the maps";
const ROUTED: &str = "the front has the first complete routes";
const BOUND: &str = "all listeners are bound";

/// The running stages, each with its name and its end.
pub(crate) type Stages = JoinSet<(&'static str, Result<()>)>;

/// Runs the agent until it is told to end. `settings` are the configuration as it is shown.
///
/// # Errors
/// When it cannot start, or a stage ends by itself.
pub(crate) fn run(
    config: Config,
    settings: Vec<Setting>,
    inherited: Inherited,
    log: LastLines,
) -> Result<()> {
    preflight::kernel()?;
    privileges::check()?;
    preflight::cgroup(&config.cgroup)?;
    preflight::bpffs(&config.bpffs)?;
    lb_sys::memory::keep_nothing();
    let _state = preflight::lock_state(&config.state_dir)?;
    let _pins = preflight::lock_pins(&programs::pin_root(&config.bpffs))?;
    let _network = preflight::lock_network()?;
    tracing::info!(?config, "resolved configuration");
    // This thread alone, until it has given up what only the start needs.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let started = runtime.block_on(start(&config, inherited))?;
    drop(runtime);
    let privileges = privileges::give_up(config.front.enabled)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(agent(config, settings, started, privileges, log));
    // Threads may wait for what cannot be interrupted: a resolver that is silent, a disk that hangs.
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

/// For what waits for the kernel when everything else has ended. Whatever it writes is written whole or not at all.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What the start has made for the stages.
struct Started {
    listeners: Listeners,
    consul: Option<consul::Config>,
    reload: watch::Sender<()>,
    plane: reconcile::Plane,
    /// The packet path, if there is one.
    packet: Option<packet::Start>,
    /// Where VIPs are announced.
    devices: announce::Devices,
    /// What a front is told, if there is one.
    front: Option<lb_front::Settings>,
    /// Whom the resolver asks at first, if there is one.
    upstreams: Option<Vec<SocketAddr>>,
}

/// Takes what the agent needs of this host. Everything that can be refused comes before the first change.
async fn start(config: &Config, mut inherited: Inherited) -> Result<Started> {
    let pools = pools(config)?;
    let listeners = Listeners::bind(config, pools, &mut inherited)?;
    admin::check(&configs::admin_config(config), &listeners.admin)?;
    let (reload, told_to_reload) = watch::channel(());
    let consul = config.sources.consul.as_ref();
    let consul = consul
        .map(|consul| configs::consul_config(consul, told_to_reload))
        .transpose()?;
    let devices = announce::Devices::open(&config.announce.devices)?;
    let front = config.front.enabled;
    let front = front.then(|| configs::front_settings(config)).transpose()?;
    let upstreams = config.dns.enabled;
    let upstreams = upstreams.then(|| configs::upstreams(config, pools));
    let upstreams = upstreams.transpose()?;
    for name in inherited.names() {
        tracing::warn!(
            name,
            "a passed descriptor is not used; the names are front, front-tls, admin and dns"
        );
    }
    network::take_pools(&shares(pools)).await?;
    let mut programs = load(programs::Config {
        bpffs: config.bpffs.clone(),
        cgroup: config.cgroup.clone(),
        pool: pools.v4.net(),
        pool6: pools.v6.map(vip::Pool6::net),
        own: pools.v4.own(),
        services: config.limits.services,
        backends: config.limits.backends,
    })?;
    let packet = match &config.packet {
        Some(packet) => Some(packet::start(config, packet, pools).await?),
        None => {
            packet::leave(&config.bpffs).await;
            None
        }
    };
    let (maps, events, traces) = Maps::open(&mut programs)?;
    programs.attach()?;
    let plane = reconcile::Plane {
        programs,
        maps,
        events,
        traces,
        pools,
    };
    Ok(Started {
        listeners,
        consul,
        reload,
        plane,
        packet,
        devices,
        front,
        upstreams,
    })
}

async fn agent(
    config: Config,
    settings: Vec<Setting>,
    started: Started,
    privileges: Privileges,
    log: LastLines,
) -> Result<()> {
    let Started {
        listeners,
        consul,
        reload,
        plane,
        packet,
        devices,
        front,
        upstreams,
    } = started;
    let host_dns = config.dns.host.then(|| host_dns::Wanted {
        own: plane.pools.v4.own(),
        domains: config.front.domains.clone(),
    });
    let mut conditions = vec![IN_MAPS, BOUND];
    if config.front.enabled {
        conditions.push(ROUTED);
    }
    let readiness = Readiness::new(conditions);
    let config::Front {
        enabled,
        grace,
        drain,
        ..
    } = config.front;
    let end = front::End::default();
    let stop = &end.stop;
    // Some stages have threads of their own, which would go on without those that could not be started.
    let _ended = stop.clone().drop_guard();
    let systemd = Systemd::of_environment();
    let signals = Signals {
        end: &end,
        reload: reload.subscribe(),
        systemd: systemd.clone(),
        settings,
        log,
        devices,
        packet,
        front,
        upstreams,
    };
    let mut stages = spawn(
        config, consul, listeners, plane, privileges, &readiness, signals,
    )?;
    readiness.set(BOUND);
    if let Some(wanted) = host_dns {
        tokio::task::spawn_blocking(move || serve_host(&wanted));
    }
    tracing::info!("running");
    systemd.ready();

    let mut early = tokio::select! {
        ending = shutdown_signal(&reload) => ending,
        ended = stages.join_next() => Err(fault(ended)),
    };
    readiness.stop();
    systemd.stopping();
    if !matches!(early, Ok(Ending::All)) {
        // A fault elsewhere ends no request of a healthy front.
        end.keep_front.cancel();
    } else if enabled && !grace.is_zero() {
        tracing::info!(
            ?grace,
            "the front goes on until others have seen that it is not ready"
        );
        tokio::select! {
            () = sleep(grace) => {}
            _ = shutdown_signal(&reload) => {}
            ended = stages.join_next() => early = Err(fault(ended)),
        }
    }
    systemd.be_patient(drain + GRACE);
    stop.cancel();
    let late = tokio::select! {
        drained = timeout(drain + GRACE, last_words(&mut stages)) => drained.is_err(),
        // The second signal means now.
        signal = shutdown_signal(&reload) => signal.is_ok(),
    };
    if late {
        tracing::warn!(
            stages = stages.len(),
            "stages were still running when the agent ended"
        );
    }
    early.map(drop)
}

/// Makes the agent the resolver of this host's own processes. Where that cannot be, all else works on.
fn serve_host(wanted: &host_dns::Wanted) {
    let host = host_dns::Host::new("/");
    match host.install(wanted) {
        Ok(done) => {
            if let host_dns::Done::Changed(path) = &done {
                tracing::info!(file = %path.display(), "this host's processes ask the agent for names");
            }
            if let Err(remedy) = host.reload(&done) {
                tracing::warn!("{remedy}");
            }
        }
        Err(error) => tracing::warn!("[dns] host: {}", causes::error_chain(&error)),
    }
}

/// The pools that this host can serve.
fn pools(config: &Config) -> Result<vip::Pools> {
    let v6 = network::has_ipv6().then_some(config.vip.pool6);
    if v6.is_none() {
        tracing::info!(
            "this host has no IPv6: services have no IPv6 address, and AAAA has no data"
        );
    }
    Ok(vip::Pools {
        v4: vip::Pool::try_from(config.vip.pool)?,
        v6,
    })
}

/// What this host's network must know of the pools.
fn shares(pools: vip::Pools) -> Vec<network::Share> {
    let v4 = network::Share {
        pool: pools.v4.net().into(),
        own: pools.own().into(),
    };
    let v6 = pools.v6.map(|v6| network::Share {
        pool: v6.net().into(),
        own: vip::v6_of(pools.v4, v6, pools.own()).into(),
    });
    [Some(v4), v6].into_iter().flatten().collect()
}

/// Loads the programs. The loader reads the type information of the whole kernel, tens of megabytes for a moment: on a
/// thread of its own, so that all of it is free when that has ended.
fn load(config: programs::Config) -> Result<Programs> {
    let loaded = std::thread::spawn(move || Programs::load(&config)).join();
    lb_sys::memory::give_back();
    Ok(loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
}
