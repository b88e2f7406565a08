//! From what was typed to what holds. Every mistake is gathered; nothing is guessed. `judge` gathers, and `texts` reads
//! single values.

mod judge;
mod texts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use self::texts::{
    clients, domain, expose, leave, name_server, pool, pool6, proxies, published, quarantine,
    retirement,
};
pub(super) use self::{
    judge::Judge,
    texts::{label, listener, log_format, pause},
};
use super::{
    Admin, Config, Dns, Error, Expose, Front, Given, Limits, LogFormat, Outside, Published,
    RawConfig, Sources, Vip, access_log, announce, cgroup, consul, engine, front_limits, front_tls,
    metrics, packet, registrar,
};
use crate::{
    front::pages::{For, is_html},
    health,
    options::is_list,
    vip::{Pool, Pool6, Pools},
};

/// The configuration that `raw` asks for.
///
/// # Errors
///
/// Everything that is wrong.
pub fn resolve(raw: &RawConfig, outside: Outside<'_>) -> Result<Config, Error> {
    let mut judge = Judge::new(outside, Vec::new());
    let pools = pools(raw, &mut judge);
    let pool6 = pools.v6.unwrap_or_default();
    let sources = sources(raw, &mut judge);
    let consul_datacenter = sources
        .consul
        .as_ref()
        .and_then(|it| it.datacenter.as_deref());
    let datacenter = consul_datacenter.unwrap_or(DEFAULT_DATACENTER).to_owned();
    let registrar = registrar(raw, sources.docker.is_some(), &mut judge);
    let config = Config {
        state_dir: judge.path(&raw.state_dir, STATE_DIR),
        bpffs: judge.path(&raw.bpffs, "/sys/fs/bpf"),
        cgroup: cgroup_directory(raw, &mut judge),
        socket: judge.path(&raw.socket, "/run/lb/admin.sock"),
        log_format: judge.text(&raw.log_format, LogFormat::Auto, log_format),
        vip: Vip {
            pool: pools.v4.net(),
            pool6,
            datacenter: judge.text(&raw.vip_datacenter, datacenter, label),
            quarantine: judge.text(&raw.vip_quarantine, DEFAULT_QUARANTINE, quarantine),
        },
        announce: announce::resolve(raw, sources.consul.is_some(), &mut judge),
        sources,
        front: front(raw, &mut judge),
        admin: admin(raw, &mut judge),
        metrics: metrics::resolve(raw, &mut judge),
        dns: dns(raw, pools, &mut judge),
        health: probes(raw, &mut judge),
        limits: Limits {
            services: judge.number(&raw.limits_services, 4_096, 1..=65_536),
            backends: judge.number(&raw.limits_backends, 16_384, 1..=1_048_576),
            packet_services: judge.number(&raw.limits_packet_services, 256, 1..=4_096),
            packet_flows: judge.number(&raw.limits_packet_flows, 131_072, 1_024..=16_777_216),
        },
        packet: packet::resolve(raw, &mut judge),
        registrar,
    };
    judge.finish(config)
}

fn registrar(
    raw: &RawConfig,
    engine: bool,
    judge: &mut Judge<'_>,
) -> Option<crate::registrar::Config> {
    let config = registrar::resolve(raw, judge);
    let enabled = raw.registrar_enabled.as_ref().filter(|it| it.value)?;
    if raw.consul.is_none() && raw.consul_address.is_none() {
        judge.wrong(
            enabled,
            "there is no Consul to register in; name one with --consul ADDR",
        );
    }
    if !engine {
        judge.wrong(
            enabled,
            "there is no Docker Engine whose containers could be registered; name its socket with \
             --docker ADDR",
        );
    }
    Some(config)
}

fn sources(raw: &RawConfig, judge: &mut Judge<'_>) -> Sources {
    let file = raw.file_path.as_ref();
    let file = file.map(|_| judge.path(&raw.file_path, ""));
    let wanted = raw.consul.is_some() || raw.consul_address.is_some();
    let consul = wanted.then(|| consul::resolve(raw, judge));
    let docker = engine::resolve(raw, consul.is_some(), judge);
    let containers = docker
        .as_ref()
        .is_some_and(|docker| docker.source.is_some());
    if file.is_none() && consul.is_none() && !containers {
        judge.mistakes.push(format!(
            "{NO_SOURCE}: name a file of services with --services FILE, a Consul agent with \
             --consul ADDR or a Docker Engine with --docker ADDR (in the file: [sources.file] \
             path, [sources.consul] address, [sources.docker] socket)"
        ));
    }
    Sources {
        file,
        consul,
        docker,
    }
}

fn cgroup_directory(raw: &RawConfig, judge: &mut Judge<'_>) -> PathBuf {
    if raw.cgroup.is_some() {
        return judge.path(&raw.cgroup, "");
    }
    let mounts = (judge.outside.read)(Path::new(MOUNTS));
    let found = mounts.ok().and_then(|mounts| cgroup::mount(&mounts));
    found.unwrap_or_else(|| {
        judge.mistakes.push(format!(
            "no cgroup v2 tree is in {MOUNTS}: mount one (mount -t cgroup2 none DIR) or name a \
             directory with --cgroup"
        ));
        PathBuf::new()
    })
}

fn front(raw: &RawConfig, judge: &mut Judge<'_>) -> Front {
    let access_log = access_log::resolve(raw, judge);
    let file = raw.access_log_file.as_ref();
    let access_log_file = file.map(|_| judge.path(&raw.access_log_file, ""));
    let forwarding = lb_front::Forwarding {
        trusted_proxies: judge.list(&raw.front_trusted_proxies, Vec::new(), proxies),
        proxy_protocol: judge.list(&raw.front_proxy_protocol, Vec::new(), proxies),
        forwarded: raw.front_forwarded.as_ref().is_some_and(|it| it.value),
        request_id: raw.front_request_id.as_ref().is_none_or(|it| it.value),
        underscores: raw.front_underscores.as_ref().is_some_and(|it| it.value),
    };
    let sticky_key_file = raw.front_sticky_key_file.as_ref();
    let default = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80))];
    let listen = judge.list(&raw.front_listen, default, listener);
    let tls = front_tls::resolve(raw, judge);
    if let Some(tls) = &tls {
        front_tls::compare(&listen, raw, tls, judge);
    }
    Front {
        sticky_key_file: sticky_key_file.map(|_| judge.path(&raw.front_sticky_key_file, "")),
        forwarding,
        auth: lists(raw, judge),
        limits: front_limits::resolve(raw, judge),
        access_log,
        access_log_file,
        tls,
        enabled: raw.front_enabled.as_ref().is_none_or(|it| it.value),
        listen,
        domains: domains(raw, judge),
        expose: judge.text(&raw.front_expose, Expose::All, expose),
        no_route_status: judge.number(&raw.front_no_route_status, 503, 400..=599),
        no_backend_status: judge.number(&raw.front_no_backend_status, 503, 400..=599),
        pages: pages(raw, judge),
        grace: judge.text(&raw.front_grace, Duration::ZERO, leave),
        drain: judge.text(&raw.front_drain, Duration::from_secs(30), leave),
        retirement: judge.text(&raw.front_retirement, Duration::from_secs(600), retirement),
    }
}

/// The files of users by the names of their lists.
fn lists(raw: &RawConfig, judge: &mut Judge<'_>) -> BTreeMap<String, PathBuf> {
    let Some(given) = &raw.front_auth else {
        return BTreeMap::new();
    };
    let mut lists = BTreeMap::new();
    for (name, path) in &given.value {
        if !is_list(name) {
            let remedy = "name a list with letters, digits, `-` and `_`, 64 at most, and not `off`";
            judge.wrong(given, &format!("`{name}`: {remedy}"));
        } else if !Path::new(path).is_absolute() {
            let remedy = "write the whole path of a file, from `/` on";
            judge.wrong(given, &format!("`{name}`: `{path}`: {remedy}"));
        } else {
            lists.insert(name.clone(), PathBuf::from(path));
        }
    }
    lists
}

/// The files of pages.
fn pages(raw: &RawConfig, judge: &mut Judge<'_>) -> BTreeMap<For, PathBuf> {
    let Some(given) = &raw.front_pages else {
        return BTreeMap::new();
    };
    let mut pages = BTreeMap::new();
    for (key, path) in &given.value {
        let path = Path::new(path);
        let what = For::ALL.into_iter().find(|(_, name)| name == key);
        match what {
            None => judge.wrong(
                given,
                &format!("there is no page `{key}`; write no_route, no_backend or maintenance"),
            ),
            Some(_) if !path.is_absolute() || is_html(path).is_none() => judge.wrong(
                given,
                &format!("`{key}`: `{}`: write the whole path of a file, from `/` on, whose name ends in .html, .htm or .txt", path.display()),
            ),
            Some((what, _)) => drop(pages.insert(what, path.to_owned())),
        }
    }
    pages
}

/// The domains below which every service has a host name.
pub(super) fn domains(raw: &RawConfig, judge: &mut Judge<'_>) -> Vec<String> {
    let default = DEFAULT_DOMAINS.map(str::to_owned).to_vec();
    judge.list(&raw.front_domains, default, domain)
}

/// The pools of both families.
pub(super) fn pools(raw: &RawConfig, judge: &mut Judge<'_>) -> Pools {
    Pools {
        v4: judge.text(&raw.vip_pool, Pool::default(), pool),
        v6: Some(judge.text(&raw.vip_pool6, Pool6::default(), pool6)),
    }
}

fn admin(raw: &RawConfig, judge: &mut Judge<'_>) -> Admin {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9180));
    let listen = judge.text(&raw.admin_listen, default, listener);
    let token_file = raw.admin_token_file.as_ref();
    let token_file = token_file.map(|_| judge.path(&raw.admin_token_file, ""));
    if let (Some(given), None, false) = (&raw.admin_listen, &token_file, listen.ip().is_loopback())
    {
        judge.wrong(
            given,
            "the page can be reached from outside this host; listen on 127.0.0.1 or name a \
             token_file in [admin]",
        );
    }
    Admin {
        listen,
        token_file,
        names: judge.list(&raw.admin_names, Vec::new(), domain),
        published: judge.text(&raw.admin_published, Published::Token, published),
        allow_uids: uids(&raw.admin_allow_uids, judge),
    }
}

fn uids(given: &Option<Given<Vec<i64>>>, judge: &mut Judge<'_>) -> BTreeSet<u32> {
    let mut uids = BTreeSet::new();
    let Some(given) = given else {
        return uids;
    };
    for &uid in &given.value {
        match u32::try_from(uid) {
            // The kernel's word for whoever has no number here.
            Ok(OVERFLOW_UID) => judge.wrong(
                given,
                &format!("`{uid}` is every user of other user namespaces; give the user a number of its own"),
            ),
            Err(_) | Ok(u32::MAX) => judge.wrong(
                given,
                &format!("`{uid}` is no user's number; `id -u NAME` tells it"),
            ),
            Ok(uid) => drop(uids.insert(uid)),
        }
    }
    uids
}

/// The user that the kernel names in the place of one who has no number in this user namespace.
const OVERFLOW_UID: u32 = 65534;

fn dns(raw: &RawConfig, pools: Pools, judge: &mut Judge<'_>) -> Dns {
    let (own, twin) = (pools.own(), pools.twin(pools.own()));
    let own = [Some(IpAddr::V4(own)), twin.map(IpAddr::V6)];
    let own: Vec<SocketAddr> = own
        .into_iter()
        .flatten()
        .map(|own| SocketAddr::new(own, 53))
        .collect();
    let upstreams = raw.dns_upstreams.as_ref();
    let consul = raw.dns_consul.as_ref();
    let dns = Dns {
        enabled: raw.dns_enabled.as_ref().is_none_or(|it| it.value),
        listen: judge.list(&raw.dns_listen, own.clone(), name_server),
        upstreams: upstreams.map(|_| judge.list(&raw.dns_upstreams, Vec::new(), name_server)),
        consul: consul.map(|_| judge.text(&raw.dns_consul, NOWHERE, name_server)),
        allow: judge.list(&raw.dns_allow, Vec::new(), clients),
        host: raw.dns_host.as_ref().is_some_and(|it| it.value),
    };
    if let Some(given) = raw.dns_host.as_ref().filter(|it| it.value)
        && !(dns.enabled && own.first().is_some_and(|own| dns.listen.contains(own)))
    {
        judge.wrong(
            given,
            "the host's processes can only ask port 53 of the pool's first address; enable [dns] and \
             leave out its `listen`, or name that address there",
        );
    }
    dns
}

fn probes(raw: &RawConfig, judge: &mut Judge<'_>) -> health::Config {
    let default = health::Config::default();
    health::Config {
        interval: judge.text(&raw.health_interval, default.interval, pause),
        timeout: judge.text(&raw.health_timeout, default.timeout, pause),
        rise: judge.number(&raw.health_rise, default.rise, 1..=100),
        fall: judge.number(&raw.health_fall, default.fall, 1..=100),
    }
}

/// Begins the mistake that only a readable file could have prevented.
pub(super) const NO_SOURCE: &str = "no discovery source is given";

pub(super) const STATE_DIR: &str = "/var/lib/lb";
const MOUNTS: &str = "/proc/self/mountinfo";
const DEFAULT_DATACENTER: &str = "dc1";
const DEFAULT_DOMAINS: [&str; 4] = [
    "localhost",
    "127.0.0.1.xip.io",
    "127.0.0.1.nip.io",
    "127.0.0.1.sslip.io",
];
/// Longer than most programs remember an address that they were told.
const DEFAULT_QUARANTINE: Duration = Duration::from_secs(600);
/// Stands in for an address that was wrong.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
pub(super) mod tests;
