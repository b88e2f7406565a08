//! The resolved configuration as people and programs read it: each key, its value and where that comes from. Pure.
//!
//! What is not in force is not there: without TLS there are no keys of TLS. A secret is shown as `***`.

use std::{collections::BTreeMap, fmt::Display, path::PathBuf, time::Duration};

use clap::{Args as _, Command};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Config, Consul, ConsulToken, Docker, Front, FrontTls, Given, LogFormat, Origin, RawConfig,
    RunArgs,
};
use crate::{
    discover::consul::{Address, Warning},
    registrar::{self, Addressing, Deregister},
};

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// As a path in the file, such as `vip.pool`.
    pub key: &'static str,
    /// What holds; `null` where nothing does, or where what is built in depends on the host.
    pub value: Value,
    /// A flag, a variable, `FILE:LINE`, or `default`.
    pub origin: String,
}

/// Whether this process was given `flag` itself, and not the variable that stands for it.
pub fn is_typed(flag: &str) -> bool {
    std::env::args_os().any(|argument| {
        let argument = argument.to_string_lossy();
        let rest = argument.strip_prefix(flag);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

impl Config {
    /// Every key that holds, made of what `raw` says. `is_typed` tells a flag from its variable.
    pub fn settings(&self, raw: &RawConfig, is_typed: &dyn Fn(&str) -> bool) -> Vec<Setting> {
        let command = RunArgs::augment_args(Command::new("run"));
        let origins = raw.origins();
        let shown = |row: Row| {
            let mut given = row.fields.iter().filter_map(|it| *origins.get(it)?);
            Setting {
                key: row.key,
                value: row.value,
                origin: given
                    .next()
                    .map_or("default".to_owned(), |it| origin(it, is_typed, &command)),
            }
        };
        self.rows(raw).into_iter().map(shown).collect()
    }

    fn rows(&self, raw: &RawConfig) -> Vec<Row> {
        let mut rows = vec![
            row("state_dir", &["state_dir"], path(&self.state_dir)),
            row("bpffs", &["bpffs"], path(&self.bpffs)),
            row("cgroup", &["cgroup"], path(&self.cgroup)),
            row("socket", &["socket"], path(&self.socket)),
            row("log_format", &["log_format"], log_format(self.log_format)),
            row("vip.pool", &["vip_pool"], text(self.vip.pool)),
            row("vip.pool6", &["vip_pool6"], text(self.vip.pool6)),
            row(
                "vip.datacenter",
                &["vip_datacenter", "consul_datacenter"],
                json!(self.vip.datacenter),
            ),
            row(
                "vip.quarantine",
                &["vip_quarantine"],
                time(self.vip.quarantine),
            ),
            row(
                "sources.file.path",
                &["file_path"],
                json!(self.sources.file),
            ),
        ];
        rows.extend(self.sources.consul.iter().flat_map(consul));
        rows.extend(docker(self.sources.docker.as_ref()));
        rows.extend(front(&self.front, raw));
        rows.extend(self.front.tls.iter().flat_map(|it| tls(it, raw)));
        let (admin, dns, health) = (&self.admin, &self.dns, &self.health);
        rows.extend([
            row("admin.listen", &["admin_listen"], text(admin.listen)),
            row(
                "admin.token_file",
                &["admin_token_file"],
                json!(admin.token_file),
            ),
            row("admin.names", &["admin_names"], json!(admin.names)),
            row("dns.enabled", &["dns_enabled"], json!(dns.enabled)),
            row("dns.listen", &["dns_listen"], texts(&dns.listen)),
            row(
                "dns.upstreams",
                &["dns_upstreams"],
                dns.upstreams.as_ref().map_or(Value::Null, |it| texts(it)),
            ),
            row("dns.consul", &["dns_consul"], optional(dns.consul.as_ref())),
            row("dns.allow", &["dns_allow"], texts(&dns.allow)),
            row("dns.host", &["dns_host"], json!(dns.host)),
            row(
                "health.interval",
                &["health_interval"],
                time(health.interval),
            ),
            row("health.timeout", &["health_timeout"], time(health.timeout)),
            row("health.rise", &["health_rise"], json!(health.rise)),
            row("health.fall", &["health_fall"], json!(health.fall)),
            row(
                "limits.services",
                &["limits_services"],
                json!(self.limits.services),
            ),
            row(
                "limits.backends",
                &["limits_backends"],
                json!(self.limits.backends),
            ),
        ]);
        rows.extend(registrar(self.registrar.as_ref(), raw));
        rows
    }
}

struct Row {
    key: &'static str,
    /// Those of [`RawConfig`] that make it; the first that was typed is the origin.
    fields: &'static [&'static str],
    value: Value,
}

fn row(key: &'static str, fields: &'static [&'static str], value: Value) -> Row {
    Row { key, fields, value }
}

fn origin(origin: &Origin, is_typed: &dyn Fn(&str) -> bool, command: &Command) -> String {
    let Origin::Flag(flag) = origin else {
        return origin.to_string();
    };
    let mut all = command.get_arguments();
    let argument = all.find(|it| flag.strip_prefix("--") == it.get_long());
    let variable = argument.and_then(clap::Arg::get_env);
    match variable {
        Some(variable) if !is_typed(flag) => variable.to_string_lossy().into_owned(),
        _ => (*flag).to_owned(),
    }
}

fn consul(consul: &Consul) -> Vec<Row> {
    let tls = &consul.tls;
    let (token, token_file) = match &consul.token {
        None => (Value::Null, Value::Null),
        Some(ConsulToken::Value(_)) => (hidden(), Value::Null),
        Some(ConsulToken::File(file)) => (Value::Null, path(file)),
    };
    let warning = match consul.warning {
        Warning::Exclude => "exclude",
        Warning::Include => "include",
    };
    vec![
        row(
            "sources.consul.address",
            &["consul_address", "consul_ssl"],
            texts(&consul.addresses),
        ),
        row(
            "sources.consul.ca_file",
            &["consul_ca_file"],
            json!(tls.ca_file),
        ),
        row(
            "sources.consul.ca_path",
            &["consul_ca_path"],
            json!(tls.ca_path),
        ),
        row(
            "sources.consul.cert_file",
            &["consul_cert_file"],
            json!(tls.cert_file),
        ),
        row(
            "sources.consul.key_file",
            &["consul_key_file"],
            json!(tls.key_file),
        ),
        row(
            "sources.consul.tls_server_name",
            &["consul_tls_server_name"],
            json!(tls.server_name),
        ),
        row(
            "sources.consul.tls_verify",
            &["consul_tls_verify", "consul_ssl_verify"],
            json!(!tls.trust_anybody),
        ),
        row(
            "sources.consul.auth",
            &["consul_auth"],
            consul.auth.as_ref().map_or(Value::Null, |_| hidden()),
        ),
        row("sources.consul.token", &["consul_token"], token),
        row(
            "sources.consul.token_file",
            &["consul_token_file"],
            token_file,
        ),
        row(
            "sources.consul.datacenter",
            &["consul_datacenter"],
            json!(consul.datacenter),
        ),
        row(
            "sources.consul.warning",
            &["consul_warning"],
            json!(warning),
        ),
        row(
            "sources.consul.namespace",
            &["consul_namespace"],
            json!(consul.namespace),
        ),
        row(
            "sources.consul.partition",
            &["consul_partition"],
            json!(consul.partition),
        ),
        row("sources.consul.wait", &["consul_wait"], time(consul.wait)),
        row(
            "sources.consul.max_stale",
            &["consul_max_stale"],
            time(consul.max_stale),
        ),
        row(
            "sources.consul.max_watches",
            &["consul_max_watches"],
            json!(consul.max_watches),
        ),
    ]
}

fn docker(docker: Option<&Docker>) -> Vec<Row> {
    let enabled = docker.is_some_and(|it| it.source.is_some());
    let mut rows = vec![
        row(
            "sources.docker.enabled",
            &["docker_enabled"],
            json!(enabled),
        ),
        row(
            "sources.docker.socket",
            &["docker_socket"],
            docker.map_or(Value::Null, |it| text(&it.address)),
        ),
    ];
    if let Some(docker) = docker {
        rows.push(row(
            "sources.docker.proc",
            &["docker_proc"],
            path(&docker.proc),
        ));
        rows.extend(docker.source.iter().flat_map(|source| {
            [
                row(
                    "sources.docker.networks",
                    &["docker_networks"],
                    json!(source.networks),
                ),
                row(
                    "sources.docker.addressing",
                    &["docker_addressing"],
                    addressing(source.addressing),
                ),
            ]
        }));
    }
    rows
}

fn front(front: &Front, raw: &RawConfig) -> Vec<Row> {
    let (limits, log, forwarding) = (&front.limits, &front.access_log, &front.forwarding);
    let span = |time: Option<Duration>| time.map_or(Value::Null, self::time);
    let pages: BTreeMap<_, _> = crate::front::pages::For::ALL
        .into_iter()
        .filter_map(|(what, name)| Some((name, front.pages.get(&what)?)))
        .collect();
    vec![
        row("front.enabled", &["front_enabled"], json!(front.enabled)),
        row("front.listen", &["front_listen"], texts(&front.listen)),
        row("front.domains", &["front_domains"], json!(front.domains)),
        row("front.expose", &["front_expose"], json!(front.expose)),
        row(
            "front.no_route_status",
            &["front_no_route_status"],
            json!(front.no_route_status),
        ),
        row(
            "front.no_backend_status",
            &["front_no_backend_status"],
            json!(front.no_backend_status),
        ),
        row("front.pages", &["front_pages"], json!(pages)),
        row("front.grace", &["front_grace"], time(front.grace)),
        row("front.drain", &["front_drain"], time(front.drain)),
        row(
            "front.retirement",
            &["front_retirement"],
            time(front.retirement),
        ),
        row(
            "front.trusted_proxies",
            &["front_trusted_proxies"],
            texts(&forwarding.trusted_proxies),
        ),
        row(
            "front.proxy_protocol",
            &["front_proxy_protocol"],
            texts(&forwarding.proxy_protocol),
        ),
        row(
            "front.forwarded",
            &["front_forwarded"],
            json!(forwarding.forwarded),
        ),
        row(
            "front.request_id",
            &["front_request_id"],
            json!(forwarding.request_id),
        ),
        row(
            "front.underscores",
            &["front_underscores"],
            json!(forwarding.underscores),
        ),
        row(
            "front.sticky_key_file",
            &["front_sticky_key_file"],
            json!(front.sticky_key_file),
        ),
        row("front.auth", &["front_auth"], json!(front.auth)),
        row(
            "front.limits.first_byte",
            &["http_limits_first_byte"],
            span(limits.first_byte),
        ),
        row(
            "front.limits.head",
            &["http_limits_head"],
            span(limits.head),
        ),
        row(
            "front.limits.keep_alive",
            &["http_limits_keep_alive"],
            span(limits.keep_alive),
        ),
        row(
            "front.limits.body_idle",
            &["http_limits_body_idle"],
            span(limits.body_idle),
        ),
        row(
            "front.limits.write_stall",
            &["http_limits_write_stall"],
            span(limits.write_stall),
        ),
        row(
            "front.limits.tunnel_idle",
            &["http_limits_tunnel_idle"],
            span(limits.tunnel_idle),
        ),
        row(
            "front.limits.request",
            &["http_limits_request"],
            span(limits.request),
        ),
        row(
            "front.limits.connect",
            &["http_limits_connect"],
            span(limits.connect),
        ),
        row(
            "front.limits.response",
            &["http_limits_response"],
            span(limits.response),
        ),
        row(
            "front.limits.queue_time",
            &["http_limits_queue_time"],
            span(limits.queue_time),
        ),
        row(
            "front.limits.max_body",
            &["http_limits_max_body"],
            json!(limits.max_body),
        ),
        row(
            "front.limits.queue",
            &["http_limits_queue"],
            json!(limits.queue),
        ),
        row(
            "front.limits.connections",
            &["http_limits_connections"],
            json!(limits.connections),
        ),
        row(
            "front.limits.connections_per_client",
            &["http_limits_connections_per_client"],
            json!(limits.connections_per_client),
        ),
        row(
            "front.limits.backend_connections",
            &["http_limits_backend_connections"],
            json!(limits.backend_connections),
        ),
        row(
            "front.limits.streams",
            &["http_limits_streams"],
            json!(limits.streams),
        ),
        row(
            "front.access_log.format",
            &["access_log_format"],
            json!(log.format),
        ),
        row(
            "front.access_log.file",
            &["access_log_file"],
            json!(front.access_log_file),
        ),
        row(
            "front.access_log.status",
            &["access_log_status"],
            typed(&raw.access_log_status),
        ),
        row(
            "front.access_log.slower_than",
            &["access_log_slower_than"],
            span(log.slower_than),
        ),
        row(
            "front.access_log.retried",
            &["access_log_retried"],
            json!(log.retried),
        ),
        row(
            "front.access_log.redact_query",
            &["access_log_redact_query"],
            json!(log.redact_query),
        ),
        row(
            "front.access_log.headers",
            &["access_log_headers"],
            json!(log.headers),
        ),
        row(
            "front.access_log.redact",
            &["access_log_redact"],
            json!(log.redact),
        ),
    ]
}

fn tls(tls: &FrontTls, raw: &RawConfig) -> Vec<Row> {
    let pairs = tls.files.pairs.iter();
    let pairs: Vec<_> = pairs
        .map(|it| json!({ "certificate": it.certificate, "key": it.key }))
        .collect();
    let version = if tls.files.only_1_3 { "1.3" } else { "1.2" };
    let mut rows = vec![
        row("front.tls.listen", &["tls_listen"], texts(&tls.listen)),
        row(
            "front.tls.certificates",
            &["tls_certificates"],
            json!(pairs),
        ),
        row("front.tls.folder", &["tls_folder"], json!(tls.files.folder)),
        row(
            "front.tls.min_version",
            &["tls_min_version"],
            json!(version),
        ),
        row(
            "front.tls.redirect",
            &["tls_redirect"],
            typed(&raw.tls_redirect),
        ),
        row("front.tls.hsts", &["tls_hsts"], typed(&raw.tls_hsts)),
    ];
    if let Some(acme) = &tls.acme {
        // It may hold a password, as any URL.
        let directory = Address::redacted(&acme.directory);
        rows.extend([
            row(
                "front.tls.acme.directory",
                &["acme_directory"],
                json!(directory),
            ),
            row(
                "front.tls.acme.ca_file",
                &["acme_ca_file"],
                json!(acme.ca_file),
            ),
            row(
                "front.tls.acme.contact",
                &["acme_contact"],
                json!(acme.contact),
            ),
            row("front.tls.acme.names", &["acme_names"], json!(acme.names)),
            row(
                "front.tls.acme.accept_terms",
                &["acme_accept_terms"],
                json!(true),
            ),
        ]);
    }
    rows
}

fn registrar(config: Option<&registrar::Config>, raw: &RawConfig) -> Vec<Row> {
    let enabled = row(
        "registrar.enabled",
        &["registrar_enabled"],
        json!(config.is_some()),
    );
    let Some(config) = config else {
        return vec![enabled];
    };
    let settings = &config.settings;
    let internal = settings.addressing == Addressing::Internal;
    let deregister = match config.deregister {
        Deregister::Always => "always",
        Deregister::OnSuccess => "on-success",
    };
    let span = |time: Option<Duration>| time.map_or(Value::Null, self::time);
    vec![
        enabled,
        row("registrar.host", &["registrar_host"], json!(config.host)),
        row(
            "registrar.internal",
            &["registrar_internal"],
            json!(internal),
        ),
        row("registrar.ip", &["registrar_ip"], json!(settings.ip)),
        row(
            "registrar.ip_from_label",
            &["registrar_address_label"],
            json!(settings.address_label),
        ),
        row(
            "registrar.tagged_addresses",
            &["registrar_tagged_addresses"],
            json!(settings.tagged),
        ),
        row(
            "registrar.networks",
            &["registrar_networks"],
            json!(settings.networks),
        ),
        row(
            "registrar.tags",
            &["registrar_tags"],
            typed(&raw.registrar_tags),
        ),
        row(
            "registrar.explicit",
            &["registrar_explicit"],
            json!(settings.explicit),
        ),
        row(
            "registrar.attributes",
            &["registrar_attributes"],
            json!(settings.attributes),
        ),
        row(
            "registrar.deregister",
            &["registrar_deregister"],
            json!(deregister),
        ),
        row(
            "registrar.deregister_on_exit",
            &["registrar_deregister_on_exit"],
            json!(config.deregister_on_exit),
        ),
        row("registrar.drain", &["registrar_drain"], time(config.drain)),
        row(
            "registrar.resync",
            &["registrar_resync"],
            time(config.resync),
        ),
        row("registrar.ttl", &["registrar_ttl"], span(settings.ttl)),
        row(
            "registrar.ttl_refresh",
            &["registrar_ttl_refresh"],
            span(config.ttl_refresh),
        ),
        row("registrar.adopt", &["registrar_adopt"], json!(config.adopt)),
    ]
}

fn log_format(format: LogFormat) -> Value {
    match format {
        LogFormat::Text => json!("text"),
        LogFormat::Json => json!("json"),
    }
}

fn addressing(addressing: Addressing) -> Value {
    match addressing {
        Addressing::Internal => json!("internal"),
        Addressing::Published => json!("published"),
    }
}

fn hidden() -> Value {
    json!("***")
}

/// As it was written, where what it means has no shorter form.
fn typed<T: Serialize>(given: &Option<Given<T>>) -> Value {
    given.as_ref().map_or(Value::Null, |it| json!(it.value))
}

#[expect(clippy::ptr_arg, reason = "all that is given is of this type")]
fn path(path: &PathBuf) -> Value {
    json!(path)
}

fn text(value: impl Display) -> Value {
    json!(value.to_string())
}

fn optional(value: Option<impl Display>) -> Value {
    value.map_or(Value::Null, text)
}

fn texts(values: &[impl Display]) -> Value {
    values.iter().map(ToString::to_string).collect()
}

/// As it can be written in the file.
fn time(time: Duration) -> Value {
    let millis = time.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let whole = units.into_iter().find(|(unit, _)| millis % unit == 0);
    match whole {
        _ if millis == 0 => json!("0"),
        Some((unit, name)) => json!(format!("{}{name}", millis / unit)),
        None => json!(format!("{millis}ms")),
    }
}

#[cfg(test)]
mod tests;
