//! What is made of the definition of the command line: completions for shells, and the pages of the manual.

use std::{
    io::{self, Write as _},
    path::Path,
};

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::Cli;

/// Prints what makes `shell` complete commands and flags.
///
/// # Errors
/// When it cannot be printed.
pub fn completions(shell: Shell) -> io::Result<()> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), NAME, &mut text);
    print(&text)
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
