//! The keys of those who tell of services, and of the registrar.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Row, row,
    value::{hidden, path, text, texts, time, typed},
};
use crate::{
    config::{Consul, ConsulToken, Docker, RawConfig},
    discover::consul::Warning,
    registrar::{self, Addressing, Deregister},
};

pub(super) fn consul(consul: &Consul) -> Vec<Row> {
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

pub(super) fn docker(docker: Option<&Docker>) -> Vec<Row> {
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

pub(super) fn registrar(config: Option<&registrar::Config>, raw: &RawConfig) -> Vec<Row> {
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
    let span = |span: Option<Duration>| span.map_or(Value::Null, time);
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

fn addressing(addressing: Addressing) -> Value {
    match addressing {
        Addressing::Internal => json!("internal"),
        Addressing::Published => json!("published"),
    }
}
