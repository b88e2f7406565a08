//! How stages are set up, by what is configured.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use lb_agent::{
    admin,
    config::{self, Config, LogFormat},
    discover::consul,
    dns, front, vip,
};
use tokio::sync::watch;

/// The control socket of the front, beside the agent's own.
pub(super) fn front_control(config: &Config) -> PathBuf {
    config.socket.with_file_name("front.sock")
}

pub(super) fn admin_config(config: &Config) -> admin::Config {
    admin::Config {
        state_dir: config.state_dir.clone(),
        token_file: config.admin.token_file.clone(),
        names: config.admin.names.clone(),
        step: admin::STEP,
        published: config.admin.published,
        allow_uids: config.admin.allow_uids.clone(),
        per_backend: config.metrics.per_backend,
        otlp: config.metrics.otlp.clone(),
    }
}

/// What a front of this program and configuration is told by, as far as neither can change while it runs.
pub(super) fn front_kind(config: &Config) -> String {
    format!(
        "{} {} {} {}",
        env!("CARGO_PKG_VERSION"),
        option_env!("LB_REVISION").unwrap_or("unknown"),
        match config.log_format {
            LogFormat::Auto | LogFormat::Text => "text",
            LogFormat::Json => "json",
            LogFormat::Journald => "journald",
        },
        config.front.drain.as_secs(),
    )
}

/// What a front is told once.
///
/// # Errors
/// When there is no key for the cookies of `lb_sticky`.
pub(super) fn front_settings(config: &Config) -> Result<lb_front::Settings> {
    let host = nix::sys::utsname::uname().ok();
    let host = host.as_ref().and_then(|it| it.nodename().to_str());
    let key_file = config.front.sticky_key_file.as_deref();
    let sticky_key = front::sticky_key(key_file, &config.state_dir)
        .context("`[front] sticky_key_file` cannot be used")?;
    Ok(lb_front::Settings {
        no_route_status: config.front.no_route_status,
        no_backend_status: config.front.no_backend_status,
        forwarding: config.front.forwarding.clone(),
        limits: config.front.limits.clone(),
        log: config.front.access_log.clone(),
        https: config
            .front
            .tls
            .as_ref()
            .map(|tls| tls.https.clone())
            .unwrap_or_default(),
        sticky_key: Some(sticky_key),
        ..host.map_or_else(lb_front::Settings::default, lb_front::Settings::of_host)
    })
}

/// How Consul is reached.
///
/// # Errors
/// When the files of TLS cannot be used.
pub(crate) fn consul_config(
    consul: &config::Consul,
    reload: watch::Receiver<()>,
) -> Result<consul::Config> {
    let config = consul
        .client(reload)
        .context("no address of Consul is given")?;
    config.check().context("[sources.consul]")?;
    Ok(config)
}

/// Whom the resolver asks at first.
///
/// # Errors
/// When the configuration names nobody, and the host's own cannot be read.
pub(super) fn upstreams(config: &Config, pools: vip::Pools) -> Result<Vec<SocketAddr>> {
    match &config.dns.upstreams {
        Some(upstreams) => Ok(upstreams.clone()),
        None => dns::system_upstreams(pools).context(
            "cannot read /etc/resolv.conf for the resolver's upstreams; set [dns] upstreams",
        ),
    }
}

pub(super) fn dns_config(
    config: &Config,
    pools: vip::Pools,
    upstreams: watch::Receiver<Vec<SocketAddr>>,
) -> dns::Config {
    let mut neighbours = dns::private_networks();
    neighbours.push(pools.v4.net().into());
    dns::Config {
        pools,
        domains: config.front.domains.clone(),
        upstreams,
        consul: config.dns.consul,
        neighbours,
        allow: config.dns.allow.clone(),
    }
}

/// Where they listen.
pub(super) fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    let addresses = listeners.iter().map(TcpListener::local_addr);
    addresses.filter_map(Result::ok).collect()
}
