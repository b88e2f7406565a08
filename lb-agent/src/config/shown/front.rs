//! The keys of the front.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    Row, row,
    value::{texts, time, typed},
};
use crate::config::{Front, FrontTls, RawConfig};

pub(super) fn front(front: &Front, raw: &RawConfig) -> Vec<Row> {
    let (limits, log, forwarding) = (&front.limits, &front.access_log, &front.forwarding);
    let span = |span: Option<Duration>| span.map_or(Value::Null, time);
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

pub(super) fn tls(tls: &FrontTls, raw: &RawConfig) -> Vec<Row> {
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
        rows.extend([
            row(
                "front.tls.acme.directory",
                &["acme_directory"],
                json!(acme.directory),
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
