//! What somebody typed, with where it was typed. Nothing is judged here but the form of the file.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::RunArgs;
use crate::document::{Lined, Reader, Table};

/// A value and where it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// Where.
    pub origin: Origin,
    /// What.
    pub value: T,
}

/// Where a value was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag, or the variable that stands for it.
    Flag(&'static str),
    /// A variable that has no flag.
    Variable(&'static str),
    /// A line of the file.
    File(Arc<Path>, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawPair {
    /// The file of the certificate.
    pub certificate: Option<Given<String>>,
    /// That of the key, if it is another one.
    pub key: Option<Given<String>>,
}

/// Defines [`RawConfig`] with `over`, so that a field cannot be forgotten in one of the two.
macro_rules! raw_config {
    ($($name:ident: $kind:ty,)*) => {
        /// Everything that can be typed; a key of the file is a field, `_` between its table and itself.
        #[expect(missing_docs, reason = "the fields are the keys, which Config describes")]
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct RawConfig {
            $(pub $name: Option<Given<$kind>>,)*
        }

        impl RawConfig {
            /// This one where it says something, and `lower` elsewhere.
            pub fn over(self, lower: Self) -> Self {
                Self { $($name: self.$name.or(lower.$name),)* }
            }

            /// Every field and where it was typed, if it was.
            pub(super) fn origins(&self) -> BTreeMap<&'static str, Option<&Origin>> {
                [$((stringify!($name), self.$name.as_ref().map(|it| &it.origin)),)*].into()
            }
        }
    };
}

raw_config! {
    state_dir: String,
    bpffs: String,
    cgroup: String,
    socket: String,
    log_format: String,
    vip_pool: String,
    vip_pool6: String,
    vip_datacenter: String,
    vip_quarantine: String,
    announce_devices: Vec<String>,
    announce_key: String,
    announce_owner: String,
    announce_ttl: String,
    announce_hook: String,
    file_path: String,
    consul: (),
    consul_address: Vec<String>,
    consul_ssl: String,
    consul_ca_file: String,
    consul_ca_path: String,
    consul_cert_file: String,
    consul_key_file: String,
    consul_tls_server_name: String,
    consul_tls_verify: bool,
    consul_ssl_verify: String,
    consul_auth: String,
    consul_token: String,
    consul_token_file: String,
    consul_datacenter: String,
    consul_warning: String,
    consul_namespace: String,
    consul_partition: String,
    consul_wait: String,
    consul_max_stale: String,
    consul_max_watches: i64,
    docker_enabled: bool,
    docker_socket: String,
    docker_networks: Vec<String>,
    docker_addressing: String,
    docker_proc: String,
    front_enabled: bool,
    front_listen: Vec<String>,
    front_domains: Vec<String>,
    front_expose: String,
    front_no_route_status: i64,
    front_no_backend_status: i64,
    front_pages: Vec<(String, String)>,
    front_grace: String,
    front_drain: String,
    front_retirement: String,
    front_trusted_proxies: Vec<String>,
    front_proxy_protocol: Vec<String>,
    front_forwarded: bool,
    front_request_id: bool,
    front_underscores: bool,
    front_sticky_key_file: String,
    tls: (),
    tls_listen: Vec<String>,
    tls_certificates: Vec<RawPair>,
    tls_folder: String,
    tls_min_version: String,
    tls_redirect: String,
    tls_hsts: String,
    acme: (),
    acme_directory: String,
    acme_ca_file: String,
    acme_contact: Vec<String>,
    acme_names: Vec<String>,
    acme_accept_terms: bool,
    front_auth: Vec<(String, String)>,
    http_limits_first_byte: String,
    http_limits_head: String,
    http_limits_keep_alive: String,
    http_limits_body_idle: String,
    http_limits_write_stall: String,
    http_limits_tunnel_idle: String,
    http_limits_request: String,
    http_limits_connect: String,
    http_limits_response: String,
    http_limits_queue_time: String,
    http_limits_max_body: String,
    http_limits_queue: i64,
    http_limits_connections: i64,
    http_limits_connections_per_client: i64,
    http_limits_backend_connections: i64,
    http_limits_streams: i64,
    access_log_format: String,
    access_log_file: String,
    access_log_status: Vec<String>,
    access_log_slower_than: String,
    access_log_retried: bool,
    access_log_redact_query: bool,
    access_log_headers: Vec<String>,
    access_log_redact: Vec<String>,
    admin_listen: String,
    admin_token_file: String,
    admin_names: Vec<String>,
    admin_published: String,
    admin_allow_uids: Vec<i64>,
    metrics_per_backend: bool,
    otlp: (),
    otlp_endpoint: String,
    otlp_interval: String,
    otlp_timeout: String,
    otlp_headers_file: String,
    otlp_ca_file: String,
    otlp_compression: String,
    dns_enabled: bool,
    dns_listen: Vec<String>,
    dns_upstreams: Vec<String>,
    dns_consul: String,
    dns_allow: Vec<String>,
    dns_host: bool,
    health_interval: String,
    health_timeout: String,
    health_rise: i64,
    health_fall: i64,
    limits_services: i64,
    limits_backends: i64,
    limits_packet_services: i64,
    limits_packet_flows: i64,
    packet: (),
    packet_cards: Vec<String>,
    packet_clients: Vec<String>,
    packet_xdp: String,
    packet_source: String,
    packet_source6: String,
    packet_ports: String,
    packet_hosts: Vec<String>,
    registrar_enabled: bool,
    registrar_host: String,
    registrar_internal: bool,
    registrar_ip: String,
    registrar_address_label: String,
    registrar_tagged_addresses: Vec<String>,
    registrar_networks: Vec<String>,
    registrar_tags: Vec<String>,
    registrar_explicit: bool,
    registrar_attributes: Vec<String>,
    registrar_deregister: String,
    registrar_deregister_on_exit: bool,
    registrar_drain: String,
    registrar_resync: String,
    registrar_ttl: String,
    registrar_ttl_refresh: String,
    registrar_adopt: Vec<String>,
}

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
            if let Some(auth) = front.table(&mut keys.reader, "auth") {
                let line = auth.line;
                let lists = auth.texts(&mut keys.reader).into_iter();
                let lists = lists.map(|(name, file)| (name, file.value)).collect();
                raw.front_auth = Some(keys.given(line, lists));
            }
            if let Some(pages) = front.table(&mut keys.reader, "pages") {
                let line = pages.line;
                let files = pages.texts(&mut keys.reader).into_iter();
                let files = files.map(|(name, file)| (name, file.value)).collect();
                raw.front_pages = Some(keys.given(line, files));
            }
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

    /// What the flags say, and the `LB_*` variables that stand for them.
    pub fn from_args(args: &RunArgs) -> Self {
        let text = |flag, value: &Option<String>| {
            let origin = Origin::Flag(flag);
            value.clone().map(|value| Given { origin, value })
        };
        let path = |flag, value: &Option<PathBuf>| {
            let value = value.as_ref().map(|it| it.to_string_lossy().into_owned());
            text(flag, &value)
        };
        let list = |flag, value: &[String]| {
            let origin = Origin::Flag(flag);
            let value = value.to_vec();
            (!value.is_empty()).then_some(Given { origin, value })
        };
        Self {
            state_dir: path("--state-dir", &args.state_dir),
            bpffs: path("--bpffs", &args.bpffs),
            cgroup: path("--cgroup", &args.cgroup),
            socket: path("--socket", &args.socket),
            log_format: text("--log-format", &args.log_format),
            vip_pool: text("--pool", &args.pool),
            vip_pool6: text("--pool6", &args.pool6),
            vip_datacenter: text("--datacenter", &args.datacenter),
            file_path: path("--services", &args.services),
            consul_address: list("--consul", &args.consul),
            docker_socket: text("--docker", &args.docker),
            front_listen: list("--front", &args.front),
            front_domains: list("--domain", &args.domain),
            front_trusted_proxies: list("--trusted-proxy", &args.trusted_proxy),
            access_log_format: text("--access-log", &args.access_log),
            admin_listen: text("--admin", &args.admin),
            admin_names: list("--admin-name", &args.admin_name),
            admin_published: text("--admin-published", &args.admin_published),
            dns_listen: list("--dns", &args.dns),
            packet_cards: list("--packet-card", &args.packet_card),
            packet_clients: list("--packet-client", &args.packet_client),
            registrar_enabled: args.registrar.map(|value| Given {
                origin: Origin::Flag("--registrar"),
                value,
            }),
            ..Self::default()
        }
    }

    /// What the variables say that every tool of Consul or Docker reads. They rank below everything that is ours.
    pub fn from_consul_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let read = |name: &'static str| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            let origin = Origin::Variable(name);
            Some(Given { origin, value })
        };
        let addresses = |given: Given<String>| Given {
            origin: given.origin,
            value: given.value.split(',').map(str::to_owned).collect(),
        };
        Self {
            consul_address: read("CONSUL_HTTP_ADDR").map(addresses),
            consul_ssl: read("CONSUL_HTTP_SSL"),
            consul_ca_file: read("CONSUL_CACERT"),
            consul_ca_path: read("CONSUL_CAPATH"),
            consul_cert_file: read("CONSUL_CLIENT_CERT"),
            consul_key_file: read("CONSUL_CLIENT_KEY"),
            consul_tls_server_name: read("CONSUL_TLS_SERVER_NAME"),
            consul_ssl_verify: read("CONSUL_HTTP_SSL_VERIFY"),
            consul_auth: read("CONSUL_HTTP_AUTH"),
            consul_token: read("CONSUL_HTTP_TOKEN"),
            consul_token_file: read("CONSUL_HTTP_TOKEN_FILE"),
            consul_namespace: read("CONSUL_NAMESPACE"),
            consul_partition: read("CONSUL_PARTITION"),
            docker_socket: read("DOCKER_HOST"),
            ..Self::default()
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
