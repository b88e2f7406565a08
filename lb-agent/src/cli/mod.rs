//! The commands that ask a running agent: their definition, and what they print.
//!
//! They only talk to the agent's unix socket. Tables are for people and may change; the JSON of
//! `-o json` is the agent's own and is kept.

mod ask;
mod backends;
mod client;
mod clients;
mod drain;
mod explain;
mod failure;
mod flows;
mod options;
mod services;
mod status;
mod table;
mod terminal;
mod trace;
mod vip;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;

pub(crate) use self::client::Client;
use self::client::ClientError;
pub use self::{
    ask::{Ask, Cli, Command, Options, Output, Vip},
    terminal::Style,
};
use self::{client::Client, failure::Failure};
use crate::admin::report::Report;

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
        Ask::Clients => clients::clients(&client, options.output).await,
        Ask::Flows { service } => flows::flows(&client, options.output, service.as_deref()).await,
        Ask::Explain {
            client: who,
            service,
        } => explain::explain(&client, options.output, who, service).await,
        Ask::Vip(order) => vip::vip(&client, options.output, order).await,
        Ask::Options => options::list(options.output),
        Ask::Drain { target, undo } => drain::drain(&client, options.output, target, *undo).await,
        Ask::Status => report(&client)
            .await
            .and_then(|report| status::status(&report, options.output, style)),
        Ask::Services { name } => report(&client)
            .await
            .and_then(|report| services::services(&report, options.output, name.as_deref())),
        Ask::Backends { service } => report(&client)
            .await
            .and_then(|report| backends::backends(&report, options.output, service.as_deref())),
    };
    let (text, exit) = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            // If standard error is gone too, the exit status is all that is left.
            let _ = writeln!(err, "{}", failure.told(options.output));
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
