//! From the command line, the environment and the file to a configuration.

use std::{io, path::Path};

use super::{Config, Error, RawConfig, RunArgs, registrar, resolve};

/// What resolving reads from outside, so that tests can be their own outside.
#[derive(Clone, Copy)]
pub struct Outside<'o> {
    /// A variable of the environment.
    pub variable: &'o dyn Fn(&str) -> Option<String>,
    /// The text of a file.
    pub read: &'o dyn Fn(&Path) -> io::Result<String>,
}

impl Outside<'static> {
    /// The environment of this process and the files of this host.
    pub fn real() -> Self {
        Self {
            variable: &|name| std::env::var(name).ok(),
            read: &|path| std::fs::read_to_string(path),
        }
    }
}

impl Config {
    /// The configuration that `args`, the environment and the file make together.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn load(args: &RunArgs) -> Result<Self, Error> {
        Self::load_from(args, Outside::real())
    }

    /// As [`Config::load`], from this `outside`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn load_from(args: &RunArgs, outside: Outside<'_>) -> Result<Self, Error> {
        Self::load_with_origins(args, outside).map(|(config, _)| config)
    }

    /// As [`Config::load_from`], with what was typed beside it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn load_with_origins(
        args: &RunArgs,
        outside: Outside<'_>,
    ) -> Result<(Self, RawConfig), Error> {
        let (file, mut mistakes) = Self::read_file(args.config.as_deref(), outside);
        let file_is_good = mistakes.is_empty();
        let variables = registrar::from_variables(outside.variable, &mut mistakes);
        let typed = RawConfig::from_args(args).over(variables);
        let raw = typed.over(file.over(RawConfig::from_consul_variables(outside.variable)));
        match resolve(&raw, outside) {
            Ok(config) if mistakes.is_empty() => Ok((config, raw)),
            Ok(_) => Err(Error { mistakes }),
            Err(error) => {
                // What a broken file would have said is not known: do not complain that it is missing.
                let known =
                    |mistake: &String| file_is_good || !mistake.starts_with(resolve::NO_SOURCE);
                mistakes.extend(error.mistakes.into_iter().filter(known));
                Err(Error { mistakes })
            }
        }
    }

    /// What the file says, and what is wrong with it.
    pub(super) fn read_file(
        named: Option<&Path>,
        outside: Outside<'_>,
    ) -> (RawConfig, Vec<String>) {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let wrong = |mistakes| (RawConfig::default(), mistakes);
        match (outside.read)(path) {
            Ok(text) => match RawConfig::from_toml(path, &text) {
                Ok(raw) => (raw, Vec::new()),
                Err(mistakes) => wrong(mistakes),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
                wrong(Vec::new())
            }
            Err(error) => wrong(vec![format!(
                "{}: cannot be read: {error}; correct --config or the permissions",
                path.display()
            )]),
        }
    }
}

/// Read if it is there and no other is named.
pub const DEFAULT_FILE: &str = "/etc/lb/lb.toml";
