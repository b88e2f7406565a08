//! The definition of the command line.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lb_front::ChildArgs;

use super::order;
use crate::{
    bundle::BundleArgs,
    check_config::CheckArgs,
    config::{RegisterArgs, ResolverArgs, RunArgs, UninstallArgs},
    doctor::DoctorArgs,
};

/// The command line of `lb-agent`.
#[derive(Debug, Parser)]
#[command(
    name = "lb-agent",
    version,
    about,
    max_term_width = 100,
    after_help = "Example:\n  lb-agent status"
)]
pub struct Cli {
    /// What holds for every command that asks a running agent.
    #[command(flatten)]
    pub options: Options,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `lb-agent` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts the agent and stays in the foreground.
    Run(Box<RunArgs>),
    /// Registers the containers of this host in Consul, without the rest of the agent.
    Register(Box<RegisterArgs>),
    /// Makes the agent the resolver of this host's own processes, or undoes it.
    Resolver(ResolverArgs),
    /// Takes the agent's data plane off this host.
    Uninstall(UninstallArgs),
    /// Serves HTTP by Host name; started by `run`, without any capability.
    #[command(hide = true)]
    Front(ChildArgs),
    /// Checks a configuration and a services file without starting anything.
    #[command(
        about = "Checks a configuration and a services file without starting anything",
        after_help = "It needs neither root nor the host. Exit status: 0 nothing is wrong, 2 something is.\n\n\
                      Examples:\n  lb-agent check-config lb.toml -q\n  lb-agent check-config --services services.toml --show"
    )]
    CheckConfig(Box<CheckArgs>),
    /// Tells what keeps an agent from running well on this host, and what to do about it.
    #[command(
        about = "Tells what keeps an agent from running well on this host, and what to do about it",
        after_help = "It changes nothing and needs no agent; give it the flags that `run` has. Exit status: 0 nothing is wrong, 3 something is.\n\n\
                      Examples:\n  lb-agent doctor\n  lb-agent doctor --probe -o json"
    )]
    Doctor(Box<DoctorArgs>),
    /// Gathers what somebody who is to help needs to see in one archive, without secrets.
    #[command(
        about = "Gathers what somebody who is to help needs to see in one archive, without secrets",
        after_help = "Its MANIFEST says what is in it, and what was left out and why. Look through it before you send it.\n\n\
                      Example:\n  lb-agent bundle -f help.tar.gz"
    )]
    Bundle(Box<BundleArgs>),
    /// Prints what makes a shell complete commands and flags.
    #[command(
        after_help = "Example:\n  lb-agent completions bash > /usr/share/bash-completion/completions/lb-agent"
    )]
    Completions {
        /// For which one.
        shell: Shell,
    },
    /// Prints the page of the manual, or writes one for each command into a folder.
    #[command(
        after_help = "Examples:\n  lb-agent man | man -l -\n  lb-agent man /usr/share/man/man1"
    )]
    Man {
        /// The folder; it must be there.
        dir: Option<PathBuf>,
    },
    /// Asks a running agent.
    #[command(flatten)]
    Ask(Ask),
}

impl Command {
    /// Whether what it prints are rows.
    pub fn has_rows(&self) -> bool {
        match self {
            Self::Ask(ask) => !matches!(ask, Ask::Healthcheck | Ask::Top),
            _ => false,
        }
    }
}

/// What holds for every command that asks a running agent.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The agent's admin socket [default: /run/lb/admin.sock]
    // No default here: `run` has an argument of the same name, which would then always be given.
    #[arg(long, global = true, env = "LB_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How to print: tables are for people, JSON and the names of its fields are stable
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people, what fits a terminal.
    Table,
    /// For people, all columns.
    Wide,
    /// For programs.
    Json,
    /// For spreadsheets, all columns.
    Csv,
}

/// The commands that ask a running agent.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Ask {
    /// Tell how the agent is: errors first, then a line for each part
    #[command(
        after_help = "Exit status: 0 all is well, 1 the agent did not answer, 3 something is degraded.\n\n\
                      Example:\n  lb-agent status || lb-agent backends"
    )]
    Status,
    /// List the services, or show one with its backends
    #[command(after_help = "Examples:\n  lb-agent services\n  lb-agent services www_hello")]
    Services {
        /// One service: `www_hello`, or `www.hello` for the part of `www` tagged `hello`
        name: Option<String>,
    },
    /// List the backends with both levels of health
    #[command(after_help = "Examples:\n  lb-agent backends\n  lb-agent backends www_hello -o json")]
    Backends {
        /// Only those of this service
        service: Option<String>,
    },
    /// List the open flows through VIPs: who has them, and where they go
    #[command(
        after_help = "Examples:\n  lb-agent flows\n  lb-agent flows www_hello --client 172.17.0.2\n  lb-agent flows --count-by backend\n  lb-agent flows --flush --backend 10.0.0.1:8080\n\nAt most 10000 are listed of sockets, and as many of the packet path."
    )]
    Flows(Wish),
    /// Follow the busiest services and what goes wrong on the whole terminal
    #[command(
        after_help = "Keys: q ends, ? tells the others. Exit status: 2 without a terminal, 130 when it was interrupted.\n\n\
                      Example:\n  lb-agent top"
    )]
    Top,
    /// Tell what a connect of one client to a service would do now, and why
    #[command(
        after_help = "Examples:\n  lb-agent explain host www_hello\n  lb-agent explain web-1 198.18.12.7:80\n  lb-agent explain 4711 db\n  lb-agent explain --host www.hello.localhost/api\n  lb-agent explain 192.0.2.9:40000 198.18.12.7:80"
    )]
    Explain {
        /// `host`, the name or id of a container, or the number of a process; or an address with a port, whose packets
        /// the packet path balances
        #[arg(required_unless_present = "host")]
        client: Option<String>,
        /// The service, or its VIP with or without a port
        #[arg(required_unless_present = "host", value_name = "SERVICE|VIP:PORT")]
        service: Option<String>,
        /// Tell where the front sends requests for this host instead
        #[arg(long, value_name = "NAME[/PATH]", conflicts_with_all = ["client", "service"])]
        host: Option<String>,
        /// The packets of an address are of UDP
        #[arg(long, conflicts_with = "host")]
        udp: bool,
    },
    /// Show each decision for a service as the kernel takes it, until interrupted
    #[command(after_help = "Exit status: 130 when it was interrupted.\n\n\
                      Examples:\n  lb-agent trace www_hello --drops\n  lb-agent trace www_hello --count 10 -o json\n  lb-agent trace --packets www_hello --pcap www.pcap\n  lb-agent trace --packets --sample 100 --drops\n\nJSON is one object a line.")]
    Trace(Watch),
    /// Take backends out of service: no new flows once it returns, established ones are cut after `lb_drain` (30 s)
    #[command(
        after_help = "Exit status: 0 it is in force, 1 the agent refused or did not answer, 3 it is ordered but not in force yet, or flows are left after their time.\n\n\
                      Examples:\n  lb-agent drain www_hello/web-1\n  lb-agent drain www_hello/web-1 --deadline 5m --wait\n  lb-agent drain www_hello/web-1 --undo"
    )]
    Drain(Outage),
    /// Put backends in maintenance: no new flows once it returns, established ones are cut at once
    #[command(
        after_help = "Exit status: 0 it is in force, 1 the agent refused or did not answer, 3 it is ordered but not in force yet, or flows are left after their time.\n\n\
                      Examples:\n  lb-agent maintenance www_hello/web-1\n  lb-agent maintenance www_hello/web-1 --deadline 5m --wait\n  lb-agent maintenance www_hello/web-1 --undo"
    )]
    Maintenance(Outage),
    /// List what happened of late: changes of states, problems, and who changed what
    #[command(after_help = "Exit status: 130 when it was interrupted.\n\n\
                      Examples:\n  lb-agent events\n  lb-agent events --follow -o json\n\nWith --follow JSON is one object a line.")]
    Events(Look),
    /// List the containers of this host with their networks, and what can be reached from them
    #[command(after_help = "Example:\n  lb-agent clients -o json")]
    Clients,
    /// List the virtual addresses, pin one, or release what is kept
    #[command(subcommand, after_help = "Example:\n  lb-agent vip list")]
    Vip(Vip),
    /// List the options that services may state in tags, meta, labels and the services file
    #[command(after_help = "Example:\n  lb-agent options\n\nIt asks no agent.")]
    Options,
    /// Say nothing and exit with 0 if the agent is ready, else the reasons and 1, within two seconds
    #[command(
        after_help = "Example, in a Dockerfile:\n  HEALTHCHECK CMD [\"/lb-agent\", \"healthcheck\"]"
    )]
    Healthcheck,
}

/// Which backends to take out of service, and for how long their flows may go on.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Outage {
    /// The service, or one backend of it by its id or as `node/id`
    #[arg(value_name = "SERVICE[/BACKEND]")]
    pub target: String,
    /// Cut established flows after this time instead: `30s`, `5m`; at most a day
    #[arg(long, value_name = "TIME", conflicts_with = "undo", value_parser = order::deadline)]
    pub deadline: Option<Duration>,
    /// Put them back in service instead
    #[arg(long)]
    pub undo: bool,
    /// Return when no flow is left, or exit with 3 when they should have been cut and some are
    #[arg(long, conflicts_with = "undo")]
    pub wait: bool,
}

/// Which flows to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(group(clap::ArgGroup::new("meant").args(["service", "named", "client", "backend"]).multiple(true)))]
pub struct Wish {
    /// Only those of this service
    pub service: Option<String>,
    /// The same
    #[arg(
        long = "service",
        id = "named",
        value_name = "SERVICE",
        conflicts_with = "service"
    )]
    pub named: Option<String>,
    /// Only those of this client: its address, the number or name of a process, or the id of a container
    #[arg(long)]
    pub client: Option<String>,
    /// Only those to this backend: its id, `node/id`, or its address
    #[arg(long)]
    pub backend: Option<String>,
    /// Count them instead, the most first
    #[arg(long, value_enum, value_name = "WHAT")]
    pub count_by: Option<CountBy>,
    /// Forget those of the packet path instead: the next packet of each is one of no flow; the client and the backend are
    /// addresses then
    #[arg(long, requires = "meant", conflicts_with = "count_by")]
    pub flush: bool,
}

/// What to count flows by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CountBy {
    /// Where they go.
    Backend,
    /// What they are for.
    Service,
    /// The address they come from.
    Client,
    /// The name of the process.
    Command,
}

/// Which decisions to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Watch {
    /// The service, or its VIP
    #[arg(required_unless_present = "packets")]
    pub service: Option<String>,
    /// Only those of this client: `host`, the name of a container, or the number or name of a process; of packets, an
    /// address
    #[arg(long)]
    pub client: Option<String>,
    /// Only those for this backend: its id, `node/id`, or its address
    #[arg(long)]
    pub backend: Option<String>,
    /// Only refusals; of packets, only those that were dropped
    #[arg(long)]
    pub drops: bool,
    /// End after so many decisions
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Show packets of the packet path instead: all of the service, or of all of them
    #[arg(long)]
    pub packets: bool,
    /// Only one of so many packets
    #[arg(long, value_name = "N", requires = "packets", conflicts_with = "service", value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: Option<u32>,
    /// Write the packets to this file as well, for tcpdump and Wireshark
    #[arg(long, value_name = "FILE", requires = "packets")]
    pub pcap: Option<PathBuf>,
}

/// Which events to show.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Look {
    /// The newest so many; the agent keeps a thousand, and as many changes
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Go on with what happens, until interrupted
    #[arg(long)]
    pub follow: bool,
}

/// What can be done with virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Vip {
    /// List every address that a service has, or that is kept for one
    #[command(after_help = "Example:\n  lb-agent vip list -o json")]
    List,
    /// Give a service an address of its own choice, on every host, until it is released
    #[command(after_help = "Example:\n  lb-agent vip pin www_hello 198.18.0.80")]
    Pin {
        /// The service, or the part `service.tag`; it need not exist yet
        service: String,
        /// An address of the pool that nobody else has
        address: Ipv4Addr,
    },
    /// End a pin, a quarantine, or the record of a service that left
    #[command(
        after_help = "Examples:\n  lb-agent vip release www_hello\n  lb-agent vip release 198.18.0.80"
    )]
    Release {
        /// The service or the address
        #[arg(value_name = "SERVICE|ADDRESS")]
        target: String,
    },
}
