//! `lb-agent`: the command.

mod preflight;
mod privileges;
mod register;
mod resolver;
mod run;
mod uninstall;

use std::process::ExitCode;

use clap::Parser as _;
use lb_agent::{
    admin::text,
    check_config::{CheckArgs, Checked},
    cli::{self, Cli, Command, Output},
    config::{Action, Config, LogFormat, RegisterConfig, with_long_flags},
    reconcile::error_chain,
};
use lb_sys::inherit::Inherited;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse_from(with_long_flags(std::env::args_os()));
    match cli.command {
        Command::Ask(ask) => cli::execute(&cli.options, &ask),
        Command::Front(args) => {
            log(if args.log_json {
                LogFormat::Json
            } else {
                LogFormat::Text
            });
            report(lb_front::child_main(&args).map_err(Into::into))
        }
        Command::Register(args) => match RegisterConfig::load(&args) {
            Ok(config) => {
                log(config.log_format);
                report(register::run(config, cli.options.output))
            }
            Err(error) => refuse(&error.to_string()),
        },
        Command::Resolver(args) => {
            let wanted = match &args.action {
                Action::Install(install) => install.wanted().map(Some),
                Action::Uninstall | Action::Status => Ok(None),
            };
            match wanted {
                Ok(wanted) => report(resolver::run(&args, wanted.as_ref(), cli.options.output)),
                Err(error) => refuse(&error.to_string()),
            }
        }
        Command::Uninstall(args) => match args.places(cli.options.socket.as_deref()) {
            Ok(places) => report(uninstall::run(&args, &places, cli.options.output)),
            Err(error) => refuse(&error.to_string()),
        },
        Command::CheckConfig(args) => check_config(*args, cli.options.output),
        Command::Run(args) => {
            // Before anything else opens descriptors.
            let inherited = match Inherited::take() {
                Ok(inherited) => inherited,
                Err(error) => {
                    return refuse(&format!("cannot take over the passed listeners: {error}"));
                }
            };
            match Config::load(&args) {
                Ok(config) => {
                    log(config.log_format);
                    report(run::run(config, inherited))
                }
                Err(error) => refuse(&error.to_string()),
            }
        }
    }
}

fn check_config(args: CheckArgs, output: Output) -> ExitCode {
    let (quiet, show) = (args.quiet, args.show);
    let checked = Checked::load(args);
    match output {
        Output::Json => println!("{:#}", serde_json::json!(checked)),
        _ if !checked.mistakes.is_empty() => {
            for mistake in &checked.mistakes {
                eprintln!("{}", text::visible(mistake));
            }
        }
        _ if quiet => {}
        _ if show => print!("{}", checked.table()),
        _ => println!("{}", checked.line()),
    }
    match checked.mistakes.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(USAGE),
    }
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("lb-agent: {message}");
    ExitCode::from(USAGE)
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb-agent: {}", error_chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn log(format: LogFormat) {
    use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("LB_LOG")
        .from_env_lossy();
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().init(),
    }
}
