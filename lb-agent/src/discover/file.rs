//! The `file` source: services written in a TOML file, read again whenever it changes.
//!
//! A file that cannot be read or is wrong leaves the last good catalog in force and says so in
//! [`SourceState::error`]. The stage owns the watch and the last good catalog; it never writes the file.

mod parse;
mod reading;
pub(crate) mod watch_file;
pub(crate) mod watch_files;

use std::{io, path::PathBuf, time::SystemTime};

use tokio::{select, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use parse::{FileError, parse};
use reading::Reading;
use watch_file::{FileWatch, Text};

use crate::catalog::SourceState;

/// Where the services are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// The file; it may appear later.
    pub path: PathBuf,
}

/// Why the source had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel gives no more inotify instances.
    #[error("cannot watch files for changes; raise fs.inotify.max_user_instances")]
    Watch(#[source] notify::Error),
}

/// Sends the catalog of the file, and again after every change, until `stop`.
///
/// # Errors
///
/// When the kernel refuses to watch any file. A missing or wrong file is no error: it is told in the state.
pub async fn run(
    config: FileConfig,
    out: watch::Sender<SourceState>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut file = FileWatch::new(config.path.clone()).map_err(Error::Watch)?;
    let mut state = SourceState::default();
    let mut reading = Reading::default();
    loop {
        let text = select! {
            text = file.next(reading.room()) => text,
            () = stop.cancelled() => return Ok(()),
        };
        state = after_reading(state, &config, &mut reading, text);
        out.send_replace(state.clone());
    }
}

/// The state after the file was read anew; logs what changed.
fn after_reading(
    before: SourceState,
    config: &FileConfig,
    reading: &mut Reading,
    text: io::Result<Text>,
) -> SourceState {
    let path = config.path.display();
    let error = match text.map(|text| reading.read(text)) {
        Ok(Ok(catalog)) => {
            let (services, problems) = (catalog.services.len(), catalog.problems.len());
            info!(%path, services, problems, "services read");
            return SourceState {
                catalog: Some(catalog),
                updated: Some(SystemTime::now()),
                ..SourceState::default()
            };
        }
        Ok(Err(wrong)) => format!("{path} is wrong: {wrong}"),
        Err(error) => format!("cannot read {path}: {error}"),
    };
    if before.error.as_ref() != Some(&error) {
        warn!(%path, error, "services not read; the last good ones stay");
    }
    SourceState {
        error: Some(error),
        ..before
    }
}
