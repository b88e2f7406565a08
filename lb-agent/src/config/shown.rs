//! The resolved configuration as people and programs read it: each key, its value and where that comes from. Pure.
//!
//! What is not in force is not there: without TLS there are no keys of TLS. A secret is shown as `***`.

mod announce;
mod front;
mod sources;
mod value;

use clap::{Args as _, Command};
use serde::Serialize;
use serde_json::{Value, json};

use self::{
    announce::announce,
    front::{front, tls},
    sources::{consul, docker, registrar},
    value::{optional, path, text, texts, time},
};
use super::{Config, LogFormat, Metrics, Origin, Packet, RawConfig, RunArgs};

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
        ];
        rows.extend(announce(&self.announce));
        rows.push(row(
            "sources.file.path",
            &["file_path"],
            json!(self.sources.file),
        ));
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
            row(
                "admin.published",
                &["admin_published"],
                json!(admin.published),
            ),
            row(
                "admin.allow_uids",
                &["admin_allow_uids"],
                json!(admin.allow_uids),
            ),
        ]);
        rows.extend(metrics(&self.metrics));
        rows.extend([
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
            row(
                "limits.packet_services",
                &["limits_packet_services"],
                json!(self.limits.packet_services),
            ),
            row(
                "limits.packet_flows",
                &["limits_packet_flows"],
                json!(self.limits.packet_flows),
            ),
        ]);
        rows.extend(self.packet.iter().flat_map(packet));
        rows.extend(registrar(self.registrar.as_ref(), raw));
        rows
    }
}

fn metrics(metrics: &Metrics) -> Vec<Row> {
    let mut rows = vec![row(
        "metrics.per_backend",
        &["metrics_per_backend"],
        json!(metrics.per_backend),
    )];
    rows.extend(metrics.otlp.iter().flat_map(|otlp| {
        let compression = if otlp.compress { "gzip" } else { "none" };
        [
            row(
                "metrics.otlp.endpoint",
                &["otlp_endpoint"],
                text(&otlp.endpoint),
            ),
            row(
                "metrics.otlp.interval",
                &["otlp_interval"],
                time(otlp.interval),
            ),
            row(
                "metrics.otlp.timeout",
                &["otlp_timeout"],
                time(otlp.timeout),
            ),
            row(
                "metrics.otlp.headers_file",
                &["otlp_headers_file"],
                json!(otlp.headers_file),
            ),
            row(
                "metrics.otlp.ca_file",
                &["otlp_ca_file"],
                json!(otlp.ca_file),
            ),
            row(
                "metrics.otlp.compression",
                &["otlp_compression"],
                json!(compression),
            ),
        ]
    }));
    rows
}

fn packet(packet: &Packet) -> [Row; 7] {
    let (first, last) = (packet.ports.start(), packet.ports.end());
    let hosts: Vec<_> = packet.hosts.iter().collect();
    [
        row("packet.cards", &["packet_cards"], json!(packet.cards)),
        row(
            "packet.clients",
            &["packet_clients"],
            texts(&packet.clients),
        ),
        row("packet.xdp", &["packet_xdp"], json!(packet.xdp.as_str())),
        row("packet.source", &["packet_source"], optional(packet.source)),
        row(
            "packet.source6",
            &["packet_source6"],
            optional(packet.source6),
        ),
        row(
            "packet.ports",
            &["packet_ports"],
            text(format!("{first}-{last}")),
        ),
        row("packet.hosts", &["packet_hosts"], texts(&hosts)),
    ]
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

fn log_format(format: LogFormat) -> Value {
    match format {
        LogFormat::Auto => json!("auto"),
        LogFormat::Text => json!("text"),
        LogFormat::Json => json!("json"),
        LogFormat::Journald => json!("journald"),
    }
}

#[cfg(test)]
mod tests;
