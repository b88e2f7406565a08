//! `lb-agent check-config`: whether `run` would take what it is told, without being on the host.
//!
//! It reads the same flags, variables and files. What a host alone can tell, such as its cgroups, and files that this
//! user may not read are left out.

use std::{
    cell::RefCell,
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;

use crate::{
    admin::text::visible,
    config::{Config, DEFAULT_FILE, Outside, RunArgs, Setting, is_typed},
    discover::file,
    docker, options,
};

/// Checks a configuration without starting anything.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CheckArgs {
    /// The configuration [default: that of LB_CONFIG, else /etc/lb/lb.toml if it is there]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print nothing but mistakes
    #[arg(short, long)]
    pub quiet: bool,
    /// Print every key with its value and where that comes from
    #[arg(long, conflicts_with = "quiet")]
    pub show: bool,
    /// What `run` would be told beside it.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The file that was read, if any was.
    pub file: Option<PathBuf>,
    /// Everything that is wrong, each with where it was typed and what to do.
    pub mistakes: Vec<String>,
    /// What `run` obeys although it may not be meant, each with what to do.
    pub warnings: Vec<String>,
    /// What could not be looked at from here, each with why.
    pub unread: Vec<String>,
    /// Every key that holds; empty if something is wrong with them.
    pub settings: Vec<Setting>,
}

impl Checked {
    /// What `args`, the environment and the files say together.
    pub fn load(args: CheckArgs) -> Self {
        Self::load_from(args, Outside::real(), &is_typed)
    }

    /// As [`Checked::load`], from this `outside`.
    pub fn load_from(
        args: CheckArgs,
        outside: Outside<'_>,
        is_typed: &dyn Fn(&str) -> bool,
    ) -> Self {
        let mut run = args.run;
        run.config = args.file.or(run.config);
        let named = run.config.clone();
        let file = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let unread = RefCell::new(Vec::new());
        let away = Outside {
            read: &|path| match (outside.read)(path) {
                Err(error) if path != file => stand_in(path, error, &unread),
                read => read,
            },
            ..outside
        };
        let loaded = Config::load_with_origins(&run, away);
        let services = match &loaded {
            Ok((config, _)) => config.sources.file.clone(),
            Err(_) => run.services.clone(),
        };
        let is_there = named.is_some() || (outside.read)(&file).is_ok();
        let mut checked = Self {
            file: is_there.then_some(file),
            ..Self::default()
        };
        match loaded {
            Ok((config, raw)) => {
                checked.settings = config.settings(&raw, is_typed);
                checked.warnings = config.warnings();
            }
            Err(error) => checked.mistakes = error.mistakes,
        }
        checked.unread = unread.into_inner();
        if let Some(path) = services {
            match (outside.read)(&path) {
                Ok(text) => checked.mistakes.extend(of_services(&path, &text)),
                Err(error) if run.services.is_some() => checked.mistakes.push(format!(
                    "{}: cannot be read: {error}; correct --services or the permissions",
                    path.display()
                )),
                Err(error) => checked.unread.push(unread_line(&path, &error)),
            }
        }
        checked
    }

    /// What is said if nothing is wrong.
    pub fn line(&self) -> String {
        let what = match &self.file {
            Some(file) => file.display().to_string(),
            None => "no file".to_owned(),
        };
        let mut line = format!("{what}: correct");
        let variables: Vec<_> = self
            .settings
            .iter()
            .filter(|it| is_variable(&it.origin))
            .map(|it| format!("{} by {}", it.key, it.origin))
            .collect();
        if !variables.is_empty() {
            line.push_str(&format!("; from variables: {}", variables.join(", ")));
        }
        if !self.warnings.is_empty() {
            line.push_str(&format!("; warning: {}", self.warnings.join("; ")));
        }
        if !self.unread.is_empty() {
            line.push_str(&format!("; not looked at: {}", self.unread.join(", ")));
        }
        visible(&line).into_owned()
    }

    /// Every key, a line each.
    pub fn table(&self) -> String {
        let width = |text: fn(&Setting) -> usize| self.settings.iter().map(text).max();
        let keys = width(|it| it.key.len()).unwrap_or(0);
        let line = |it: &Setting| {
            let value = match &it.value {
                Value::Null => "-".to_owned(),
                Value::String(text) => text.clone(),
                value => value.to_string(),
            };
            let line = format!("{:keys$}  {value}  ({})", it.key, it.origin);
            visible(&line).into_owned() + "\n"
        };
        self.settings.iter().map(line).collect()
    }
}

/// A flag begins with a hyphen, a place in a file has a colon.
fn is_variable(origin: &str) -> bool {
    origin
        .bytes()
        .all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == b'_')
}

/// Another host's text in place of one that cannot be read on this one.
fn stand_in(path: &Path, error: io::Error, unread: &RefCell<Vec<String>>) -> io::Result<String> {
    // Whether the engine is there decides whether it is followed, so that is this host's word.
    let engine = docker::Address::default();
    if matches!(engine, docker::Address::Unix(socket) if socket == path) {
        return Err(error);
    }
    unread.borrow_mut().push(unread_line(path, &error));
    Ok(match path.to_str() {
        Some(MOUNTS) => "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n".to_owned(),
        _ => "not read".to_owned(),
    })
}

fn unread_line(path: &Path, error: &io::Error) -> String {
    format!("{} ({error})", path.display())
}

/// What is wrong with a services file, its options included.
fn of_services(path: &Path, text: &str) -> Vec<String> {
    let catalog = match file::parse(text) {
        Ok(catalog) => catalog,
        Err(error) => {
            let mistakes = error.mistakes.into_iter();
            let place = |line| format!("{}:{line}", path.display());
            return mistakes
                .map(|it| format!("{}: {}", place(it.line), it.message))
                .collect();
        }
    };
    let of_options = catalog
        .services
        .iter()
        .flat_map(|(name, instances)| options::resolve(name, instances).problems);
    let all = catalog.problems.iter().cloned().chain(of_options);
    all.map(|it| format!("{}: {}: {}", path.display(), it.subject, it.message))
        .collect()
}

const MOUNTS: &str = "/proc/self/mountinfo";

#[cfg(test)]
mod tests;
