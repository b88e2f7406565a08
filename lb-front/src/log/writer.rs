//! Lines on their way out: a buffer of each worker, and the thread that takes them away.

use std::{
    fs::File,
    io::{self, Write},
    mem,
    os::fd::AsFd as _,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwapOption, Guard};
use nix::poll::{PollFd, PollFlags, poll};

use super::{LogSettings, Rules, dates::Dates};

/// The log of one front.
#[derive(Debug)]
pub struct Log {
    /// Whether there are rules.
    on: AtomicBool,
    rules: ArcSwapOption<Rules>,
    buffers: Mutex<Vec<Arc<Buffer>>>,
    output: Mutex<Output>,
    state: Mutex<State>,
    changed: Condvar,
    lost: AtomicU64,
}

/// Lines of one worker.
#[derive(Debug, Default)]
pub(super) struct Buffer(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    dates: Dates,
}

#[derive(Debug, Default)]
struct Output {
    /// In place of standard output.
    file: Option<File>,
    /// Counts the changes of it.
    number: u64,
    tail: Tail,
    /// Whether the last attempt to write failed.
    failing: bool,
}

/// The end of what was written.
#[derive(Clone, Copy, Debug, Default)]
struct Tail {
    /// Whether it is the beginning of a line.
    torn: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Whether there may be lines.
    news: bool,
    ending: bool,
    running: bool,
}

impl Log {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            on: AtomicBool::new(false),
            rules: ArcSwapOption::empty(),
            buffers: Mutex::default(),
            output: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            lost: AtomicU64::new(0),
        })
    }

    /// Follows `settings` from now on.
    pub(crate) fn follow(self: &Arc<Self>, settings: &LogSettings) {
        let on = self.rule(settings);
        let mut state = lock(&self.state);
        if on && !state.running && !state.ending {
            let log = self.clone();
            let thread = thread::Builder::new().name("lb-front-log".into());
            match thread.spawn(move || log.run()) {
                Ok(_) => state.running = true,
                Err(error) => {
                    tracing::error!(%error, "no access log: its thread cannot be started");
                }
            }
        }
    }

    /// Makes lines by `settings`; whether there are any.
    pub(super) fn rule(&self, settings: &LogSettings) -> bool {
        let rules = Rules::new(settings).map(Arc::new);
        let on = rules.is_some();
        self.rules.store(rules);
        self.on.store(on, Ordering::Relaxed);
        on
    }

    /// Lines go into `file` from now on, or to standard output.
    pub fn write_to(&self, file: impl Into<Option<File>>) {
        let mut output = lock(&self.output);
        *output = Output {
            file: file.into(),
            number: output.number + 1,
            ..Output::default()
        };
    }

    /// Lines that were dropped because nobody took them in time, or that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(super) fn rules(&self) -> Guard<Option<Arc<Rules>>> {
        self.rules.load()
    }

    /// A buffer for one more worker.
    pub(super) fn buffer(&self) -> Arc<Buffer> {
        let buffer = Arc::<Buffer>::default();
        lock(&self.buffers).push(buffer.clone());
        buffer
    }

    /// Adds the line that `write` makes, unless `buffer` is full. The lock is free but for the moment in which the
    /// writer takes the lines away.
    pub(super) fn add(&self, buffer: &Buffer, write: impl FnOnce(&mut Vec<u8>, &mut Dates)) {
        let first = {
            let lines = &mut *lock(&buffer.0);
            if lines.bytes.len() > BUFFER {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let first = lines.bytes.is_empty();
            write(&mut lines.bytes, &mut lines.dates);
            first
        };
        if first {
            lock(&self.state).news = true;
            self.changed.notify_all();
        }
    }

    /// Writes what there is and ends. Waits for that no longer than a moment: standard output may be a pipe that nobody
    /// reads.
    pub(crate) fn end(&self) {
        let deadline = Instant::now() + END;
        let mut state = lock(&self.state);
        state.ending = true;
        self.changed.notify_all();
        while state.running {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("the end of the access log could not be written in time");
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn run(&self) {
        let mut batch = Vec::new();
        loop {
            let state = lock(&self.state);
            let waited = self
                .changed
                .wait_while(state, |state| !state.news && !state.ending);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            state.news = false;
            if !state.ending {
                // So that one write takes many lines.
                let waited = self
                    .changed
                    .wait_timeout_while(state, PAUSE, |state| !state.ending);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let ending = state.ending;
            drop(state);
            let buffers = lock(&self.buffers).clone();
            for buffer in &buffers {
                batch.clear();
                mem::swap(&mut lock(&buffer.0).bytes, &mut batch);
                if !batch.is_empty() {
                    self.write(&batch);
                }
            }
            if ending {
                break;
            }
        }
        lock(&self.state).running = false;
        self.changed.notify_all();
    }

    fn write(&self, mut lines: &[u8]) {
        while !lines.is_empty() {
            lines = self.write_some(lines);
        }
    }

    /// Writes `lines`, and gives those that are left for another file, which has come meanwhile.
    fn write_some<'l>(&self, lines: &'l [u8]) -> &'l [u8] {
        let output = lock(&self.output);
        let (number, mut tail) = (output.number, output.tail);
        // The lock must not be held while a pipe is full: whoever brings a new file would wait.
        let to = match &output.file {
            Some(file) => file.try_clone(),
            None => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        };
        drop(output);
        let is_over = || lock(&self.output).number != number;
        let to = to.and_then(|file| Outlet::new(file, is_over));
        let (written, result) = to.map_or_else(
            |error| (0, Err(error)),
            |mut outlet| tail.append(&mut outlet, lines),
        );
        let rest = &lines[written..];
        let mut output = lock(&self.output);
        if output.number != number {
            drop(output);
            // But for the rest of a line that was begun.
            let begun = written > 0 && tail.torn;
            let end = rest.iter().position(|&byte| begun && byte == b'\n');
            let end = end.map_or(0, |at| at + 1);
            self.lose(&rest[..end]);
            return &rest[end..];
        }
        self.lose(rest);
        output.tail = tail;
        let failed = mem::replace(&mut output.failing, result.is_err());
        match result {
            Ok(()) if failed => tracing::info!("the access log is written again"),
            Err(error) if !failed => {
                tracing::warn!(%error, "lines of the access log are lost, and counted; requests go on");
            }
            _ => {}
        }
        &[]
    }

    fn lose(&self, lines: &[u8]) {
        // They end in these alone.
        let count = lines.iter().filter(|&&byte| byte == b'\n').count();
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Tail {
    /// Adds `lines`, and says how many bytes of them there was a place for.
    fn append(&mut self, to: &mut impl Write, lines: &[u8]) -> (usize, io::Result<()>) {
        // The next line is whole, whatever became of the one before.
        if self.torn
            && let (_, Err(error)) = write_all(to, b"\n")
        {
            return (0, Err(error));
        }
        self.torn = false;
        let (written, result) = write_all(to, lines);
        self.torn = lines[..written].last().is_some_and(|&byte| byte != b'\n');
        (written, result)
    }
}

/// A file that is written to until it `is_over`, even while it takes nothing.
struct Outlet<F> {
    file: File,
    is_over: F,
    /// Whether it may keep whoever writes waiting, as a pipe does whose reader is slow.
    waits: bool,
}

impl<F: Fn() -> bool> Outlet<F> {
    fn new(file: File, is_over: F) -> io::Result<Self> {
        let waits = !file.metadata()?.is_file();
        Ok(Self {
            file,
            is_over,
            waits,
        })
    }
}

impl<F: Fn() -> bool> Write for Outlet<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.waits {
            return self.file.write(bytes);
        }
        let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        loop {
            if (self.is_over)() {
                return Err(io::Error::other("another file is in its place"));
            }
            if poll(&mut ready, LOOK)? > 0 {
                break;
            }
        }
        self.file.write(&bytes[..bytes.len().min(PIECE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How much was written, and what stopped it.
fn write_all(to: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else has made a shared pipe non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// What a panic elsewhere has left is good enough for a log.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines of one worker that wait: at 300 bytes each, about 3,500. Twice as much is taken while another batch is
/// written.
const BUFFER: usize = 1024 * 1024;
/// How long the writer waits for more lines: one write takes many, and yet where it shares a core with a worker its writing is no
/// pause that clients would notice.
const PAUSE: Duration = Duration::from_millis(10);
const END: Duration = Duration::from_secs(1);
/// Milliseconds after which a writer that waits looks whether it should.
const LOOK: u8 = 50;
/// What has room in a pipe that has any (PIPE_BUF).
const PIECE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with so much room.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room);
            if length == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= length;
            self.bytes.extend(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted_and_those_after_them_are_whole() {
        let (mut tail, bytes) = (Tail::default(), Vec::new());
        let mut disk = Disk { bytes, room: 6 };
        let mut append = |room, lines: &str| {
            disk.room = room;
            let (written, result) = tail.append(&mut disk, lines.as_bytes());
            let log = Log::new();
            log.lose(&lines.as_bytes()[written..]);
            (log.lost(), result.is_ok())
        };
        assert_eq!(append(6, "one\ntwo\nthree\n"), (2, false));
        assert_eq!(append(0, "four\nfive\n"), (2, false));
        // Room for the end of the torn line alone.
        assert_eq!(append(1, "six\n"), (1, false));
        assert_eq!(append(4, "six\nseven\n"), (1, false));
        assert_eq!(append(99, "eight\n"), (0, true));
        assert_eq!(disk.bytes, b"one\ntw\nsix\neight\n");
    }
}
