//! Several files of one kind, each with a name of its own, as they are now and after every change.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use tokio::{select, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Error, watch_file::FileWatch};

/// Calls `read` with the name, the path and the content of each of the `files`, once at first and after every change of it,
/// until `stop`; and with whether all of them have been looked at by then.
///
/// # Errors
///
/// When the kernel refuses to watch any file. One that is missing or cannot be read is no error: `read` is told.
pub(crate) async fn watch_files<K: Ord + Clone + Send + 'static>(
    files: &BTreeMap<K, PathBuf>,
    stop: &CancellationToken,
    mut read: impl FnMut(&K, &Path, io::Result<Vec<u8>>, bool),
) -> Result<(), Error> {
    let (read_in, mut reads) = mpsc::channel(1);
    let mut watches = JoinSet::new();
    for (name, path) in files {
        let mut file = FileWatch::new(path.clone()).map_err(Error::Watch)?;
        let (name, read_in) = (name.clone(), read_in.clone());
        watches.spawn(async move {
            while read_in
                .send((name.clone(), file.next(Vec::new()).await))
                .await
                .is_ok()
            {}
        });
    }
    let mut unread: BTreeSet<_> = files.keys().collect();
    loop {
        let (name, text) = select! {
            // It is not closed: here is one of its ends.
            Some(read) = reads.recv() => read,
            () = stop.cancelled() => return Ok(()),
        };
        unread.remove(&name);
        read(&name, &files[&name], text, unread.is_empty());
    }
}
