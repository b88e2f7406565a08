//! Says when a file has a new content that is whole, and gives it.
//!
//! Watches the parent directory, so that a file replaced by a rename is seen, and one that appears. What is
//! written, in place or anew, counts when the writer closes the file, never in the middle. What inotify cannot see (a
//! directory that does not exist yet, a single bind-mounted file, a network file system, the far end of a symbolic
//! link) is found by a look every two seconds.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode},
};
use tokio::{
    select,
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval_at},
};

/// The content of the file, whatever it is.
pub(crate) type Text = Vec<u8>;

pub(crate) struct FileWatch {
    path: PathBuf,
    directory: PathBuf,
    /// Which directory is watched; `None` while there is none.
    watched: Option<Identity>,
    watcher: RecommendedWatcher,
    /// Woken by the watcher's thread.
    touched: Arc<Notify>,
    looks: tokio::time::Interval,
    /// Whether there is to be read what nobody was given yet.
    pending: bool,
    /// What was read last; `None` before the first reading.
    read: Option<Stamp>,
    /// What the last look found. A stamp counts only when two looks agree: in between somebody writes.
    seen: Option<Stamp>,
}

/// Tells two contents of a file apart without reading them, and whether it may be read; `Err` holds why there is none.
pub(crate) type Stamp = Result<Marks, io::ErrorKind>;

/// Inode, length, and when content and inode were changed last. The latter is another one also after a change of owner or
/// mode; but not every file system that is none of a disk's keeps it.
type Marks = (u64, u64, [i64; 4]);

/// Tells two directories of the same name apart. The inode alone may be given to the next one.
type Identity = (u64, u64, Option<SystemTime>);

impl FileWatch {
    /// # Errors
    ///
    /// When the kernel gives no inotify instance.
    pub(crate) fn new(path: PathBuf) -> notify::Result<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let touched = Arc::new(Notify::new());
        let mut sight = Sight::new(&path);
        let wake = Arc::clone(&touched);
        let watcher = notify::recommended_watcher(move |event| {
            if sight.concerns(&event) {
                wake.notify_one();
            }
        })?;
        let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            path,
            directory,
            watched: None,
            watcher,
            touched,
            looks,
            pending: true,
            read: None,
            seen: None,
        })
    }

    /// The content, in `room`: at once the first time and then whenever there is a new one. Whoever stops waiting for it
    /// loses nothing: the next call gives it.
    pub(crate) async fn next(&mut self, room: Text) -> io::Result<Text> {
        while !self.pending {
            select! {
                () = self.touched.notified() => self.pending = true,
                _ = self.looks.tick() => {
                    let (directory, now) = self.look().await;
                    self.watch(directory);
                    let settled = self.seen.replace(now) == Some(now);
                    self.pending = settled && self.read != Some(now);
                }
            }
        }
        // What happened may be that the directory was replaced.
        let (directory, _) = self.look().await;
        self.watch(directory);
        let text = self.read(room).await;
        self.pending = false;
        text
    }

    /// Which directory and which content there is now.
    async fn look(&self) -> (Option<Identity>, Stamp) {
        let (directory, path) = (self.directory.clone(), self.path.clone());
        let look = blocking(move || Ok((identity(&directory), stamp(&path))));
        look.await.unwrap_or_else(|error| (None, Err(error.kind())))
    }

    /// Watches the directory if it has appeared, or been replaced by another of the same name.
    fn watch(&mut self, directory: Option<Identity>) {
        if directory == self.watched {
            return;
        }
        let watched = self
            .watcher
            .watch(&self.directory, RecursiveMode::NonRecursive);
        // A failure is no news: the looks go on, and a missing directory shows in the reading.
        self.watched = directory.filter(|_| watched.is_ok());
    }

    async fn read(&mut self, room: Text) -> io::Result<Text> {
        let path = self.path.clone();
        let read = blocking(move || {
            let read = read(&path, room);
            let failure = |error: &io::Error| error.kind();
            let stamp = read.as_ref().map(|(stamp, _)| *stamp).map_err(failure);
            Ok((stamp, read.map(|(_, text)| text)))
        });
        let (stamp, text) = read.await?;
        self.read = Some(stamp);
        text
    }
}

/// Which events of the directory concern the file.
struct Sight {
    path: PathBuf,
    name: Option<OsString>,
    /// Where the path led at the last event: a symbolic link on the way may be turned elsewhere.
    target: Option<PathBuf>,
}

impl Sight {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            name: path.file_name().map(ToOwned::to_owned),
            target: path.canonicalize().ok(),
        }
    }

    fn concerns(&mut self, event: &notify::Result<Event>) -> bool {
        let Ok(event) = event else {
            return true;
        };
        if event.need_rescan() {
            return true;
        }
        // Not `Modify(Data)`: that is the middle of a write, and begins with an empty file.
        let whole = matches!(
            event.kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
                // `Both` says again what `From` and `To` have said.
                | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::To))
                | EventKind::Remove(RemoveKind::File)
        );
        let linked = event.kind == EventKind::Create(CreateKind::File)
            && event.paths.iter().any(|path| is_link(path));
        if !whole && !linked {
            return false;
        }
        let name = self.name.as_deref();
        if event.paths.iter().any(|path| path.file_name() == name) {
            return true;
        }
        let target = self.path.canonicalize().ok();
        let turned = target != self.target;
        self.target = target;
        turned
    }
}

/// Whether there is a link, whose content is another name's, too. A file that was made by opening it has yet to be written.
fn is_link(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|it| it.is_symlink() || it.nlink() > 1)
}

fn read(path: &Path, mut text: Text) -> io::Result<(Marks, Text)> {
    let metadata = path.metadata()?;
    // Before the opening, which would wait for ever at a pipe.
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // One byte more than there should be, so that the end is found without asking for more room.
    let room = metadata.len().min(SIZE_LIMIT) + 1;
    text.reserve(usize::try_from(room).unwrap_or_default());
    file.take(SIZE_LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > SIZE_LIMIT {
        return Err(io::Error::other(format!(
            "it is larger than {SIZE_LIMIT} bytes"
        )));
    }
    Ok((marks(&metadata), text))
}

fn identity(directory: &Path) -> Option<Identity> {
    let metadata = directory.metadata().ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

pub(crate) fn stamp(path: &Path) -> Stamp {
    let metadata = path.metadata().map_err(|error| error.kind())?;
    Ok(marks(&metadata))
}

fn marks(of: &std::fs::Metadata) -> Marks {
    let times = [of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()];
    (of.ino(), of.len(), times)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

const LOOK_EVERY: Duration = Duration::from_secs(2);

const SIZE_LIMIT: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, hard_link, rename},
        io::Write as _,
        os::unix::fs::symlink,
        pin::pin,
        sync::mpsc::{Receiver, channel},
        task::{Context, Waker},
    };

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// What becomes of the events, one after the other.
    fn watch(path: &Path) -> (Sight, Receiver<notify::Result<Event>>, RecommendedWatcher) {
        let (tell, told) = channel();
        let mut watcher = notify::recommended_watcher(tell).unwrap();
        let directory = path.parent().unwrap();
        watcher
            .watch(directory, RecursiveMode::NonRecursive)
            .unwrap();
        (Sight::new(path), told, watcher)
    }

    /// The next event that concerns the file.
    fn next(sight: &mut Sight, told: &Receiver<notify::Result<Event>>) -> EventKind {
        loop {
            let event = told.recv_timeout(LIMIT).unwrap();
            if sight.concerns(&event) {
                return event.unwrap().kind;
            }
        }
    }

    #[test]
    fn a_file_that_is_made_counts_when_its_writer_closes_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services.toml");
        let (mut sight, told, _watcher) = watch(&path);
        let mut file = File::create_new(&path).unwrap();
        file.write_all(b"half").unwrap();
        let mut event = told.recv_timeout(LIMIT).unwrap();
        while event.as_ref().unwrap().kind != EventKind::Create(CreateKind::File) {
            assert!(!sight.concerns(&event), "{event:?}");
            event = told.recv_timeout(LIMIT).unwrap();
        }
        assert!(!sight.concerns(&event), "{event:?}");
        file.write_all(b" and half").unwrap();
        drop(file);
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert_eq!(next(&mut sight, &told), closed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_stopped_waiting_for_is_given_to_whoever_waits_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "a").unwrap();
        let mut file = FileWatch::new(path).unwrap();
        assert_eq!(file.next(Vec::new()).await.unwrap(), b"a");
        // Until the waiting ends in the middle of reading what the watcher told.
        loop {
            file.touched.notify_one();
            let waiting = pin!(file.next(Vec::new()));
            let mut nobody = Context::from_waker(Waker::noop());
            if waiting.poll(&mut nobody).is_pending() {
                break;
            }
        }
        // Before any look would find it.
        let next = timeout(LOOK_EVERY / 2, file.next(Vec::new())).await;
        assert_eq!(next.unwrap().unwrap(), b"a");
    }

    #[test]
    fn what_is_put_in_place_whole_counts_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir_in(directory.path()).unwrap();
        let path = directory.path().join("services.toml");
        let ready = elsewhere.path().join("ready");
        fs::write(&ready, "whole").unwrap();
        let (mut sight, told, _watcher) = watch(&path);
        let created = EventKind::Create(CreateKind::File);
        let removed = EventKind::Remove(RemoveKind::File);
        for link in [hard_link, symlink] {
            link(&ready, &path).unwrap();
            assert_eq!(next(&mut sight, &told), created);
            fs::remove_file(&path).unwrap();
            assert_eq!(next(&mut sight, &told), removed);
        }
        rename(&ready, &path).unwrap();
        let moved = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        assert_eq!(next(&mut sight, &told), moved);
    }
}
