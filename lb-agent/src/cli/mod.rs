//! The commands that ask a running agent: their definition, and what they print.
//!
//! They only talk to the agent's unix socket. Tables are for people and may change; the JSON of
//! `-o json` is the agent's own and is kept.

mod client;
mod explain;
mod show;
mod terminal;
mod trace;

use std::{
    io::{self, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use lb_front::ChildArgs;
use serde::Serialize;

pub(crate) use self::client::Client;
use self::client::ClientError;
pub use self::terminal::Style;
use crate::admin::report::{
    DrainAnswer, DrainOrder, Mark, PinOrder, ReleaseOrder, Report, Service,
};
use crate::bundle::BundleArgs;
use crate::check_config::CheckArgs;
use crate::config::{RegisterArgs, ResolverArgs, RunArgs, UninstallArgs};
use crate::doctor::DoctorArgs;
use crate::options::table;

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
    /// Asks a running agent.
    #[command(flatten)]
    Ask(Ask),
}

/// What holds for every command that asks a running agent.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The agent's admin socket [default: /run/lb/admin.sock]
    // No default here: `run` has an argument of the same name, which would then always be given.
    #[arg(long, global = true, env = "LB_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How to print: tables are for people, JSON is stable
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
    /// For people.
    Table,
    /// For programs.
    Json,
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
        after_help = "Examples:\n  lb-agent flows\n  lb-agent flows www_hello\n\nAt most 10000 are listed."
    )]
    Flows {
        /// Only those of this service
        service: Option<String>,
    },
    /// Tell what a connect of one client to a service would do now, and why
    #[command(
        after_help = "Examples:\n  lb-agent explain host www_hello\n  lb-agent explain web-1 www_hello\n  lb-agent explain 4711 db"
    )]
    Explain {
        /// `host`, the name or id of a container, or the number of a process
        client: String,
        /// The service
        service: String,
    },
    /// Show each decision for a service as the kernel takes it, until interrupted
    #[command(
        after_help = "Examples:\n  lb-agent trace www_hello\n  lb-agent trace www_hello --count 10 -o json\n\nJSON is one object a line."
    )]
    Trace {
        /// The service
        service: String,
        /// End after so many decisions
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Take backends out of service: no new flows once it returns, established ones are cut after `lb_drain` (30 s)
    #[command(
        after_help = "Examples:\n  lb-agent drain www_hello/web-1\n  lb-agent drain www_hello/web-1 --undo"
    )]
    Drain {
        /// The service, or one backend of it by its id or as `node/id`
        #[arg(value_name = "SERVICE[/BACKEND]")]
        target: String,
        /// End the drain instead
        #[arg(long)]
        undo: bool,
    },
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

/// How a command ended; the numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// It failed.
    Failed = 1,
    /// It worked, and something is degraded or not in force yet.
    Degraded = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Asks the agent and prints its answer on standard output, or what went wrong on standard error.
pub fn execute(options: &Options, ask: &Ask) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let style = Style::of_stdout();
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let exit = match runtime {
        Ok(runtime) => runtime.block_on(perform(options, ask, style, &mut out, &mut err)),
        Err(error) => {
            // If standard error is gone too, the exit status is all that is left.
            let _ = writeln!(err, "lb-agent: cannot start: {error}");
            Exit::Failed
        }
    };
    exit.into()
}

/// Does the same with the streams and the style given.
pub async fn perform(
    options: &Options,
    ask: &Ask,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    let socket = options.socket.as_deref();
    let client = Client::new(socket.unwrap_or(Path::new(DEFAULT_SOCKET)));
    let answered = match ask {
        Ask::Trace { service, count } => {
            trace::follow(&client, service, *count, options.output, out).await
        }
        Ask::Healthcheck => healthcheck(&client).await,
        Ask::Clients => clients(&client, options.output).await,
        Ask::Flows { service } => flows(&client, options.output, service.as_deref()).await,
        Ask::Explain {
            client: who,
            service,
        } => explain(&client, options.output, who, service).await,
        Ask::Vip(order) => vip(&client, options.output, order).await,
        Ask::Options => list_options(options.output),
        Ask::Drain { target, undo } => drain(&client, options.output, target, *undo).await,
        Ask::Status => report(&client)
            .await
            .and_then(|report| status(&report, options.output, style)),
        Ask::Services { name } => report(&client)
            .await
            .and_then(|report| services(&report, options.output, name.as_deref())),
        Ask::Backends { service } => report(&client)
            .await
            .and_then(|report| backends(&report, options.output, service.as_deref())),
    };
    let (text, exit) = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            // If standard error is gone too, the exit status is all that is left.
            let _ = writeln!(err, "lb-agent: {failure}");
            return Exit::Failed;
        }
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => exit,
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Fine,
        Err(error) => {
            let _ = writeln!(err, "lb-agent: cannot print: {error}");
            Exit::Failed
        }
    }
}

type Answer = Result<(String, Exit), Failure>;

/// Why a command failed, for people.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("not ready\n{0}")]
    NotReady(String),
    #[error("the agent does not know its services yet: see `lb-agent status`")]
    NotKnown,
    #[error("there is no service {0:?}: see `lb-agent services`")]
    NoService(String),
    #[error("the agent has ended, and the trace with it")]
    Ended,
    #[error("cannot print: {0}")]
    Print(io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

async fn report(client: &Client) -> Result<Report, Failure> {
    Ok(client.report(PATIENCE).await?)
}

fn status(report: &Report, output: Output, style: Style) -> Answer {
    let fine =
        report.problems.is_empty() && report.components.iter().all(|line| line.mark == Mark::Ok);
    let exit = if fine { Exit::Fine } else { Exit::Degraded };
    let text = match output {
        Output::Table => show::status(report, style),
        Output::Json => json(&show::Status::of(report, fine))?,
    };
    Ok((text, exit))
}

fn services(report: &Report, output: Output, name: Option<&str>) -> Answer {
    let chosen = choose(report, name)?;
    let text = match (output, name) {
        (Output::Json, _) => json(&chosen)?,
        (Output::Table, None) => show::services(&chosen),
        (Output::Table, Some(_)) => show::details(&chosen, report.now_unix),
    };
    Ok((text, Exit::Fine))
}

fn backends(report: &Report, output: Output, service: Option<&str>) -> Answer {
    let chosen = choose(report, service)?;
    let text = match output {
        Output::Table => show::backends(&chosen, report.now_unix),
        Output::Json => json(&show::rows(&chosen))?,
    };
    Ok((text, Exit::Fine))
}

/// All services, or those that `name` means: by the name shown, by label, or a service with its parts.
fn choose<'a>(report: &'a Report, name: Option<&str>) -> Result<Vec<&'a Service>, Failure> {
    let services = report.services.as_deref().ok_or(Failure::NotKnown)?;
    let Some(name) = name else {
        return Ok(services.iter().collect());
    };
    let exact = services.iter();
    let mut chosen: Vec<_> = exact
        .filter(|service| service.name == name || service.label == name)
        .collect();
    if chosen.is_empty() {
        let parts = services.iter();
        chosen = parts.filter(|service| service.service == name).collect();
    }
    if chosen.is_empty() {
        return Err(Failure::NoService(name.to_owned()));
    }
    Ok(chosen)
}

async fn clients(client: &Client, output: Output) -> Answer {
    let clients = client.clients(PATIENCE).await?;
    let text = match output {
        Output::Table => show::clients(&clients),
        Output::Json => json(&clients)?,
    };
    Ok((text, Exit::Fine))
}

async fn vip(client: &Client, output: Output, order: &Vip) -> Answer {
    let entries = match order {
        Vip::List => client.vips(PATIENCE).await?,
        Vip::Pin { service, address } => {
            let (service, address) = (service.clone(), *address);
            client.pin(&PinOrder { service, address }, PATIENCE).await?
        }
        Vip::Release { target } => {
            let target = target.clone();
            client.release(&ReleaseOrder { target }, PATIENCE).await?
        }
    };
    let text = match (output, order) {
        (Output::Json, _) => json(&entries)?,
        (Output::Table, Vip::Release { .. }) => show::released(&entries),
        (Output::Table, _) => show::vips(&entries, now_unix()),
    };
    Ok((text, Exit::Fine))
}

async fn flows(client: &Client, output: Output, service: Option<&str>) -> Answer {
    let list = client.flows(service, PATIENCE).await?;
    let text = match output {
        Output::Table => show::flows(&list),
        Output::Json => json(&list)?,
    };
    Ok((text, Exit::Fine))
}

async fn explain(client: &Client, output: Output, who: &str, service: &str) -> Answer {
    let told = client.explain(who, service, PATIENCE).await?;
    let text = match output {
        Output::Table => explain::table_of(&told),
        Output::Json => json(&told)?,
    };
    Ok((text, Exit::Fine))
}

fn now_unix() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

fn list_options(output: Output) -> Answer {
    let options: Vec<_> = table::all().collect();
    let text = match output {
        Output::Table => show::options(&options),
        Output::Json => json(&options)?,
    };
    Ok((text, Exit::Fine))
}

async fn drain(client: &Client, output: Output, target: &str, undo: bool) -> Answer {
    let (service, backend) = match target.split_once('/') {
        Some((service, backend)) => (service, Some(backend.to_owned())),
        None => (target, None),
    };
    let order = DrainOrder {
        service: service.to_owned(),
        backend,
        undo,
    };
    drained(&client.drain(&order, PATIENCE).await?, output)
}

fn drained(answer: &DrainAnswer, output: Output) -> Answer {
    let text = match output {
        Output::Table => show::drained(answer),
        Output::Json => json(answer)?,
    };
    let exit = if answer.not_yet_in.is_empty() {
        Exit::Fine
    } else {
        Exit::Degraded
    };
    Ok((text, exit))
}

async fn healthcheck(client: &Client) -> Answer {
    match client.ready(HEALTHCHECK).await? {
        Ok(()) => Ok((String::new(), Exit::Fine)),
        Err(reasons) => Err(Failure::NotReady(reasons)),
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(crate::admin::text::visible_json(&text).into_owned())
}

/// Where the agent listens if nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/lb/admin.sock";
/// For the agent to answer, which may have to ask Consul.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the agent to answer a health check: the container engine waits.
const HEALTHCHECK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
