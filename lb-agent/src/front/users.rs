//! The lists of users that services may ask passwords of (`lb_auth`): files of the host, named in the configuration.
//!
//! A service names a list and never a file. The front cannot read files, so it is told what is in them. A list whose file
//! cannot be read is no list, and whoever asks for it is closed: what was right before may have been taken away on purpose.

pub(crate) mod htpasswd;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use lb_front::users::Users;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Problem,
    discover::file::{Error, watch_files::watch_files},
};

/// All lists, and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// By their names; `None` is one that cannot be read.
    pub(super) users: BTreeMap<String, Option<Arc<Users>>>,
    problems: BTreeMap<String, Problem>,
}

impl Lists {
    /// The lists that are others than in `before`.
    pub fn since(&self, before: &Self) -> Vec<(String, Option<Arc<Users>>)> {
        let others = self.users.iter();
        let others = others.filter(|(name, users)| before.users.get(*name) != Some(users));
        others
            .map(|(name, users)| (name.clone(), users.clone()))
            .collect()
    }

    /// What is wrong with them.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values()
    }

    /// The list `name` is what the `file` says.
    pub fn read(&mut self, name: &str, path: &Path, file: io::Result<Vec<u8>>) {
        let (users, problem) = match file {
            Ok(text) => {
                let (users, wrong) = htpasswd::read(&text);
                (Some(Arc::new(users)), told(&wrong))
            }
            Err(error) => {
                let problem = format!(
                    "it cannot be read ({error}), so services with `lb_auth={name}` are closed; write it with `htpasswd -B`"
                );
                (None, Some(problem))
            }
        };
        let subject = || format!("users of `{name}` in {}", path.display());
        match problem {
            Some(problem) => {
                let problem = Problem::new(subject(), problem);
                if self.problems.get(name) != Some(&problem) {
                    tracing::warn!(%problem, "users not read as they are");
                }
                self.problems.insert(name.to_owned(), problem);
            }
            None => drop(self.problems.remove(name)),
        }
        if let Some(users) = &users {
            tracing::info!(list = name, users = users.count(), "users read");
        }
        self.users.insert(name.to_owned(), users);
    }
}

/// What is wrong with the lines of a file, as one text.
fn told(wrong: &[String]) -> Option<String> {
    let shown = wrong.iter().take(SHOWN).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join("; ");
    match wrong.len().saturating_sub(SHOWN) {
        0 => (!wrong.is_empty()).then_some(shown),
        more => Some(format!("{shown}; and {more} more lines")),
    }
}

/// Sends the lists once all `files` were looked at, and after every change of one, until `stop`.
///
/// # Errors
///
/// When the kernel refuses to watch any file. A missing or wrong file is no error: it is told beside the lists.
pub async fn run(
    files: BTreeMap<String, PathBuf>,
    out: watch::Sender<Option<Arc<Lists>>>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut lists = Lists::default();
    watch_files(&files, &stop, |name, path, text, all| {
        lists.read(name, path, text);
        if all {
            out.send_replace(Some(Arc::new(lists.clone())));
        }
    })
    .await
}

/// How many wrong lines are told.
const SHOWN: usize = 3;

#[cfg(test)]
mod tests;
