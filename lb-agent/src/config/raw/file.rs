//! The TOML file: which key of which table is which field.

use std::{path::Path, sync::Arc};

use super::{Given, Origin, RawConfig, RawPair};
use crate::document::{Lined, Reader, Table};

impl RawConfig {
    /// What the file says.
    ///
    /// # Errors
    ///
    /// All its mistakes of form: syntax, unknown keys, wrong types.
    pub fn from_toml(path: &Path, text: &str) -> Result<Self, Vec<String>> {
        let shown = |mistakes: Vec<crate::document::Mistake>| -> Vec<String> {
            let place = |line| Origin::File(path.into(), line);
            let mistakes = mistakes.into_iter();
            mistakes
                .map(|it| format!("{}: {}", place(it.line), it.message))
                .collect()
        };
        let (reader, mut root) = Reader::open(text).map_err(shown)?;
        let mut keys = Keys {
            reader,
            path: path.into(),
        };
        let mut raw = Self {
            state_dir: keys.string(&mut root, "state_dir"),
            bpffs: keys.string(&mut root, "bpffs"),
            cgroup: keys.string(&mut root, "cgroup"),
            socket: keys.string(&mut root, "socket"),
            log_format: keys.string(&mut root, "log_format"),
            ..Self::default()
        };
        keys.table(&mut root, "vip", |keys, vip| {
            raw.vip_pool = keys.string(vip, "pool");
            raw.vip_pool6 = keys.string(vip, "pool6");
            raw.vip_datacenter = keys.string(vip, "datacenter");
            raw.vip_quarantine = keys.string(vip, "quarantine");
        });
        keys.table(&mut root, "announce", |keys, announce| {
            raw.announce_devices = keys.strings(announce, "devices");
            raw.announce_key = keys.string(announce, "key");
            raw.announce_owner = keys.string(announce, "owner");
            raw.announce_ttl = keys.string(announce, "ttl");
            raw.announce_hook = keys.string(announce, "hook");
        });
        keys.table(&mut root, "sources", |keys, sources| {
            keys.table(sources, "file", |keys, file| {
                raw.file_path = keys.string(file, "path");
                if raw.file_path.is_none() {
                    keys.reader.report(file.line, "[file] needs a `path`");
                }
            });
            keys.table(sources, "docker", |keys, docker| {
                raw.docker_enabled = keys.boolean(docker, "enabled");
                raw.docker_socket = keys.string(docker, "socket");
                raw.docker_networks = keys.strings(docker, "networks");
                raw.docker_addressing = keys.string(docker, "addressing");
                raw.docker_proc = keys.string(docker, "proc");
            });
            keys.table(sources, "consul", |keys, consul| {
                raw.consul = Some(keys.given(consul.line, ()));
                raw.consul_address = keys.one_or_more(consul, "address");
                raw.consul_ca_file = keys.string(consul, "ca_file");
                raw.consul_ca_path = keys.string(consul, "ca_path");
                raw.consul_cert_file = keys.string(consul, "cert_file");
                raw.consul_key_file = keys.string(consul, "key_file");
                raw.consul_tls_server_name = keys.string(consul, "tls_server_name");
                raw.consul_tls_verify = keys.boolean(consul, "tls_verify");
                raw.consul_token_file = keys.string(consul, "token_file");
                raw.consul_datacenter = keys.string(consul, "datacenter");
                raw.consul_warning = keys.string(consul, "warning");
                raw.consul_namespace = keys.string(consul, "namespace");
                raw.consul_partition = keys.string(consul, "partition");
                raw.consul_wait = keys.string(consul, "wait");
                raw.consul_max_stale = keys.string(consul, "max_stale");
                raw.consul_max_watches = keys.integer(consul, "max_watches");
            });
        });
        keys.table(&mut root, "front", |keys, front| {
            raw.front_enabled = keys.boolean(front, "enabled");
            raw.front_listen = keys.strings(front, "listen");
            raw.front_domains = keys.strings(front, "domains");
            raw.front_expose = keys.string(front, "expose");
            raw.front_no_route_status = keys.integer(front, "no_route_status");
            raw.front_no_backend_status = keys.integer(front, "no_backend_status");
            raw.front_grace = keys.string(front, "grace");
            raw.front_drain = keys.string(front, "drain");
            raw.front_retirement = keys.string(front, "retirement");
            raw.front_trusted_proxies = keys.strings(front, "trusted_proxies");
            raw.front_proxy_protocol = keys.strings(front, "proxy_protocol");
            raw.front_forwarded = keys.boolean(front, "forwarded");
            raw.front_request_id = keys.boolean(front, "request_id");
            raw.front_underscores = keys.boolean(front, "underscores");
            raw.front_sticky_key_file = keys.string(front, "sticky_key_file");
            keys.table(front, "tls", |keys, tls| {
                raw.tls = Some(keys.given(tls.line, ()));
                raw.tls_listen = keys.strings(tls, "listen");
                raw.tls_certificates = keys.pairs(tls, "certificates");
                raw.tls_folder = keys.string(tls, "folder");
                raw.tls_min_version = keys.string(tls, "min_version");
                raw.tls_redirect = keys.string(tls, "redirect");
                raw.tls_hsts = keys.string(tls, "hsts");
                keys.table(tls, "acme", |keys, acme| {
                    raw.acme = Some(keys.given(acme.line, ()));
                    raw.acme_directory = keys.string(acme, "directory");
                    raw.acme_ca_file = keys.string(acme, "ca_file");
                    raw.acme_contact = keys.strings(acme, "contact");
                    raw.acme_names = keys.strings(acme, "names");
                    raw.acme_accept_terms = keys.boolean(acme, "accept_terms");
                });
            });
            raw.front_auth = keys.files(front, "auth");
            raw.front_pages = keys.files(front, "pages");
            keys.table(front, "limits", |keys, limits| {
                raw.http_limits_first_byte = keys.string(limits, "first_byte");
                raw.http_limits_head = keys.string(limits, "head");
                raw.http_limits_keep_alive = keys.string(limits, "keep_alive");
                raw.http_limits_body_idle = keys.string(limits, "body_idle");
                raw.http_limits_write_stall = keys.string(limits, "write_stall");
                raw.http_limits_tunnel_idle = keys.string(limits, "tunnel_idle");
                raw.http_limits_request = keys.string(limits, "request");
                raw.http_limits_connect = keys.string(limits, "connect");
                raw.http_limits_response = keys.string(limits, "response");
                raw.http_limits_queue_time = keys.string(limits, "queue_time");
                raw.http_limits_max_body = keys.string(limits, "max_body");
                raw.http_limits_queue = keys.integer(limits, "queue");
                raw.http_limits_connections = keys.integer(limits, "connections");
                raw.http_limits_connections_per_client =
                    keys.integer(limits, "connections_per_client");
                raw.http_limits_backend_connections = keys.integer(limits, "backend_connections");
                raw.http_limits_streams = keys.integer(limits, "streams");
            });
            keys.table(front, "access_log", |keys, log| {
                raw.access_log_format = keys.string(log, "format");
                raw.access_log_file = keys.string(log, "file");
                raw.access_log_status = keys.strings(log, "status");
                raw.access_log_slower_than = keys.string(log, "slower_than");
                raw.access_log_retried = keys.boolean(log, "retried");
                raw.access_log_redact_query = keys.boolean(log, "redact_query");
                raw.access_log_headers = keys.strings(log, "headers");
                raw.access_log_redact = keys.strings(log, "redact");
            });
        });
        keys.table(&mut root, "admin", |keys, admin| {
            raw.admin_listen = keys.string(admin, "listen");
            raw.admin_token_file = keys.string(admin, "token_file");
            raw.admin_names = keys.strings(admin, "names");
            raw.admin_published = keys.string(admin, "published");
            raw.admin_allow_uids = keys.integers(admin, "allow_uids");
        });
        keys.table(&mut root, "metrics", |keys, metrics| {
            raw.metrics_per_backend = keys.boolean(metrics, "per_backend");
            keys.table(metrics, "otlp", |keys, otlp| {
                raw.otlp = Some(keys.given(otlp.line, ()));
                raw.otlp_endpoint = keys.string(otlp, "endpoint");
                raw.otlp_interval = keys.string(otlp, "interval");
                raw.otlp_timeout = keys.string(otlp, "timeout");
                raw.otlp_headers_file = keys.string(otlp, "headers_file");
                raw.otlp_ca_file = keys.string(otlp, "ca_file");
                raw.otlp_compression = keys.string(otlp, "compression");
            });
        });
        keys.table(&mut root, "dns", |keys, dns| {
            raw.dns_enabled = keys.boolean(dns, "enabled");
            raw.dns_listen = keys.strings(dns, "listen");
            raw.dns_upstreams = keys.strings(dns, "upstreams");
            raw.dns_consul = keys.string(dns, "consul");
            raw.dns_allow = keys.strings(dns, "allow");
            raw.dns_host = keys.boolean(dns, "host");
        });
        keys.table(&mut root, "health", |keys, health| {
            raw.health_interval = keys.string(health, "interval");
            raw.health_timeout = keys.string(health, "timeout");
            raw.health_rise = keys.integer(health, "rise");
            raw.health_fall = keys.integer(health, "fall");
        });
        keys.table(&mut root, "limits", |keys, limits| {
            raw.limits_services = keys.integer(limits, "services");
            raw.limits_backends = keys.integer(limits, "backends");
            raw.limits_packet_services = keys.integer(limits, "packet_services");
            raw.limits_packet_flows = keys.integer(limits, "packet_flows");
        });
        keys.table(&mut root, "packet", |keys, packet| {
            raw.packet = Some(keys.given(packet.line, ()));
            raw.packet_cards = keys.strings(packet, "cards");
            raw.packet_clients = keys.strings(packet, "clients");
            raw.packet_xdp = keys.string(packet, "xdp");
            raw.packet_source = keys.string(packet, "source");
            raw.packet_source6 = keys.string(packet, "source6");
            raw.packet_ports = keys.string(packet, "ports");
            raw.packet_hosts = keys.strings(packet, "hosts");
        });
        keys.table(&mut root, "registrar", |keys, registrar| {
            raw.registrar_enabled = keys.boolean(registrar, "enabled");
            raw.registrar_host = keys.string(registrar, "host");
            raw.registrar_internal = keys.boolean(registrar, "internal");
            raw.registrar_ip = keys.string(registrar, "ip");
            raw.registrar_address_label = keys.string(registrar, "ip_from_label");
            raw.registrar_tagged_addresses = keys.strings(registrar, "tagged_addresses");
            raw.registrar_networks = keys.strings(registrar, "networks");
            raw.registrar_tags = keys.strings(registrar, "tags");
            raw.registrar_explicit = keys.boolean(registrar, "explicit");
            raw.registrar_attributes = keys.strings(registrar, "attributes");
            raw.registrar_deregister = keys.string(registrar, "deregister");
            raw.registrar_deregister_on_exit = keys.boolean(registrar, "deregister_on_exit");
            raw.registrar_drain = keys.string(registrar, "drain");
            raw.registrar_resync = keys.string(registrar, "resync");
            raw.registrar_ttl = keys.string(registrar, "ttl");
            raw.registrar_ttl_refresh = keys.string(registrar, "ttl_refresh");
            raw.registrar_adopt = keys.strings(registrar, "adopt");
        });
        root.finish(&mut keys.reader);
        let mistakes = keys.reader.finish();
        if mistakes.is_empty() {
            Ok(raw)
        } else {
            Err(shown(mistakes))
        }
    }
}

/// Reads keys of one file.
struct Keys {
    reader: Reader,
    path: Arc<Path>,
}

impl Keys {
    fn given<T>(&self, line: usize, value: T) -> Given<T> {
        let origin = Origin::File(Arc::clone(&self.path), line);
        Given { origin, value }
    }

    fn lined<T>(&self, lined: Option<Lined<T>>) -> Option<Given<T>> {
        lined.map(|it| self.given(it.line, it.value))
    }

    fn string(&mut self, table: &mut Table<'_>, key: &'static str) -> Option<Given<String>> {
        let lined = table.string(&mut self.reader, key);
        self.lined(lined)
    }

    fn strings(&mut self, table: &mut Table<'_>, key: &'static str) -> Option<Given<Vec<String>>> {
        let lined = table.strings(&mut self.reader, key);
        self.lined(lined)
    }

    fn one_or_more(
        &mut self,
        table: &mut Table<'_>,
        key: &'static str,
    ) -> Option<Given<Vec<String>>> {
        let lined = table.one_or_more(&mut self.reader, key);
        self.lined(lined)
    }

    fn boolean(&mut self, table: &mut Table<'_>, key: &'static str) -> Option<Given<bool>> {
        let lined = table.boolean(&mut self.reader, key);
        self.lined(lined)
    }

    fn integers(&mut self, table: &mut Table<'_>, key: &'static str) -> Option<Given<Vec<i64>>> {
        let lined = table.integers(&mut self.reader, key);
        self.lined(lined)
    }

    fn integer(&mut self, table: &mut Table<'_>, key: &'static str) -> Option<Given<i64>> {
        let lined = table.integer(&mut self.reader, key);
        self.lined(lined)
    }

    /// The files in the table `[key]`, by their names.
    fn files(
        &mut self,
        outer: &mut Table<'_>,
        key: &'static str,
    ) -> Option<Given<Vec<(String, String)>>> {
        let table = outer.table(&mut self.reader, key)?;
        let line = table.line;
        let files = table.texts(&mut self.reader).into_iter();
        let files = files.map(|(name, file)| (name, file.value)).collect();
        Some(self.given(line, files))
    }

    /// The certificates and keys in the tables `[[key]]`.
    fn pairs(&mut self, table: &mut Table<'_>, key: &'static str) -> Option<Given<Vec<RawPair>>> {
        let tables = table.tables(&mut self.reader, key);
        let line = tables.first()?.line;
        let mut pairs = Vec::new();
        for mut table in tables {
            let is_whole = table.has("certificate");
            let pair = RawPair {
                certificate: self.string(&mut table, "certificate"),
                key: self.string(&mut table, "key"),
            };
            if !is_whole {
                let message = format!("[[{key}]] needs a `certificate`");
                self.reader.report(table.line, message);
            }
            table.finish(&mut self.reader);
            pairs.push(pair);
        }
        Some(self.given(line, pairs))
    }

    /// Reads the table `[key]` with `read`, if it is there.
    fn table<'t>(
        &mut self,
        outer: &mut Table<'t>,
        key: &'static str,
        read: impl FnOnce(&mut Self, &mut Table<'t>),
    ) {
        if let Some(mut table) = outer.table(&mut self.reader, key) {
            read(self, &mut table);
            table.finish(&mut self.reader);
        }
    }
}
