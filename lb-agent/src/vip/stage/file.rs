//! A file of the state directory, and what is wrong with it.

use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use tokio::task::spawn_blocking;

use super::{super::Error, VERSION};
use crate::{catalog::Problem, state_file};

/// A file in the state directory.
pub(super) struct File<T> {
    pub(super) path: PathBuf,
    name: &'static str,
    /// What happens if it cannot be written.
    consequence: &'static str,
    pub(super) problem: Option<Problem>,
    _holds: std::marker::PhantomData<fn(T)>,
}

impl<T: Serialize + DeserializeOwned + Send + 'static> File<T> {
    /// The file at `path` and what is in it.
    pub(super) async fn open(
        path: PathBuf,
        name: &'static str,
        consequence: &'static str,
    ) -> Result<(Self, Option<T>), Error> {
        let mut file = Self {
            path,
            name,
            consequence,
            problem: None,
            _holds: std::marker::PhantomData,
        };
        let path = file.path.clone();
        let loaded = spawn_blocking(move || state_file::load::<T>(&path, VERSION))
            .await
            .map_err(|error| Error::Task("reads VIP records", error))?;
        let value = loaded.unwrap_or_else(|error| {
            file.problem = Some(file.trouble(&error));
            None
        });
        Ok((file, value))
    }

    /// Replaces what is in it; whether that worked.
    pub(super) async fn save(&mut self, value: T) -> Result<bool, Error> {
        let path = self.path.clone();
        let saved = spawn_blocking(move || state_file::save(&path, VERSION, &value))
            .await
            .map_err(|error| Error::Task("writes VIP records", error))?;
        self.saved(saved);
        Ok(self.problem.is_none())
    }

    pub(super) fn saved(&mut self, result: Result<(), state_file::Error>) {
        self.problem = result.err().map(|error| self.trouble(&error));
    }

    fn trouble(&self, error: &state_file::Error) -> Problem {
        use std::error::Error as _;
        let source = error.source().map(|source| format!(": {source}"));
        let (name, consequence) = (self.name, self.consequence);
        let path: &Path = &self.path;
        Problem::new(
            format!("{name} {}", path.display()),
            format!(
                "{error}{}; see to the state directory, or {consequence}",
                source.unwrap_or_default()
            ),
        )
    }
}
