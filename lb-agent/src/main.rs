//! `lb-agent`: the command.

mod log;
mod preflight;
mod privileges;
mod register;
mod resolver;
mod run;
mod systemd;
mod uninstall;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use lb_agent::{
    admin::text,
    bundle::{self, BundleArgs},
    causes::error_chain,
    check_config::{CheckArgs, Checked},
    cli::{self, Cli, Command, Exit, Options, Output, Style, pages},
    config::{Action, Config, LogFormat, Outside, RegisterConfig, is_typed, with_long_flags},
    doctor::{self, DoctorArgs},
};
use lb_sys::inherit::Inherited;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse_from(with_long_flags(std::env::args_os()));
    if cli.options.output == Output::Csv && !cli.command.has_rows() {
        return refuse("this command prints no rows, and so no CSV: use -o json");
    }
    match cli.command {
        Command::Ask(ask) => cli::execute(&cli.options, &ask),
        Command::Completions { shell } => report(pages::completions(shell).context("cannot print")),
        Command::Man { dir } => {
            let failed = || match &dir {
                None => "cannot print".to_owned(),
                Some(dir) => format!("cannot write into {}", dir.display()),
            };
            report(pages::man(dir.as_deref()).with_context(failed))
        }
        Command::Front(args) => {
            log::start(match (args.log_json, args.log_journald) {
                (true, _) => LogFormat::Json,
                (false, true) => LogFormat::Journald,
                (false, false) => LogFormat::Text,
            });
            report(lb_front::child_main(&args).map_err(Into::into))
        }
        Command::Register(args) => match RegisterConfig::load(&args) {
            Ok(config) => {
                log::start(log::resolve(config.log_format));
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
        Command::Doctor(args) => doctor(&args, &cli.options),
        Command::Bundle(args) => gather(&args, &cli.options),
        Command::CheckConfig(args) => check_config(*args, cli.options.output),
        Command::Run(args) => {
            // Before anything else opens descriptors.
            let inherited = match Inherited::take() {
                Ok(inherited) => inherited,
                Err(error) => {
                    return refuse(&format!("cannot take over the passed listeners: {error}"));
                }
            };
            match Config::load_with_origins(&args, Outside::real()) {
                Ok((mut config, raw)) => {
                    let settings = config.settings(&raw, &is_typed);
                    config.log_format = log::resolve(config.log_format);
                    let log = log::start(config.log_format);
                    report(run::run(config, settings, inherited, log))
                }
                Err(error) => refuse(&error.to_string()),
            }
        }
    }
}

fn doctor(args: &DoctorArgs, options: &Options) -> ExitCode {
    if args.try_bpf {
        let may = doctor::may_call_bpf();
        return if may { Exit::Fine } else { Exit::Failed }.into();
    }
    let found = match runtime() {
        Ok(runtime) => runtime.block_on(doctor::examine(args, options.socket.as_deref())),
        Err(error) => return report(Err(error.into())),
    };
    let text = match options.output {
        Output::Json => format!("{:#}\n", serde_json::json!(found)),
        _ => found.table(Style::of_stdout()),
    };
    print(&text, found.exit().into())
}

fn gather(args: &BundleArgs, options: &Options) -> ExitCode {
    let written = runtime()
        .and_then(|runtime| runtime.block_on(bundle::write(args, options.socket.as_deref())));
    let bundle = match written {
        Ok(bundle) => bundle,
        Err(error) => {
            return report(
                Err(error).context("cannot write the archive; name another file with -f"),
            );
        }
    };
    let text = match options.output {
        Output::Json => format!("{:#}\n", serde_json::json!(bundle)),
        _ => bundle.text(),
    };
    print(&text, ExitCode::SUCCESS)
}

fn check_config(args: CheckArgs, output: Output) -> ExitCode {
    let (quiet, show) = (args.quiet, args.show);
    let checked = Checked::load(args);
    let exit = match checked.mistakes.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(USAGE),
    };
    match output {
        Output::Json => print(&format!("{:#}\n", serde_json::json!(checked)), exit),
        _ if !checked.mistakes.is_empty() => {
            for mistake in &checked.mistakes {
                eprintln!("{}", text::visible(mistake));
            }
            exit
        }
        _ if quiet => exit,
        _ if show => print(&checked.table(), exit),
        _ => print(&format!("{}\n", checked.line()), exit),
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Prints `text` and ends with `exit`, also when its reader has seen enough.
fn print(text: &str, exit: ExitCode) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report(Err(error).context("cannot print"))
        }
        _ => exit,
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
