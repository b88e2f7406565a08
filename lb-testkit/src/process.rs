//! A running process that ends with its owner.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Error, Result, eventually};

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: Option<PathBuf>,
}

impl Process {
    /// A process that was just started.
    pub(crate) fn new(child: Child, name: String, log: Option<PathBuf>) -> Self {
        Self { child, name, log }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, with SIGTERM.
    ///
    /// # Errors
    /// When the kernel refuses. A process that already ended is fine.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Ends it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(KILLED_WITHIN).map(drop)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = eventually(limit, || self.child.try_wait().ok().flatten().ok_or(()));
        ended.map_err(|_| Error::Late {
            name: self.name.clone(),
            log: self.log.clone(),
        })
    }

    /// The file that its output goes to.
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        // A process that was waited for has no number any more: it may be somebody else's by now.
        if !self.is_running() {
            return Ok(());
        }
        let pid = i32::try_from(self.id()).map_err(io::Error::other);
        pid.and_then(|pid| Ok(kill(Pid::from_raw(pid), signal)?))
            .map_err(Error::of("signal", self.name.as_str()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGKILL acts at once, unless the process is in the middle of a write to a slow disk.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use nix::sys::signal::SigSet;

    use super::*;
    use crate::Spawn;

    #[test]
    fn sigterm_is_heard_whatever_the_owner_blocks() {
        let owner = std::thread::spawn(|| {
            SigSet::all().thread_block().unwrap();
            let mut process = Spawn::new("sleeper", "sleep").arg("600").start().unwrap();
            process.terminate().unwrap();
            process.wait(Duration::from_secs(5)).unwrap()
        });
        assert!(!owner.join().unwrap().success());
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = Spawn::new("sleeper", "sleep").arg("600").start().unwrap();
        let place = format!("/proc/{}", process.id());
        assert!(Path::new(&place).exists());
        drop(process);
        assert!(!Path::new(&place).exists());
    }

    #[test]
    fn a_process_that_does_not_end_is_named() {
        let mut process = Spawn::new("sleeper", "sleep").arg("600").start().unwrap();
        let late = process.wait(Duration::ZERO).unwrap_err();
        assert!(late.to_string().contains("sleeper"), "{late}");
        assert!(process.is_running());
    }
}
