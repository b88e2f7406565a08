//! The command line of `lb-agent register`: our own flags, and those of Registrator.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use super::{
    Config, Consul, Error, Given, LogFormat, Origin, Outside, RawConfig, consul, registrar,
    resolve::{self, Judge},
};
use crate::{docker, registrar::tag_list};

/// Registers the containers of this host in Consul, and stays in the foreground.
///
/// It takes the flags of Registrator too, with one dash or two, and its registry URI.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    after_help = "Examples:\n  lb-agent register -internal consul://127.0.0.1:8500\n  lb-agent register --dry-run"
)]
pub struct RegisterArgs {
    /// The Consul agent of this host: an address, consul://HOST:PORT, consul-tls://HOST:PORT or consul-unix://PATH
    /// [default: CONSUL_HTTP_ADDR, else 127.0.0.1:8500]
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
    /// Print what each container would register, and why not, and end
    #[arg(long)]
    pub dry_run: bool,
    /// File with the configuration [default: /etc/lb/lb.toml if it is there]
    #[arg(long, env = "LB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The Docker Engine [default: unix:///var/run/docker.sock]
    #[arg(long, env = "LB_DOCKER_HOST", value_name = "ADDR")]
    pub docker: Option<String>,
    /// End with an error when the engine was away for so long, so that a restart mounts its socket anew; 0 is never
    /// [default: 60s]
    #[arg(long, env = "LB_REGISTRAR_GIVE_UP", value_name = "TIME")]
    pub give_up: Option<String>,
    /// The stable identity of this host [default: the name of the Consul agent's node, or of the engine]
    #[arg(long, env = "LB_REGISTRAR_HOST", value_name = "NAME")]
    pub host: Option<String>,
    /// Register the containers' own addresses and ports
    #[arg(long, env = "LB_REGISTRAR_INTERNAL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub internal: Option<bool>,
    /// The address of this host to register
    #[arg(long, env = "LB_REGISTRAR_IP", value_name = "IP")]
    pub ip: Option<String>,
    /// Another address of this host, which clients ask Consul for by its tag; may be repeated
    #[arg(
        long,
        env = "LB_REGISTRAR_TAGGED_ADDRESSES",
        value_name = "TAG=IP",
        value_delimiter = ','
    )]
    pub tagged_address: Vec<String>,
    /// The label of a container that holds the address to register
    #[arg(long, alias = "useIpFromLabel", value_name = "LABEL")]
    pub ip_from_label: Option<String>,
    /// The network whose address is registered where a container has several, best first; may be repeated
    #[arg(
        long,
        env = "LB_REGISTRAR_NETWORKS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub network: Vec<String>,
    /// Tags of every service, separated by commas
    #[arg(long, env = "LB_REGISTRAR_TAGS", value_name = "TAGS")]
    pub tags: Option<String>,
    /// Register only ports that have a SERVICE_NAME
    #[arg(long, env = "LB_REGISTRAR_EXPLICIT", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub explicit: Option<bool>,
    /// The attributes that are copied into Consul's Meta; may be repeated [default: all]
    #[arg(
        long,
        env = "LB_REGISTRAR_ATTRIBUTES",
        value_name = "KEY",
        value_delimiter = ','
    )]
    pub attribute: Vec<String>,
    /// When the services of a container that ended are removed: always or on-success [default: always]
    #[arg(long, env = "LB_REGISTRAR_DEREGISTER", value_name = "WHEN")]
    pub deregister: Option<String>,
    /// Also remove all services when this command ends
    #[arg(long, env = "LB_REGISTRAR_DEREGISTER_ON_EXIT", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub deregister_on_exit: Option<bool>,
    /// How long the services of a container that is stopping may stay in maintenance [default: 10m]
    #[arg(long, env = "LB_REGISTRAR_DRAIN", value_name = "TIME")]
    pub drain: Option<String>,
    /// How often Consul is compared with the containers [default: 10s]
    #[arg(long, env = "LB_REGISTRAR_RESYNC", value_name = "TIME")]
    pub resync: Option<String>,
    /// Give every service a check that fails when this command has been away for so long
    #[arg(long, env = "LB_REGISTRAR_TTL", value_name = "TIME")]
    pub ttl: Option<String>,
    /// How often that check is renewed [default: half of --ttl]
    #[arg(long, env = "LB_REGISTRAR_TTL_REFRESH", value_name = "TIME")]
    pub ttl_refresh: Option<String>,
    /// Take over what a Registrator with this host name has left behind; may be repeated
    #[arg(
        long,
        env = "LB_REGISTRAR_ADOPT",
        value_name = "HOSTNAME",
        value_delimiter = ','
    )]
    pub adopt: Vec<String>,
    /// auto, text, json or journald [default: auto]
    #[arg(long, env = "LB_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Registrator's; what is dangling is always removed
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cleanup: Option<bool>,
    /// Registrator's; Consul is always waited for
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pub retry_attempts: Option<i64>,
    /// Registrator's; Consul is always waited for
    #[arg(long, hide = true)]
    pub retry_interval: Option<i64>,
}

/// What `lb-agent register` was told, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterConfig {
    /// The Consul agent.
    pub consul: Consul,
    /// The engine.
    pub docker: docker::Config,
    /// How containers are registered.
    pub registrar: crate::registrar::Config,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Whether to print instead.
    pub dry_run: bool,
}

impl RegisterConfig {
    /// The configuration that `args`, the environment and the file make together.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn load(args: &RegisterArgs) -> Result<Self, Error> {
        Self::load_from(args, Outside::real())
    }

    /// As [`RegisterConfig::load`], from this `outside`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn load_from(args: &RegisterArgs, outside: Outside<'_>) -> Result<Self, Error> {
        let (file, mistakes) = Config::read_file(args.config.as_deref(), outside);
        let mut judge = Judge::new(outside, mistakes);
        let typed = raw(args, &mut judge);
        let raw = typed.over(file.over(RawConfig::from_consul_variables(outside.variable)));
        let mut docker = docker::Config::new(judge.text(
            &raw.docker_socket,
            docker::Address::default(),
            |text| {
                let wrong = |error: docker::AddressError| error.to_string();
                text.parse().map_err(wrong)
            },
        ));
        let give_up = raw_text("--give-up", &args.give_up);
        let after = judge.text(&give_up, Duration::from_secs(60), registrar::span);
        docker.give_up_after = Some(after).filter(|after| !after.is_zero());
        let config = Self {
            consul: consul::resolve(&raw, &mut judge),
            docker,
            registrar: registrar::resolve(&raw, &mut judge),
            log_format: judge.text(&raw.log_format, LogFormat::Auto, resolve::log_format),
            dry_run: args.dry_run,
        };
        judge.finish(config)
    }
}

fn raw(args: &RegisterArgs, judge: &mut Judge<'_>) -> RawConfig {
    let list = |flag, value: &[String]| {
        let origin = Origin::Flag(flag);
        let value = value.to_vec();
        (!value.is_empty()).then_some(Given { origin, value })
    };
    let switch = |flag, value: Option<bool>| {
        let origin = Origin::Flag(flag);
        value.map(|value| Given { origin, value })
    };
    let tags = args.tags.as_deref().map(tag_list);
    let registry = raw_text("the registry", &args.registry);
    let address = registry
        .is_some()
        .then(|| judge.text(&registry, DEFAULT_REGISTRY.to_owned(), consul_address));
    RawConfig {
        log_format: raw_text("--log-format", &args.log_format),
        docker_socket: raw_text("--docker", &args.docker),
        consul_address: list("the registry", address.as_slice()),
        registrar_host: raw_text("--host", &args.host),
        registrar_internal: switch("--internal", args.internal),
        registrar_ip: raw_text("--ip", &args.ip),
        registrar_address_label: raw_text("--ip-from-label", &args.ip_from_label),
        registrar_tagged_addresses: list("--tagged-address", &args.tagged_address),
        registrar_networks: list("--network", &args.network),
        registrar_tags: list("--tags", &tags.unwrap_or_default()),
        registrar_explicit: switch("--explicit", args.explicit),
        registrar_attributes: list("--attribute", &args.attribute),
        registrar_deregister: raw_text("--deregister", &args.deregister),
        registrar_deregister_on_exit: switch("--deregister-on-exit", args.deregister_on_exit),
        registrar_drain: raw_text("--drain", &args.drain),
        registrar_resync: raw_text("--resync", &args.resync),
        registrar_ttl: raw_text("--ttl", &args.ttl),
        registrar_ttl_refresh: raw_text("--ttl-refresh", &args.ttl_refresh),
        registrar_adopt: list("--adopt", &args.adopt),
        ..RawConfig::default()
    }
}

fn raw_text(flag: &'static str, value: &Option<String>) -> Option<Given<String>> {
    let origin = Origin::Flag(flag);
    value.clone().map(|value| Given { origin, value })
}

/// The address that a registry URI of Registrator means.
fn consul_address(text: &str) -> Result<String, String> {
    let (scheme, place) = text.split_once("://").unwrap_or(("", text));
    let place_or_default = || match place.trim_end_matches('/') {
        "" => "127.0.0.1:8500".to_owned(),
        place => place.to_owned(),
    };
    match scheme {
        "consul" => Ok(place_or_default()),
        "consul-tls" => Ok(format!("https://{}", place_or_default())),
        "consul-unix" if !place.is_empty() => Ok(format!("unix://{place}")),
        "consul-unix" => Err(
            "write the path of Consul's socket, such as consul-unix:///run/consul.sock".to_owned(),
        ),
        "" | "http" | "https" | "unix" => Ok(text.to_owned()),
        _ => Err(format!(
            "{scheme} is not supported: containers are registered in Consul's catalog only; write \
             consul://HOST:PORT, consul-tls://HOST:PORT or consul-unix://PATH"
        )),
    }
}

/// The arguments of the command with Registrator's flags in our own form: it writes them with one dash.
pub fn with_long_flags(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = arguments.iter().position(|it| it == "register");
    for argument in arguments.iter_mut().skip(command.unwrap_or(usize::MAX)) {
        if let Some(long) = long_flag(argument) {
            *argument = long;
        }
    }
    arguments
}

fn long_flag(argument: &OsStr) -> Option<OsString> {
    let flag = argument.to_str()?.strip_prefix('-')?;
    let name = flag.split('=').next().unwrap_or_default();
    REGISTRATORS
        .contains(&name)
        .then(|| format!("--{flag}").into())
}

/// The flags of Registrator.
const REGISTRATORS: [&str; 12] = [
    "ip",
    "internal",
    "tags",
    "ttl",
    "ttl-refresh",
    "resync",
    "deregister",
    "cleanup",
    "retry-attempts",
    "retry-interval",
    "explicit",
    "useIpFromLabel",
];
const DEFAULT_REGISTRY: &str = "127.0.0.1:8500";

#[cfg(test)]
mod tests;
