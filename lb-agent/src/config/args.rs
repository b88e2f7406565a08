//! The flags of `lb-agent run`. Their values are judged together with those of the file.

use std::path::PathBuf;

/// Starts the agent and stays in the foreground.
///
/// Every flag may also be given in the environment or in the file; a flag wins over the environment, and that over
/// the file.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Example: lb-agent run --services /etc/lb/services.toml --front 0.0.0.0:80")]
pub struct RunArgs {
    /// File with the configuration [default: /etc/lb/lb.toml if it is there]
    #[arg(long, env = "LB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for what outlives the agent [default: /var/lib/lb]
    #[arg(long, env = "LB_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// A mounted bpffs [default: /sys/fs/bpf]
    #[arg(long, env = "LB_BPFFS", value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
    /// The cgroup v2 directory whose processes are balanced [default: the root of the tree]
    #[arg(long, env = "LB_CGROUP", value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Unix socket for the other commands [default: /run/lb/admin.sock]
    #[arg(long, env = "LB_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Network of the virtual addresses [default: 198.18.0.0/16]
    #[arg(long, env = "LB_POOL", value_name = "CIDR")]
    pub pool: Option<String>,
    /// Network of the virtual addresses' IPv6 twins [default: fd62:6c62:76:1::/64]
    #[arg(long, env = "LB_POOL6", value_name = "CIDR")]
    pub pool6: Option<String>,
    /// Hosts of one datacenter give a service the same virtual address [default: dc1]
    #[arg(long, env = "LB_DATACENTER", value_name = "NAME")]
    pub datacenter: Option<String>,
    /// File with services, read again whenever it changes
    #[arg(long, env = "LB_SERVICES", value_name = "FILE")]
    pub services: Option<PathBuf>,
    /// Consul agent that knows the services, such as 127.0.0.1:8500; may be repeated
    #[arg(
        long,
        env = "LB_CONSUL_ADDR",
        value_name = "ADDR",
        value_delimiter = ','
    )]
    pub consul: Vec<String>,
    /// Docker Engine whose containers are services, such as unix:///var/run/docker.sock, or off [default: that socket
    /// if it is there]
    #[arg(long, env = "LB_DOCKER_HOST", value_name = "ADDR")]
    pub docker: Option<String>,
    /// Where the HTTP front listens; may be repeated [default: 0.0.0.0:80]
    #[arg(long, env = "LB_FRONT", value_name = "ADDR", value_delimiter = ',')]
    pub front: Vec<String>,
    /// Network of proxies whose X-Forwarded-* fields the front believes; may be repeated
    #[arg(
        long,
        env = "LB_TRUSTED_PROXIES",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub trusted_proxy: Vec<String>,
    /// off, common, combined or json: one line on standard output for each request through the front [default: off]
    #[arg(long, env = "LB_ACCESS_LOG", value_name = "FORMAT")]
    pub access_log: Option<String>,
    /// Where the status page and the metrics are [default: 127.0.0.1:9180]
    #[arg(long, env = "LB_ADMIN", value_name = "ADDR")]
    pub admin: Option<String>,
    /// Host name that the page answers to, beside localhost and addresses; may be repeated
    #[arg(
        long,
        env = "LB_ADMIN_NAMES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub admin_name: Vec<String>,
    /// token or open: what reading the page under such a name, or through a proxy, takes [default: token]
    #[arg(long, env = "LB_ADMIN_PUBLISHED", value_name = "RULE")]
    pub admin_published: Option<String>,
    /// Where the resolver listens; may be repeated [default: port 53 of the pool's first address]
    #[arg(long, env = "LB_DNS", value_name = "ADDR", value_delimiter = ',')]
    pub dns: Vec<String>,
    /// Domain below which every service has a host name; may be repeated
    #[arg(long, env = "LB_DOMAIN", value_name = "NAME", value_delimiter = ',')]
    pub domain: Vec<String>,
    /// Network device at which packets for VIPs are balanced, such as eth0; may be repeated
    #[arg(
        long,
        env = "LB_PACKET_CARDS",
        value_name = "DEVICE",
        value_delimiter = ','
    )]
    pub packet_card: Vec<String>,
    /// Device of this host behind which clients are that the socket hooks cannot see, such as tap0 or veth*; may be repeated
    #[arg(
        long,
        env = "LB_PACKET_CLIENTS",
        value_name = "DEVICE",
        value_delimiter = ','
    )]
    pub packet_client: Vec<String>,
    /// Register the containers of this host in Consul
    #[arg(long, env = "LB_REGISTRAR", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub registrar: Option<bool>,
    /// auto, text, json or journald [default: auto]
    #[arg(long, env = "LB_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
}
