//! Every setting of `lb-agent run`: where it is typed, what it takes, and what it is for. `docs/configuration.md` is made from
//! this; the tests compare it with what the file, the flags and the environment are read for, and with what holds where
//! nothing is typed.

/// The settings in one table of the file; those outside of all tables have no name.
#[derive(Debug)]
pub struct Section {
    /// Without brackets.
    pub table: &'static str,
    /// What is in it.
    pub settings: &'static [Setting],
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the table; empty if the file has none.
    pub key: &'static str,
    /// Its flag, with what follows it.
    pub flag: Option<&'static str>,
    /// The variables that say the same, those that win first.
    pub variables: &'static [&'static str],
    /// What it takes, in Markdown.
    pub values: &'static str,
    /// What holds where it is not typed.
    pub default: Otherwise,
    /// What it is for, in Markdown.
    pub does: &'static str,
}

/// What holds where a setting is not typed.
#[derive(Debug)]
pub enum Otherwise {
    /// This, as it would be typed into the file.
    Value(&'static str),
    /// What these words say, in Markdown.
    Words(&'static str),
}

use Otherwise::{Value, Words};

/// All settings, in the order of the document.
pub const SECTIONS: &[Section] = &[
    Section { table: "", settings: &[
        setting("", "a file", Words("`/etc/lb/lb.toml` if it is there"), "the file that the keys are in").flag("--config FILE").variables(&["LB_CONFIG"]),
        setting("state_dir", "a directory", Value("\"/var/lib/lb\""), "holds what outlives the agent").flag("--state-dir DIR").variables(&["LB_STATE_DIR"]),
        setting("bpffs", "a directory", Value("\"/sys/fs/bpf\""), "a bpffs, or where one is mounted").flag("--bpffs DIR").variables(&["LB_BPFFS"]),
        setting("cgroup", "a directory of the cgroup v2 tree", Words("the root of the tree, from `/proc/self/mountinfo`"), "the processes that are balanced").flag("--cgroup DIR").variables(&["LB_CGROUP"]),
        setting("socket", "a path", Value("\"/run/lb/admin.sock\""), "where the other commands ask").flag("--socket PATH").variables(&["LB_SOCKET"]),
        setting("log_format", "`auto`, `text`, `json`, `journald`", Value("\"auto\""), "how the log is written; `auto` is `journald` where standard error is systemd's journal, else `text`").flag("--log-format FORMAT").variables(&["LB_LOG_FORMAT"]),
        setting("", "a filter, such as `debug` or `lb_agent::dns=debug`", Words("`info`"), "what is logged").variables(&["LB_LOG"]),
    ] },
    Section { table: "vip", settings: &[
        setting("pool", "an IPv4 network of /8 to /28", Value("\"198.18.0.0/16\""), "where VIPs come from").flag("--pool CIDR").variables(&["LB_POOL"]),
        setting("pool6", "an IPv6 network of /64 to /96", Value("\"fd62:6c62:76:1::/64\""), "where their IPv6 twins come from").flag("--pool6 CIDR").variables(&["LB_POOL6"]),
        setting("datacenter", "a name", Words("that of `[sources.consul]`, else `dc1`"), "hosts with the same one give a service the same VIP").flag("--datacenter NAME").variables(&["LB_DATACENTER"]),
        setting("quarantine", "up to a week", Value("\"10m\""), "how long the VIP of a service that left is kept from others"),
    ] },
    Section { table: "announce", settings: &[
        setting("devices", "names of network devices", Value("[]"), "on whose networks this host may [answer for the VIPs](announce.md)"),
        setting("key", "a key of Consul's store", Value("\"lb-agent/announce\""), "hosts with the same one elect one of them: give each network segment its own"),
        setting("owner", "`elected`, `always`", Value("\"elected\""), "`always` makes this host answer without asking the others"),
        setting("ttl", "1s to 1h; Consul takes 10s and more", Value("\"10s\""), "how long a host that is silent stays the one that answers; Consul waits up to twice as long"),
        setting("hook", "a program", Words("none"), "is told which VIPs this host takes and releases"),
    ] },
    Section { table: "sources.file", settings: &[
        setting("path", "a file", Words("none"), "the services file").flag("--services FILE").variables(&["LB_SERVICES"]),
    ] },
    Section { table: "sources.consul", settings: &[
        setting("address", "an address, or a list of them", Words("`127.0.0.1:8500` if there is a table `[sources.consul]`, else no Consul"), "the Consul agent, or several of one cluster").flag("--consul ADDR").variables(&["LB_CONSUL_ADDR", "CONSUL_HTTP_ADDR"]),
        setting("", "`true`, `false`", Words("`false`"), "reaches the `CONSUL_HTTP_ADDR` over TLS").variables(&["CONSUL_HTTP_SSL"]),
        setting("ca_file", "a file", Words("the system's authorities"), "whom to trust as Consul's authority").variables(&["CONSUL_CACERT"]),
        setting("ca_path", "a directory", Words("the system's authorities"), "the same, of several files").variables(&["CONSUL_CAPATH"]),
        setting("cert_file", "a file", Words("no client certificate"), "the agent's certificate").variables(&["CONSUL_CLIENT_CERT"]),
        setting("key_file", "a file", Words("no client certificate"), "its key").variables(&["CONSUL_CLIENT_KEY"]),
        setting("tls_server_name", "a name", Words("the host of the address"), "the name in Consul's certificate").variables(&["CONSUL_TLS_SERVER_NAME"]),
        setting("tls_verify", "`true`, `false`", Value("true"), "`false` trusts anybody").variables(&["CONSUL_HTTP_SSL_VERIFY"]),
        setting("", "`user:password`", Words("none"), "for a proxy before Consul").variables(&["CONSUL_HTTP_AUTH"]),
        setting("", "a token", Words("none"), "the token of Consul's ACLs").variables(&["CONSUL_HTTP_TOKEN"]),
        setting("token_file", "a file", Words("none"), "the same, read at every request").variables(&["CONSUL_HTTP_TOKEN_FILE"]),
        setting("datacenter", "a name", Words("the Consul agent's own"), "another datacenter of the federation"),
        setting("warning", "`exclude`, `include`", Value("\"exclude\""), "whether instances that warn get new flows"),
        setting("namespace", "a name", Words("that of the token"), "of Consul Enterprise").variables(&["CONSUL_NAMESPACE"]),
        setting("partition", "a name", Words("the Consul agent's own"), "of Consul Enterprise").variables(&["CONSUL_PARTITION"]),
        setting("wait", "1s to 10m", Value("\"55s\""), "how long Consul may hold a query when nothing changes"),
        setting("max_stale", "100ms to 1h", Value("\"30s\""), "how long Consul may be without a leader before the source is in error"),
        setting("max_watches", "1 to 10,000", Value("64"), "connections for blocking queries over plain HTTP"),
    ] },
    Section { table: "sources.docker", settings: &[
        setting("socket", "an address, `off`", Words("`unix:///var/run/docker.sock` if it is there"), "the Docker Engine").flag("--docker ADDR").variables(&["LB_DOCKER_HOST", "DOCKER_HOST"]),
        setting("enabled", "`true`, `false`", Words("`true` without Consul, else `false`"), "whether its containers are services"),
        setting("networks", "names", Value("[]"), "whose addresses are preferred, best first"),
        setting("addressing", "`internal`, `published`", Value("\"internal\""), "`published` where the host does not reach a container's own address"),
        setting("proc", "a directory", Value("\"/proc\""), "where the processes of the engine's host are"),
    ] },
    Section { table: "registrar", settings: &[
        setting("enabled", "`true`, `false`", Value("false"), "registers containers in Consul; the other keys are in [docker.md](docker.md#options)").flag("--registrar").variables(&["LB_REGISTRAR"]),
    ] },
    Section { table: "front", settings: &[
        setting("enabled", "`true`, `false`", Value("true"), "whether there is a front"),
        setting("listen", "addresses", Value("[\"0.0.0.0:80\"]"), "where it listens for plain HTTP").flag("--front ADDR").variables(&["LB_FRONT"]),
        setting("domains", "names", Value("[\"localhost\", \"127.0.0.1.xip.io\", \"127.0.0.1.nip.io\", \"127.0.0.1.sslip.io\"]"), "what may follow a service's own name").flag("--domain NAME").variables(&["LB_DOMAIN"]),
        setting("expose", "`all`, `tagged`", Value("\"all\""), "which services have routes"),
        setting("no_route_status", "400 to 599", Value("503"), "the answer to a name that nobody has"),
        setting("no_backend_status", "400 to 599", Value("503"), "the answer for a service without a usable instance"),
        setting("grace", "up to an hour", Value("\"0\""), "how long all goes on after SIGTERM"),
        setting("drain", "whole seconds, up to an hour", Value("\"30s\""), "how long what is in flight may take then"),
        setting("retirement", "whole seconds, up to a week", Value("\"10m\""), "the same for a front that another one follows"),
        setting("trusted_proxies", "networks", Value("[]"), "whose word about clients is believed").flag("--trusted-proxy CIDR").variables(&["LB_TRUSTED_PROXIES"]),
        setting("proxy_protocol", "networks", Value("[]"), "whose connections begin with the PROXY protocol"),
        setting("forwarded", "`true`, `false`", Value("false"), "sends `Forwarded`"),
        setting("request_id", "`true`, `false`", Value("true"), "gives each request an `X-Request-Id`"),
        setting("underscores", "`true`, `false`", Value("false"), "passes fields with `_` in their names"),
        setting("sticky_key_file", "a file", Words("a key of the agent's own"), "signs the cookies of `lb_sticky`"),
    ] },
    Section { table: "front.tls", settings: &[
        setting("listen", "addresses", Value("[\"0.0.0.0:443\"]"), "where the front speaks TLS; without the table nowhere"),
        setting("certificates", "tables with `certificate` and perhaps `key`", Words("none"), "files of certificates"),
        setting("folder", "a directory", Words("none"), "where more of them are"),
        setting("min_version", "`1.2`, `1.3`", Value("\"1.2\""), "the oldest version that is spoken"),
        setting("redirect", "`off`, `https`, `https:8443`, with a status before it", Value("\"off\""), "where plain HTTP is sent"),
        setting("hsts", "`off`, a time, with `includeSubDomains` and `preload` behind it", Value("\"off\""), "how long browsers come by HTTPS only"),
    ] },
    Section { table: "front.tls.acme", settings: &[
        setting("directory", "a URL", Words("none; needed"), "the authority"),
        setting("names", "names", Words("none; needed"), "for which certificates are asked for"),
        setting("accept_terms", "`true`", Words("none; needed"), "its terms of service are accepted"),
        setting("contact", "addresses", Value("[]"), "whom it may write to"),
        setting("ca_file", "a file", Words("the system's authorities"), "whom to trust as the authority's server"),
    ] },
    Section { table: "front.auth", settings: &[
        setting("…", "an absolute path", Words("none"), "each key is a list of users for `lb_auth`"),
    ] },
    Section { table: "front.pages", settings: &[
        setting("no_route", "an absolute path", Words("none"), "what people read for a name that nobody has"),
        setting("no_backend", "an absolute path", Words("none"), "the same without a usable instance"),
        setting("maintenance", "an absolute path", Words("none"), "the same with `lb_maintenance`"),
    ] },
    Section { table: "front.limits", settings: &[
        setting("first_byte", "1s to 10m", Value("\"10s\""), "from a connection to its first byte"),
        setting("head", "1s to 10m", Value("\"10s\""), "for the head of a request"),
        setting("keep_alive", "1s to 24h", Value("\"60s\""), "between two requests"),
        setting("body_idle", "1s to 24h", Value("\"60s\""), "between two pieces of a body"),
        setting("write_stall", "1s to 24h", Value("\"60s\""), "for a client to take some of an answer"),
        setting("response", "1s to 24h", Value("\"60s\""), "for the head of an answer"),
        setting("tunnel_idle", "1s to 24h", Value("\"1h\""), "without a byte after an upgrade"),
        setting("request", "`off`, or 1s to 24h", Value("\"off\""), "for a request in all"),
        setting("connect", "100ms to 1m", Value("\"3s\""), "for a connect to an instance"),
        setting("queue_time", "100ms to 1m", Value("\"3s\""), "for a request to wait for an instance"),
        setting("queue", "0 to 1000000", Value("1024"), "requests that wait, for each instance"),
        setting("connections", "from 64", Words("as many as descriptors allow"), "client connections"),
        setting("connections_per_client", "from 2: over HTTP/2 a connection and each of its requests count", Words("half of them"), "of one address"),
        setting("backend_connections", "from 1", Value("1024"), "to one instance"),
        setting("streams", "1 to 1000", Value("100"), "requests at once over one connection of HTTP/2"),
        setting("max_body", "`off`; bytes, `KiB`, `MiB`, `GiB`", Value("\"off\""), "how long a body may be"),
    ] },
    Section { table: "front.access_log", settings: &[
        setting("format", "`off`, `common`, `combined`, `json`", Value("\"off\""), "a line for each request").flag("--access-log FORMAT").variables(&["LB_ACCESS_LOG"]),
        setting("file", "a file", Words("standard output"), "where they go"),
        setting("status", "such as `[\"404\", \"500-599\"]`", Value("[]"), "only requests with one of these"),
        setting("slower_than", "a time", Words("none"), "only those that took longer"),
        setting("retried", "`true`, `false`", Value("false"), "only those that were tried again"),
        setting("redact_query", "`true`, `false`", Value("false"), "leaves queries out"),
        setting("headers", "names", Value("[]"), "fields that a line in JSON has as well"),
        setting("redact", "names", Value("[]"), "fields whose values are not written"),
    ] },
    Section { table: "admin", settings: &[
        setting("listen", "an address", Value("\"127.0.0.1:9180\""), "where the page, the metrics and the API are").flag("--admin ADDR").variables(&["LB_ADMIN"]),
        setting("token_file", "a file", Words("a token of the agent's own"), "the token for changes; needed beyond loopback"),
        setting("names", "names", Value("[]"), "host names that the page answers to").flag("--admin-name NAME").variables(&["LB_ADMIN_NAMES"]),
        setting("published", "`token`, `open`", Value("\"token\""), "who reads the page under these names and through proxies").flag("--admin-published RULE").variables(&["LB_ADMIN_PUBLISHED"]),
        setting("allow_uids", "numbers of users", Value("[]"), "who may use the admin socket beside root and the agent's own user"),
    ] },
    Section { table: "metrics", settings: &[
        setting("per_backend", "`true`, `false`", Value("false"), "gives single backends [metrics](operations.md#of-single-backends) of their own"),
    ] },
    Section { table: "metrics.otlp", settings: &[
        setting("endpoint", "a URL; without a path `/v1/metrics` is meant", Words("none; needed"), "where metrics are [pushed](operations.md#pushed-by-otlp) to, by OTLP over HTTP"),
        setting("interval", "100ms to 1h", Value("\"60s\""), "between two pushes"),
        setting("timeout", "100ms to 1h", Value("\"10s\""), "for one message to be taken"),
        setting("headers_file", "a file of lines `Name: value`", Words("none"), "fields that the receiver wants, such as a token's, read at every push"),
        setting("ca_file", "a file", Words("the system's authorities"), "whom to trust as the receiver"),
        setting("compression", "`gzip`, `none`", Value("\"gzip\""), "how messages are packed"),
    ] },
    Section { table: "dns", settings: &[
        setting("enabled", "`true`, `false`", Value("true"), "whether there is a resolver"),
        setting("listen", "addresses", Words("port 53 of the pool's first address and of its IPv6 twin"), "where it listens").flag("--dns ADDR").variables(&["LB_DNS"]),
        setting("upstreams", "addresses", Words("the `nameserver` lines of `/etc/resolv.conf`"), "who is asked for other names"),
        setting("consul", "an address", Words("none"), "who is asked for names under `consul`"),
        setting("allow", "networks", Value("[]"), "whose clients are answered beside this host and its neighbours"),
        setting("host", "`true`, `false`", Value("false"), "makes it the resolver of the host's own processes"),
    ] },
    Section { table: "health", settings: &[
        setting("interval", "100ms to 1h", Value("\"2s\""), "between two probes of a settled backend"),
        setting("timeout", "100ms to 1h", Value("\"2s\""), "for one probe"),
        setting("rise", "1 to 100", Value("2"), "successes in a row that make a backend usable"),
        setting("fall", "1 to 100", Value("3"), "failures in a row that take it out"),
    ] },
    Section { table: "limits", settings: &[
        setting("services", "1 to 65,536", Value("4096"), "endpoints that the maps have room for"),
        setting("backends", "1 to 1,048,576", Value("16384"), "backends that they have room for"),
        setting("packet_services", "1 to 4,096", Value("256"), "endpoints that the [packet path](packet-path.md#what-it-takes) has room for; each takes 256 KiB of the kernel's memory"),
        setting("packet_flows", "1,024 to 16,777,216", Value("131072"), "flows of each family that it has room for"),
    ] },
    Section { table: "packet", settings: &[
        setting("cards", "names of devices", Value("[]"), "network cards at which packets for VIPs are [balanced](packet-path.md); without the table and both flags there is no packet path").flag("--packet-card DEVICE").variables(&["LB_PACKET_CARDS"]),
        setting("clients", "names of devices, or how they begin, such as `veth*`", Value("[]"), "the host's side of devices whose clients the socket hooks cannot see").flag("--packet-client DEVICE").variables(&["LB_PACKET_CLIENTS"]),
        setting("xdp", "`auto`, `native`, `generic`, `off`", Value("\"auto\""), "where the programs of the cards run; with `off` only backends of this host are reached there"),
        setting("source", "an IPv4 address of this host", Words("the first global one of the first card"), "what it sends from in its own name: full NAT and tunnels"),
        setting("source6", "an IPv6 address of this host", Words("the first global one of the first card"), "the same for IPv6"),
        setting("ports", "the first and the last of at least 64 ports", Value("\"61000-65535\""), "the ports that full NAT uses; nobody on this host may"),
        setting("hosts", "addresses", Value("[]"), "whose tunnels are taken, beside those of the hosts that instances run on"),
    ] },
];

const fn setting(
    key: &'static str,
    values: &'static str,
    default: Otherwise,
    does: &'static str,
) -> Setting {
    Setting {
        key,
        flag: None,
        variables: &[],
        values,
        default,
        does,
    }
}

impl Setting {
    const fn flag(self, flag: &'static str) -> Self {
        Self {
            flag: Some(flag),
            ..self
        }
    }

    const fn variables(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }
}

/// The table of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "| key in the file | flag, variable | takes | default | is for |\n|---|---|---|---|---|\n",
    );
    for Section { table, settings } in SECTIONS {
        for setting in *settings {
            let key = match (*table, setting.key) {
                (_, "") => "–".to_owned(),
                ("", key) => format!("`{key}`"),
                (table, "…") => format!("`[{table}]`"),
                (table, key) => format!("`[{table}] {key}`"),
            };
            let typed = setting.flag.iter().chain(setting.variables);
            let typed: Vec<_> = typed.map(|it| format!("`{it}`")).collect();
            let typed = match typed.is_empty() {
                true => "–".to_owned(),
                false => typed.join(", "),
            };
            let default = match setting.default {
                Value(value) => format!("`{}`", value.trim_matches('"')),
                Words(words) => words.to_owned(),
            };
            let (values, does) = (setting.values, setting.does);
            text.push_str(&format!(
                "| {key} | {typed} | {values} | {default} | {does} |\n"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests;
