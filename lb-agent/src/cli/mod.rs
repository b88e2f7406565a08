//! The commands that ask a running agent: their definition, and what they print.
//!
//! They only talk to the agent's unix socket. Tables are for people and may change; the JSON of
//! `-o json` is the agent's own and is kept.

mod ask;
mod backends;
mod client;
mod clients;
mod events;
mod explain;
mod failure;
mod flows;
mod follow;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
pub mod markdown;
mod options;
mod order;
mod packets;
pub mod pages;
mod progress;
mod services;
mod status;
mod table;
mod terminal;
mod top;
mod trace;
mod vip;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;

pub(crate) use self::client::Client;
use self::failure::Failure;
pub use self::{
    ask::{Ask, Cli, Command, CountBy, Look, Options, Outage, Output, Vip, Watch, Wish},
    progress::Progress,
    terminal::Style,
};
use crate::{admin::report::Report, order::Mode};

/// How a command ended; the numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// It failed.
    Failed = 1,
    /// It was asked for what cannot be.
    Usage = 2,
    /// It worked, and something is degraded or not in force yet.
    Degraded = 3,
    /// Somebody interrupted it.
    Interrupted = 130,
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
    // Not locked: progress is told by a thread.
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let exit = match runtime {
        Ok(runtime) if *ask == Ask::Top && top::is_possible() => {
            let followed = runtime.block_on(top::follow(client(options), style));
            followed.unwrap_or_else(|failure| {
                let _ = writeln!(err, "{}", failure.told(options.output));
                Exit::Failed
            })
        }
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
    let client = client(options);
    let answered = match ask {
        Ask::Trace(watch) if watch.packets => {
            packets::follow(&client, watch, options.output, out).await
        }
        Ask::Trace(watch) => trace::follow(&client, watch, options.output, out).await,
        Ask::Events(look) => events::events(&client, look, options.output, out).await,
        Ask::Top => Err(Failure::NoTerminal),
        Ask::Healthcheck => healthcheck(&client).await,
        Ask::Clients => clients::clients(&client, options.output).await,
        Ask::Flows(wish) if wish.flush => packets::flush(&client, options.output, wish).await,
        Ask::Flows(wish) => flows::flows(&client, options.output, wish).await,
        Ask::Explain {
            client: Some(who),
            service: Some(service),
            udp,
            ..
        } if who.parse::<SocketAddr>().is_ok() => {
            packets::explain(&client, options.output, (who, service), *udp).await
        }
        Ask::Explain {
            client: Some(who),
            service: Some(service),
            ..
        } => explain::explain(&client, options.output, who, service).await,
        Ask::Explain { host, .. } => {
            let host = host.as_deref().unwrap_or_default();
            host::explain(&client, options.output, host).await
        }
        Ask::Vip(order) => vip::vip(&client, options.output, order).await,
        Ask::Options => options::list(options.output),
        Ask::Drain(outage) | Ask::Maintenance(outage) => {
            let mode = match ask {
                Ask::Maintenance(_) => Mode::Maintenance,
                _ => Mode::Drain,
            };
            let ordered = order::order(&client, options.output, mode, outage).await;
            match (ordered, outage.wait) {
                (Ok((text, exit, answer)), true) => match follow::print(out, &text) {
                    Err(failure) => Err(failure),
                    // Whoever has seen enough waits all the same.
                    Ok(_) => {
                        let left = order::wait(&client, &answer, err).await;
                        left.map(|left| (String::new(), exit.max(left)))
                    }
                },
                (ordered, _) => ordered.map(|(text, exit, _)| (text, exit)),
            }
        }
        Ask::Status => status::status(&client, options.output, style).await,
        Ask::Services { name } => {
            services::services(&client, options.output, name.as_deref()).await
        }
        Ask::Backends { service } => report(&client)
            .await
            .and_then(|report| backends::backends(&report, options.output, service.as_deref())),
    };
    let (text, exit) = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            // If standard error is gone too, the exit status is all that is left.
            let _ = writeln!(err, "{}", failure.told(options.output));
            return match failure {
                Failure::NoTerminal => Exit::Usage,
                _ => Exit::Failed,
            };
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

fn client(options: &Options) -> Client {
    let socket = options.socket.as_deref();
    Client::new(socket.unwrap_or(Path::new(DEFAULT_SOCKET)))
}

async fn report(client: &Client) -> Result<Report, Failure> {
    Ok(client.report(PATIENCE).await?)
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
