//! What is made of the definition of the command line: completions for shells, and the pages of the manual.

use std::{
    io::{self, Write as _},
    path::Path,
};

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::Cli;

/// Prints what makes `shell` complete commands and flags.
///
/// # Errors
/// When it cannot be printed.
pub fn completions(shell: Shell) -> io::Result<()> {
    let mut text = Vec::new();
    generate(shell, &mut offered(), NAME, &mut text);
    if shell == Shell::Bash {
        // For bash clap_complete 4.6 writes the hyphen of our name in two ways, and so finds no words of subcommands.
        let same = String::from_utf8_lossy(&text).replace("lb__agent", "lb__subcmd__agent");
        return print(same.as_bytes());
    }
    print(&text)
}

/// The definition without what is hidden.
fn offered() -> Command {
    let all = Cli::command();
    let commands = all.get_subcommands().filter(|it| !it.is_hide_set());
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments().cloned())
        .subcommands(commands.cloned())
}

/// Writes a page for each command into `folder`, or prints that of the program.
///
/// # Errors
/// When it cannot be written.
pub fn man(folder: Option<&Path>) -> io::Result<()> {
    match folder {
        Some(folder) => clap_mangen::generate_to(Cli::command(), folder),
        None => {
            let mut text = Vec::new();
            Man::new(Cli::command().disable_help_subcommand(true)).render(&mut text)?;
            print(&text)
        }
    }
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

const NAME: &str = "lb-agent";
