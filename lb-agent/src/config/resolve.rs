//! From what was typed to what holds. Every mistake is gathered; nothing is guessed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Admin, Config, Dns, Error, Expose, Front, Given, Limits, LogFormat, Outside, Published,
    RawConfig, Sources, Vip, access_log, announce, cgroup, consul, engine, front_limits, front_tls,
    metrics, packet, registrar,
};
use crate::{
    front::pages::{For, is_html},
    health,
    options::{is_dns_name, is_list, parse_duration},
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

/// Turns texts into values and gathers what is wrong. After a mistake the default stands in, so that the rest
/// is judged too.
pub(super) struct Judge<'o> {
    mistakes: Vec<String>,
    pub(super) outside: Outside<'o>,
}

/// What a text means, or what to write instead.
pub(super) type Read<T> = fn(&str) -> Result<T, String>;

impl<'o> Judge<'o> {
    pub(super) fn new(outside: Outside<'o>, mistakes: Vec<String>) -> Self {
        Self { mistakes, outside }
    }

    /// `value`, if nothing is wrong.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Error> {
        let mistakes = self.mistakes;
        match mistakes.is_empty() {
            true => Ok(value),
            false => Err(Error { mistakes }),
        }
    }

    pub(super) fn text<T>(
        &mut self,
        given: &Option<Given<String>>,
        default: T,
        read: Read<T>,
    ) -> T {
        let Some(given) = given else {
            return default;
        };
        read(given.value.trim()).unwrap_or_else(|remedy| {
            // It may be an address with a password in it.
            let text = match given.value.contains("://") {
                true => crate::discover::consul::Address::redacted(&given.value),
                false => given.value.clone(),
            };
            self.wrong(given, &format!("`{text}`: {remedy}"));
            default
        })
    }

    pub(super) fn list<T>(
        &mut self,
        given: &Option<Given<Vec<String>>>,
        default: Vec<T>,
        read: Read<T>,
    ) -> Vec<T> {
        let Some(given) = given else {
            return default;
        };
        let mut values = Vec::new();
        for text in &given.value {
            match read(text.trim()) {
                Ok(value) => values.push(value),
                Err(remedy) => {
                    // It may be the address of a Consul, with a password in it.
                    let text = crate::discover::consul::Address::redacted(text);
                    self.wrong(given, &format!("`{text}`: {remedy}"));
                }
            }
        }
        values
    }

    pub(super) fn number<T: TryFrom<i64> + Copy>(
        &mut self,
        given: &Option<Given<i64>>,
        default: T,
        range: RangeInclusive<i64>,
    ) -> T {
        let Some(given) = given else {
            return default;
        };
        let value = Some(given.value).filter(|value| range.contains(value));
        match value.and_then(|value| T::try_from(value).ok()) {
            Some(value) => value,
            None => {
                let (from, to) = (range.start(), range.end());
                let value = given.value;
                self.wrong(
                    given,
                    &format!("{value}: write a number from {from} to {to}"),
                );
                default
            }
        }
    }

    pub(super) fn path(&mut self, given: &Option<Given<String>>, default: &str) -> PathBuf {
        match given {
            None => PathBuf::from(default),
            Some(given) => {
                if given.value.is_empty() {
                    self.wrong(given, "the path is empty; write one or leave the key out");
                }
                PathBuf::from(&given.value)
            }
        }
    }

    pub(super) fn wrong<T>(&mut self, given: &Given<T>, message: &str) {
        self.mistakes.push(format!("{}: {message}", given.origin));
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "journald" => Ok(LogFormat::Journald),
        _ => Err("write auto, text, json or journald".to_owned()),
    }
}

fn published(text: &str) -> Result<Published, String> {
    match text {
        "token" => Ok(Published::Token),
        "open" => Ok(Published::Open),
        _ => Err("write token or open".to_owned()),
    }
}

fn expose(text: &str) -> Result<Expose, String> {
    match text {
        "all" => Ok(Expose::All),
        "tagged" => Ok(Expose::Tagged),
        _ => Err("write all or tagged".to_owned()),
    }
}

fn pool(text: &str) -> Result<Pool, String> {
    let pool: Ipv4Net = text
        .parse()
        .map_err(|_| "write an IPv4 network, such as 198.18.0.0/16".to_owned())?;
    if pool.addr() != pool.network() {
        return Err(format!("its host part is not zero; write {}", pool.trunc()));
    }
    if !(8..=28).contains(&pool.prefix_len()) {
        return Err("write a network from /8 to /28".to_owned());
    }
    let first = pool.network();
    if first.is_loopback()
        || first.is_multicast()
        || first.octets()[0] == 0
        || first.octets()[0] >= 240
    {
        return Err(
            "these addresses have another meaning; write 198.18.0.0/16 or a private network"
                .to_owned(),
        );
    }
    Pool::try_from(pool).map_err(|error| error.to_string())
}

fn pool6(text: &str) -> Result<Pool6, String> {
    let net: Ipv6Net = text
        .parse()
        .map_err(|_| "write an IPv6 network, such as fd62:6c62:76:1::/64".to_owned())?;
    Pool6::try_from(net).map_err(|error| error.to_string())
}

/// Whose clients the resolver answers.
fn clients(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| "write a network, such as 192.0.2.0/24".to_owned())?;
    match net.prefix_len() {
        0 => Err("a resolver that is open to everybody is a weapon; write the networks of your own clients".to_owned()),
        _ => Ok(net.trunc()),
    }
}

/// Who is believed about clients.
fn proxies(text: &str) -> Result<IpNet, String> {
    let one = |text: &str| {
        text.parse()
            .ok()
            .map(|address: IpAddr| IpNet::from(address))
    };
    let net = text.parse().ok().or_else(|| one(text));
    let net = net.ok_or_else(|| "write a network or an address, such as 10.0.0.0/24".to_owned())?;
    match net.prefix_len() {
        0 => Err(
            "everybody could claim to be anybody; write the networks of your own proxies"
                .to_owned(),
        ),
        _ => Ok(net.trunc()),
    }
}

/// A name of one label, such as a datacenter's.
pub(super) fn label(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=63).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("write a name of letters, digits, `-` and `_`".to_owned())
    }
}

fn domain(text: &str) -> Result<String, String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    if is_dns_name(&name) {
        Ok(name)
    } else {
        Err("write a domain without a port, such as apps.example.org".to_owned())
    }
}

pub(super) fn listener(text: &str) -> Result<SocketAddr, String> {
    // `:80` means every address of this host.
    let full = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.to_owned(),
    };
    full.parse()
        .map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080".to_owned())
}

fn name_server(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse().map(|ip| SocketAddr::new(ip, 53));
    alone
        .or_else(|_| text.parse())
        .map_err(|_| "write an IP address with or without a port, such as 127.0.0.1:53".to_owned())
}

pub(super) fn pause(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_millis(100)..=Duration::from_secs(3600);
    parse_duration(text)
        .filter(|pause| bounds.contains(pause))
        .ok_or_else(|| "write a time from 100ms to 1h, such as 2s".to_owned())
}

fn quarantine(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(7 * 24 * 60 * 60);
    parse_duration(text)
        .filter(|quarantine| *quarantine <= longest)
        .ok_or_else(|| "write a time up to a week (168h), such as 10m; 0 for none".to_owned())
}

fn leave(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|time| *time <= Duration::from_secs(3600))
        .ok_or_else(|| "write a time up to 1h, such as 30s; 0 for none".to_owned())
}

fn retirement(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|time| *time <= Duration::from_secs(7 * 24 * 60 * 60))
        .ok_or_else(|| "write a time up to a week (168h), such as 10m; 0 for none".to_owned())
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
