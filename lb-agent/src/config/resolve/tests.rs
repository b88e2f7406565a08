mod file;
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
