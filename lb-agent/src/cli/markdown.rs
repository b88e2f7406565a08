//! The command line as a document: `docs/cli.md` is made from the same definition as `--help`.

use clap::{Arg, Command};

/// All commands that people type, each with its arguments.
pub fn markdown(command: Command) -> String {
    let mut command = command;
    command.build();
    let mut text = String::new();
    describe(&command, &mut text);
    text
}

fn describe(command: &Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    text.push_str(&format!("## `{name}`\n\n{}\n\n", sentence(&about)));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    text.push_str(&format!("```text\n{usage}\n```\n\n"));
    let shown = |argument: &&Arg| {
        let everywhere = ["help", "version"].contains(&argument.get_id().as_str());
        // What holds for all commands stands with the first.
        let told = argument.is_global_set() && name.contains(' ');
        !(everywhere || told || argument.is_hide_set())
    };
    let mut arguments = command.get_arguments().filter(shown).peekable();
    if arguments.peek().is_some() {
        text.push_str("| | variable | |\n|---|---|---|\n");
        for argument in arguments {
            let variable = argument.get_env().map(|it| format!("`{}`", it.display()));
            let variable = variable.unwrap_or_else(|| "–".to_owned());
            let typed = notation(argument).replace('|', "\\|");
            text.push_str(&format!(
                "| `{typed}` | {variable} | {} |\n",
                meaning(argument)
            ));
        }
        text.push('\n');
    }
    if let Some(after) = command.get_after_help() {
        text.push_str(&format!("```text\n{after}\n```\n\n"));
    }
    for inner in command.get_subcommands() {
        if !inner.is_hide_set() && inner.get_name() != "help" {
            describe(inner, text);
        }
    }
}

/// How it is typed: `-o, --output <FORMAT>`, `[NAME]`.
fn notation(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let takes = argument.get_action().takes_values();
    let values: Vec<_> = names
        .iter()
        .filter(|_| takes)
        .map(|it| format!("<{it}>"))
        .collect();
    let values = values.join(" ");
    let short = argument.get_short().map(|it| format!("-{it}"));
    let long = argument.get_long().map(|it| format!("--{it}"));
    let flags: Vec<_> = short.into_iter().chain(long).collect();
    match (flags.is_empty(), values.is_empty()) {
        (true, _) if argument.is_required_set() => values,
        (true, _) => values.replace('<', "[").replace('>', "]"),
        (false, true) => flags.join(", "),
        (false, false) => format!("{} {values}", flags.join(", ")),
    }
}

fn meaning(argument: &Arg) -> String {
    let help = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut text = help.replace('\n', " ").replace('|', "\\|");
    let possible = argument.get_possible_values();
    let named: Vec<_> = possible.iter().filter(|it| !it.is_hide_set()).collect();
    if argument.get_action().takes_values() && !named.is_empty() {
        let named = named.iter().map(|it| format!("`{}`", it.get_name()));
        text.push_str(&format!(": {}", named.collect::<Vec<_>>().join(", ")));
    }
    let defaults = argument.get_default_values();
    if let (Some(default), true) = (defaults.first(), argument.get_action().takes_values()) {
        text.push_str(&format!(" [default: {}]", default.display()));
    }
    text
}

/// With one full stop behind it.
fn sentence(text: &str) -> String {
    match text.trim_end().trim_end_matches('.') {
        "" => String::new(),
        text => format!("{text}."),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use lb_testkit::markdown::has_what_is_made;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn an_argument_is_written_as_it_is_typed() {
        let arguments = [
            (Arg::new("name").value_name("NAME"), "[NAME]"),
            (Arg::new("name").value_name("NAME").required(true), "<NAME>"),
            (
                Arg::new("undo")
                    .long("undo")
                    .action(clap::ArgAction::SetTrue),
                "--undo",
            ),
            (
                Arg::new("out").short('o').long("out").value_name("FORMAT"),
                "-o, --out <FORMAT>",
            ),
        ];
        for (argument, typed) in arguments {
            let mut command = Command::new("test").arg(argument);
            command.build();
            assert_eq!(notation(command.get_arguments().next().unwrap()), typed);
        }
    }

    #[test]
    fn hidden_commands_and_arguments_are_left_out() {
        let text = markdown(Cli::command());
        assert!(text.contains("## `lb-agent vip pin`"), "{text}");
        for hidden in ["lb-agent front", "--retry-attempts", "--help"] {
            assert!(!text.contains(hidden), "{hidden}");
        }
    }

    #[test]
    fn the_documented_commands_are_those_of_the_code() {
        let made = markdown(Cli::command());
        let is_so = has_what_is_made("docs/cli.md", "lb-agent/src/cli", made.trim_end()).unwrap();
        assert!(is_so, "run `cargo xtask docs`");
    }
}
