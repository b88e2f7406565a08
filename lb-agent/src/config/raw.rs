//! What somebody typed, with where it was typed. Nothing is judged here but the form of the file, which is in `file`.

mod file;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::RunArgs;

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
