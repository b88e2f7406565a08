mod mistakes;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use proptest::prelude::*;

use crate::{
    config::{
        Config, ConsulToken, Error, Expose, LogFormat, Outside, Published, RawConfig, RunArgs,
        Setting,
    },
    discover::consul::Warning,
    front::pages::For,
    registrar::Addressing,
};

/// A command line, an environment and a disk of the test's own.
#[derive(Default)]
pub(in crate::config) struct World {
    flags: Vec<&'static str>,
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<&'static str, String>,
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    run: RunArgs,
}

impl World {
    /// Flags that are enough to start.
    pub(in crate::config) fn new() -> Self {
        let world = Self::default().flag("--services").flag("/s.toml");
        world.file("/proc/self/mountinfo", MOUNTS)
    }

    pub(in crate::config) fn flag(mut self, flag: &'static str) -> Self {
        self.flags.push(flag);
        self
    }

    pub(in crate::config) fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.insert(name, value);
        self
    }

    pub(in crate::config) fn file(mut self, path: &'static str, text: &str) -> Self {
        self.files.insert(path, text.to_owned());
        self
    }

    pub(in crate::config) fn toml(self, text: &str) -> Self {
        self.file("/etc/lb/lb.toml", text)
    }

    fn load(&self) -> Result<Config, Error> {
        self.load_with_origins().map(|(config, _)| config)
    }

    /// Every key; of the flags these alone were typed, the others stand for variables.
    pub(in crate::config) fn settings(&self, typed: &[&str]) -> Vec<Setting> {
        let (config, raw) = self.load_with_origins().unwrap();
        config.settings(&raw, &|flag| typed.contains(&flag))
    }

    pub(in crate::config) fn load_with_origins(&self) -> Result<(Config, RawConfig), Error> {
        let flags = ["run"].iter().chain(&self.flags);
        let args = Command::try_parse_from(flags).unwrap().run;
        let outside = Outside {
            variable: &|name| self.variables.get(name).map(|&it| it.to_owned()),
            read: &|path| {
                let text = path.to_str().and_then(|path| self.files.get(path));
                text.cloned()
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
            },
        };
        Config::load_with_origins(&args, outside)
    }

    #[track_caller]
    pub(in crate::config) fn config(&self) -> Config {
        self.load().unwrap()
    }

    /// All mistakes, in this order, each with this beginning and this part.
    #[track_caller]
    pub(in crate::config) fn wrong(&self, expect: &[(&str, &str)]) {
        let error = self.load().unwrap_err();
        assert_eq!(error.mistakes.len(), expect.len(), "{error}");
        for (mistake, (origin, part)) in error.mistakes.iter().zip(expect) {
            assert!(mistake.starts_with(origin), "{mistake} is not of {origin}");
            assert!(mistake.contains(part), "{mistake} lacks {part}");
        }
    }
}

const MOUNTS: &str = "35 22 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

#[test]
fn the_variables_of_register_hold_for_run_too_above_the_file() {
    let world = || {
        World::new()
            .flag("--registrar")
            .flag("--consul=127.0.0.1:8500")
            .flag("--docker=/run/d.sock")
            .toml("[registrar]\ninternal = false\ndrain = \"1m\"\nip = \"192.0.2.1\"\n")
    };
    let config = world()
        .variable("LB_REGISTRAR_INTERNAL", "true")
        .variable("LB_REGISTRAR_DRAIN", "2m")
        .variable("LB_REGISTRAR_NETWORKS", "a,b")
        .variable("LB_REGISTRAR_TTL", "")
        .config();
    let registrar = config.registrar.unwrap();
    assert_eq!(registrar.settings.addressing, Addressing::Internal);
    assert_eq!(registrar.drain, Duration::from_secs(120));
    assert_eq!(registrar.settings.networks, ["a", "b"]);
    assert_eq!(registrar.settings.ip, Some([192, 0, 2, 1].into()));
    let wrong = world().variable("LB_REGISTRAR_INTERNAL", "yes");
    wrong.wrong(&[("LB_REGISTRAR_INTERNAL", "write true or false")]);
    let wrong = world().variable("LB_REGISTRAR_RESYNC", "soon");
    wrong.wrong(&[("LB_REGISTRAR_RESYNC", "such as 30s")]);
}

#[test]
fn a_file_of_services_is_all_that_must_be_given() {
    let config = World::new().config();
    assert_eq!(config.sources.file.as_deref(), Some(Path::new("/s.toml")));
    assert_eq!(config.sources.consul, None);
    assert_eq!(config.state_dir, Path::new("/var/lib/lb"));
    assert_eq!(config.bpffs, Path::new("/sys/fs/bpf"));
    assert_eq!(config.cgroup, Path::new("/sys/fs/cgroup"));
    assert_eq!(config.socket, Path::new("/run/lb/admin.sock"));
    assert_eq!(config.log_format, LogFormat::Auto);
    assert_eq!(config.vip.pool.to_string(), "198.18.0.0/16");
    assert_eq!(config.vip.datacenter, "dc1");
    assert_eq!(config.vip.quarantine, Duration::from_secs(600));
    assert!(config.front.enabled && config.dns.enabled);
    assert_eq!(config.front.listen, ["0.0.0.0:80".parse().unwrap()]);
    assert_eq!(config.front.domains[0], "localhost");
    assert_eq!(config.front.no_route_status, 503);
    let times = |front: &crate::config::Front| {
        [front.grace, front.drain, front.retirement].map(|it| it.as_secs())
    };
    assert_eq!(times(&config.front), [0, 30, 600]);
    assert_eq!(config.front.forwarding, lb_front::Forwarding::default());
    assert_eq!(
        config.front.access_log,
        lb_front::log::LogSettings::default()
    );
    let none = lb_front::LimitSettings::default();
    assert_eq!(config.front.limits, none);
    assert_eq!(config.admin.listen, "127.0.0.1:9180".parse().unwrap());
    assert_eq!(config.admin.published, Published::Token);
    assert_eq!(config.admin.allow_uids, [].into());
    let both = ["198.18.0.1:53", "[fd62:6c62:76:1::1]:53"];
    assert_eq!(config.dns.listen, both.map(|it| it.parse().unwrap()));
    assert_eq!(config.vip.pool6.to_string(), "fd62:6c62:76:1::/64");
    assert!(config.dns.allow.is_empty() && !config.dns.host);
    assert_eq!(config.dns.upstreams, None);
    assert_eq!(
        (config.limits.services, config.limits.backends),
        (4096, 16384)
    );
    assert_eq!(config.health, crate::health::Config::default());
}

#[test]
fn every_key_of_the_file_has_its_effect() {
    let config = World::default()
        .toml(
            r#"
            state_dir = "/a"
            bpffs = "/b"
            cgroup = "/c"
            socket = "/d"
            log_format = "json"
            [vip]
            pool = "10.77.0.0/24"
            pool6 = "fd77::/80"
            datacenter = "rack_7"
            quarantine = "90s"
            [sources.file]
            path = "/e"
            [sources.consul]
            address = "http://consul.test:8500/"
            token_file = "/token"
            datacenter = "dc2"
            [front]
            enabled = false
            listen = [":8080", "[::1]:8080"]
            domains = ["Apps.Example.org."]
            expose = "tagged"
            no_route_status = 404
            no_backend_status = 502
            grace = "10s"
            drain = "1m"
            retirement = "2h"
            trusted_proxies = ["10.0.0.7/8", "fd00::1"]
            proxy_protocol = ["10.9.0.0/16"]
            forwarded = true
            request_id = false
            underscores = true
            sticky_key_file = "/key"
            [front.auth]
            staff = "/etc/lb/staff.htpasswd"
            [front.pages]
            no_route = "/etc/lb/404.html"
            maintenance = "/etc/lb/later.txt"
            [front.limits]
            first_byte = "1s"
            head = "2s"
            keep_alive = "3s"
            body_idle = "4s"
            write_stall = "5s"
            tunnel_idle = "6s"
            request = "7m"
            connect = "800ms"
            response = "9s"
            queue_time = "10s"
            queue = 0
            connections = 64
            connections_per_client = 12
            backend_connections = 13
            streams = 14
            max_body = "15KiB"
            [front.access_log]
            format = "json"
            file = "/var/log/lb/access.log"
            status = ["404", "500-599"]
            slower_than = "500ms"
            retried = true
            redact_query = true
            headers = ["X-Tenant"]
            redact = ["Referer"]
            [admin]
            listen = "0.0.0.0:9180"
            token_file = "/f"
            names = ["Page.Example.org"]
            published = "open"
            allow_uids = [1000, 1000, 0x3e9]
            [dns]
            enabled = false
            listen = ["127.0.0.1:5353"]
            allow = ["192.0.2.0/24", "2001:db8::/32"]
            upstreams = ["9.9.9.9", "[::1]:5353"]
            consul = "127.0.0.1:8600"
            [health]
            interval = "500ms"
            timeout = "1s"
            rise = 1
            fall = 5
            [limits]
            services = 10
            backends = 20
            "#,
        )
        .file("/token", "s3cret\n")
        .config();
    let consul = config.sources.consul.as_ref().unwrap();
    assert_eq!(consul.addresses[0].to_string(), "http://consul.test:8500");
    assert_eq!(
        consul.token,
        Some(ConsulToken::File(PathBuf::from("/token")))
    );
    assert_eq!(consul.datacenter.as_deref(), Some("dc2"));
    assert_eq!(config.cgroup, Path::new("/c"));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.vip.pool.to_string(), "10.77.0.0/24");
    assert_eq!(config.vip.datacenter, "rack_7");
    assert_eq!(config.vip.quarantine, Duration::from_secs(90));
    assert!(!config.front.enabled && !config.dns.enabled);
    let listen: Vec<String> = config
        .front
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, ["0.0.0.0:8080", "[::1]:8080"]);
    assert_eq!(config.front.domains, ["apps.example.org"]);
    let front = &config.front;
    let staff = ("staff".to_owned(), "/etc/lb/staff.htpasswd".into());
    assert_eq!(front.auth, [staff].into());
    let times = [front.grace, front.drain, front.retirement];
    assert_eq!(times.map(|it| it.as_secs()), [10, 60, 7200]);
    assert_eq!(config.front.expose, Expose::Tagged);
    assert_eq!(config.front.no_route_status, 404);
    assert_eq!(config.front.no_backend_status, 502);
    let pages = [
        (For::NoRoute, "/etc/lb/404.html".into()),
        (For::Maintenance, "/etc/lb/later.txt".into()),
    ];
    assert_eq!(config.front.pages, pages.into());
    let trusted = ["10.0.0.0/8", "fd00::1/128"].map(|it| it.parse().unwrap());
    let forwarding = &config.front.forwarding;
    assert_eq!(forwarding.trusted_proxies, trusted);
    assert_eq!(forwarding.proxy_protocol[0].to_string(), "10.9.0.0/16");
    let file = config.front.access_log_file.as_deref();
    assert_eq!(file, Some(Path::new("/var/log/lb/access.log")));
    assert!(forwarding.forwarded && !forwarding.request_id && forwarding.underscores);
    assert_eq!(front.sticky_key_file, Some(PathBuf::from("/key")));
    let log = lb_front::log::LogSettings {
        format: Some(lb_front::log::LogFormat::Json),
        status: vec![404..=404, 500..=599],
        slower_than: Some(Duration::from_millis(500)),
        retried: true,
        redact_query: true,
        headers: vec!["x-tenant".to_owned()],
        redact: vec!["referer".to_owned()],
    };
    assert_eq!(config.front.access_log, log);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let limits = lb_front::LimitSettings {
        first_byte: seconds(1),
        head: seconds(2),
        keep_alive: seconds(3),
        body_idle: seconds(4),
        write_stall: seconds(5),
        tunnel_idle: seconds(6),
        request: seconds(420),
        connect: Some(Duration::from_millis(800)),
        response: seconds(9),
        queue_time: seconds(10),
        queue: Some(0),
        connections: Some(64),
        connections_per_client: Some(12),
        backend_connections: Some(13),
        streams: Some(14),
        max_body: Some(15 * 1024),
    };
    assert_eq!(config.front.limits, limits);
    assert_eq!(config.admin.token_file, Some(PathBuf::from("/f")));
    assert_eq!(config.admin.names, ["page.example.org"]);
    assert_eq!(config.admin.published, Published::Open);
    assert_eq!(config.admin.allow_uids, [1000, 1001].into());
    assert_eq!(config.vip.pool6.to_string(), "fd77::/80");
    let allow = ["192.0.2.0/24", "2001:db8::/32"];
    assert_eq!(config.dns.allow, allow.map(|it| it.parse().unwrap()));
    let upstreams = config.dns.upstreams.as_ref().unwrap();
    assert_eq!(upstreams[0].to_string(), "9.9.9.9:53");
    assert_eq!(upstreams[1].to_string(), "[::1]:5353");
    assert_eq!(config.dns.consul.unwrap().port(), 8600);
    assert_eq!(config.health.interval, Duration::from_millis(500));
    assert_eq!((config.health.rise, config.health.fall), (1, 5));
    assert_eq!((config.limits.services, config.limits.backends), (10, 20));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "[vip]\npool = \"10.1.0.0/16\"\n[sources.consul]\naddress = \"file:1\"\n";
    let address = |world: World| world.config().sources.consul.unwrap().addresses[0].to_string();
    assert_eq!(address(World::new().toml(file)), "http://file:1");
    let with_variable = || {
        World::new()
            .toml(file)
            .variable("CONSUL_HTTP_ADDR", "variable:2")
    };
    assert_eq!(address(with_variable()), "http://file:1");
    let with_flag = with_variable().flag("--consul").flag("flag:3");
    assert_eq!(address(with_flag), "http://flag:3");
    let alone = World::new().variable("CONSUL_HTTP_ADDR", "variable:2");
    assert_eq!(address(alone), "http://variable:2");
    let pool = World::new().toml(file).flag("--pool").flag("10.2.0.0/16");
    assert_eq!(pool.config().vip.pool.to_string(), "10.2.0.0/16");
}

#[test]
fn lists_may_be_repeated_or_separated_by_commas() {
    let config = World::new()
        .flag("--front=127.0.0.1:1,127.0.0.1:2")
        .flag("--front=127.0.0.1:3")
        .flag("--domain=a.test")
        .config();
    assert_eq!(config.front.listen.len(), 3);
    assert_eq!(config.front.domains, ["a.test"]);
}

#[test]
fn an_empty_list_of_upstreams_is_not_a_missing_one() {
    let config = World::new().toml("[dns]\nupstreams = []\n").config();
    assert_eq!(config.dns.upstreams, Some(Vec::new()));
}

#[test]
fn what_a_warning_means_is_a_choice() {
    let warning = |text: &str| {
        let config = World::new().toml(&format!("[sources.consul]\n{text}"));
        config.config().sources.consul.unwrap().warning
    };
    assert_eq!(warning(""), Warning::Exclude);
    assert_eq!(warning("warning = \"include\"\n"), Warning::Include);
}

#[test]
fn the_datacenter_of_consul_is_that_of_the_addresses() {
    let consul = "[sources.consul]\ndatacenter = \"east\"\n";
    let config = World::default()
        .file("/proc/self/mountinfo", MOUNTS)
        .toml(consul);
    assert_eq!(config.config().vip.datacenter, "east");
    let own = config.toml(&format!("{consul}[vip]\ndatacenter = \"west\"\n"));
    assert_eq!(own.config().vip.datacenter, "west");
    let address = own.config().sources.consul.unwrap().addresses[0].to_string();
    assert_eq!(address, "http://127.0.0.1:8500");
}

proptest! {
    #[test]
    fn no_file_panics(text in "(\\[(vip|front|dns|health|sources)\\]\n|[a-z_]{1,8} = [\\[\\]\"a-z0-9.:/ ]{0,12}\n){0,8}") {
        let _ = World::new().toml(&text).load();
    }

    #[test]
    fn no_value_panics(pool in ".{0,20}", address in ".{0,20}", interval in ".{0,8}", number: i64) {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let text = format!(
            "vip.pool = {}\nfront.listen = [{}]\nsources.consul.address = {}\nhealth.interval = {}\n\
             limits.services = {number}\nfront.domains = [{}]\ndns.upstreams = [{}]\n",
            quoted(&pool), quoted(&address), quoted(&address), quoted(&interval), quoted(&pool), quoted(&address),
        );
        if let Err(error) = World::new().toml(&text).load() {
            prop_assert!(error.mistakes.iter().all(|it| it.starts_with("/etc/lb/lb.toml:")), "{error}");
        }
    }
}

#[test]
fn the_engine_is_followed_where_its_socket_is() {
    let docker = |world: World| world.config().sources.docker;
    assert_eq!(docker(World::new()), None);
    let there = || World::new().file("/var/run/docker.sock", "");
    assert!(docker(there()).unwrap().source.is_some());
    assert_eq!(docker(there().flag("--docker=off")), None);
    // Consul's services include those of the containers; their end is still heard.
    let consul = docker(there().flag("--consul=127.0.0.1:8500")).unwrap();
    assert_eq!(consul.source, None);
    let both = there().flag("--consul=127.0.0.1:8500");
    let both = both.toml("[sources.docker]\nenabled = true\nnetworks = [\"front\"]\n");
    assert_eq!(docker(both).unwrap().source.unwrap().networks, ["front"]);
    assert_eq!(docker(there()).unwrap().proc, Path::new("/proc"));
    let proc = there().toml("[sources.docker]\nproc = \"/host/proc\"\n");
    assert_eq!(docker(proc).unwrap().proc, Path::new("/host/proc"));
}

#[test]
fn an_engine_alone_is_a_source() {
    let world = || World::default().file("/proc/self/mountinfo", MOUNTS);
    let config = world().flag("--docker=tcp://10.0.0.1:2375").config();
    let docker = config.sources.docker.unwrap();
    assert_eq!(docker.address.to_string(), "tcp://10.0.0.1:2375");
    assert!(docker.source.is_some());
    let config = world().variable("DOCKER_HOST", "unix:///d.sock").config();
    let address = config.sources.docker.unwrap().address;
    assert_eq!(address.to_string(), "unix:///d.sock");
    // Meant for the `docker` command.
    let ssh = world().variable("DOCKER_HOST", "ssh://host");
    ssh.wrong(&[("no discovery source is given", "--docker ADDR")]);
}
