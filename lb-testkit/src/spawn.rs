//! Starting a process in a namespace and a cgroup, with its output in a file and with passed listeners.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, PipeReader, pipe},
    net::TcpListener,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::SigSet,
};

use crate::{Cgroup, Error, Netns, Process, Result};

/// A process to be started.
#[derive(Debug)]
pub struct Spawn<'a> {
    name: String,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    hidden: Vec<OsString>,
    netns: Option<&'a Netns>,
    cgroup: Option<&'a Cgroup>,
    log: Option<PathBuf>,
    listeners: Vec<(&'a str, &'a TcpListener)>,
}

impl<'a> Spawn<'a> {
    /// The process `name`, for messages and its log, running `program`.
    pub fn new(name: impl Into<String>, program: impl AsRef<OsStr>) -> Self {
        Self {
            name: name.into(),
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            hidden: Vec::new(),
            netns: None,
            cgroup: None,
            log: None,
            listeners: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        let arguments = arguments.into_iter();
        self.arguments
            .extend(arguments.map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Hides from it the caller's variables whose names start with `prefix`.
    #[must_use]
    pub fn hide(mut self, prefix: &str) -> Self {
        let names = std::env::vars_os().map(|(name, _)| name);
        self.hidden
            .extend(names.filter(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes())));
        self
    }

    /// Lets it live in `netns`, with its mounts. Its current directory is then `/`.
    #[must_use]
    pub fn netns(mut self, netns: &'a Netns) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Lets it live in `cgroup` from before its first instruction, so that hooks see its first connect.
    #[must_use]
    pub fn cgroup(mut self, cgroup: &'a Cgroup) -> Self {
        self.cgroup = Some(cgroup);
        self
    }

    /// Appends its output to `<folder>/<name>.log`. Without it the output is thrown away.
    #[must_use]
    pub fn log(mut self, folder: &Path) -> Self {
        self.log = Some(folder.join(format!("{}.log", self.name)));
        self
    }

    /// Passes it a listener under `name`, as systemd does: descriptors from 3 on, named by `LISTEN_FDNAMES`.
    ///
    /// `LISTEN_PID` is not set: the number is not known before the process is.
    #[must_use]
    pub fn listener(mut self, name: &'a str, listener: &'a TcpListener) -> Self {
        self.listeners.push((name, listener));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the program, its log or its cgroup is not there.
    pub fn start(self) -> Result<Process> {
        let (stdout, stderr) = match &self.log {
            None => (Stdio::null(), Stdio::null()),
            Some(path) => {
                let open = || {
                    let log = File::options().append(true).create(true).open(path)?;
                    Ok::<_, io::Error>((log.try_clone()?, log))
                };
                let (one, other) = open().map_err(Error::of("open", path.display().to_string()))?;
                (one.into(), other.into())
            }
        };
        self.start_with(stdout, stderr)
    }

    /// Starts it with a pipe in the place of its standard error, which is not buffered, line by line, by anybody.
    ///
    /// # Errors
    /// As [`Spawn::start`].
    pub fn start_with_stderr(self) -> Result<(Process, PipeReader)> {
        let (reader, writer) = pipe().map_err(Error::of("make a pipe for", self.name.as_str()))?;
        let process = self.start_with(Stdio::null(), Stdio::from(writer))?;
        Ok((process, reader))
    }

    /// Runs it to its end, which has to come by itself, and returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started, or ends without success; then with what it wrote to standard error.
    pub fn output(self) -> Result<String> {
        let child = self.spawn(Stdio::piped(), Stdio::piped())?;
        let output = child
            .wait_with_output()
            .map_err(Error::of("read from", self.name.as_str()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(Error::Command {
            command: self.name,
            status: output.status,
            output: text(&output.stderr),
        })
    }

    fn start_with(self, stdout: Stdio, stderr: Stdio) -> Result<Process> {
        let child = self.spawn(stdout, stderr)?;
        Ok(Process::new(child, self.name, self.log))
    }

    fn spawn(&self, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        let failed = |verb| Error::of(verb, self.name.as_str());
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_remove("LISTEN_PID");
        for name in &self.hidden {
            command.env_remove(name);
        }
        command
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            // Ctrl-C in the terminal is for the owner, who then ends this process in good order.
            .process_group(0);
        if self.netns.is_some() {
            command.current_dir("/");
        }
        if !self.listeners.is_empty() {
            let names: Vec<&str> = self.listeners.iter().map(|(name, _)| *name).collect();
            command
                .env("LISTEN_FDS", names.len().to_string())
                .env("LISTEN_FDNAMES", names.join(":"));
        }
        let before = Before {
            group: self
                .cgroup
                .map(|cgroup| {
                    let path = cgroup.path().join("cgroup.procs");
                    File::options().write(true).open(path)
                })
                .transpose()
                .map_err(failed("open the cgroup of"))?,
            listeners: self
                .listeners
                .iter()
                .map(|(_, listener)| above(listener, FIRST_PASSED + MOST_PASSED))
                .collect::<io::Result<_>>()
                .map_err(failed("pass listeners to"))?,
        };
        // SAFETY: between fork and exec only async-signal-safe things may be done. `Before::run` makes the system
        // calls write, dup2 and sigprocmask on memory that it already has, and allocates nothing.
        unsafe { command.pre_exec(move || before.run()) };
        let child = match self.netns {
            None => command.spawn(),
            Some(netns) => netns.enter(|| command.spawn())?,
        };
        child.map_err(failed("start"))
    }
}

/// What the child does to itself before it becomes the program.
struct Before {
    group: Option<File>,
    listeners: Vec<OwnedFd>,
}

impl Before {
    fn run(&self) -> io::Result<()> {
        if let Some(group) = &self.group {
            nix::unistd::write(group, b"0")?;
        }
        for (number, listener) in (FIRST_PASSED..).zip(&self.listeners) {
            // SAFETY: dup2 takes any two numbers. The target may be open in this process, which is about to become
            // another program that knows only what is passed here.
            let copied = unsafe { libc::dup2(listener.as_raw_fd(), number) };
            if copied < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // A mask would be inherited, and with it deafness to SIGTERM.
        SigSet::empty().thread_set_mask()?;
        Ok(())
    }
}

/// A copy of `listener` numbered `lowest` or above, so that no copy down to its place overwrites one still needed.
fn above(listener: &TcpListener, lowest: RawFd) -> io::Result<OwnedFd> {
    let number = fcntl(listener.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: the kernel just returned this descriptor and nobody else knows it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}

/// The first descriptor that is passed, after standard input, output and error.
const FIRST_PASSED: RawFd = 3;

/// Room for the descriptors that are passed.
const MOST_PASSED: RawFd = 32;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn listeners_arrive_as_descriptors_with_names() {
        let [front, admin] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let script = "echo $LISTEN_FDS $LISTEN_FDNAMES; readlink /proc/$$/fd/3 /proc/$$/fd/4";
        let said = Spawn::new("shell", "sh")
            .args(["-c", script])
            .listener("front", &front)
            .listener("admin", &admin)
            .output()
            .unwrap();
        let mut lines = said.lines();
        assert_eq!(lines.next(), Some("2 front:admin"));
        for listener in [front, admin] {
            let ours = format!("/proc/self/fd/{}", listener.as_raw_fd());
            let ours = std::fs::read_link(ours).unwrap();
            assert_eq!(lines.next(), ours.to_str());
        }
    }

    #[test]
    fn a_process_is_in_its_cgroup_and_its_namespace_from_the_start() {
        let group = Cgroup::new("test").unwrap();
        let netns = Netns::new("test").unwrap();
        let said = Spawn::new("shell", "sh")
            .args(["-c", "cat /proc/self/cgroup; readlink /proc/self/ns/net"])
            .cgroup(&group)
            .netns(&netns)
            .output()
            .unwrap();
        let name = group.path().file_name().unwrap().to_str().unwrap();
        assert!(said.contains(name), "{said}");
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert!(!said.contains(ours.to_str().unwrap()), "{said}");
    }

    #[test]
    fn hidden_variables_are_gone_and_others_stay() {
        // cargo sets the one for tests.
        let script = "echo ${CARGO_PKG_NAME-none} ${PATH:+some}";
        let shell = Spawn::new("shell", "sh").args(["-c", script]);
        assert_eq!(shell.hide("CARGO_").output().unwrap(), "none some");
    }

    #[test]
    fn the_output_of_a_failed_command_is_in_its_error() {
        let failed = Spawn::new("shell", "sh").args(["-c", "echo why >&2; exit 3"]);
        let message = failed.output().unwrap_err().to_string();
        assert!(message.contains("exit status: 3"), "{message}");
        assert!(message.contains("why"), "{message}");
    }

    #[test]
    fn the_log_of_a_restarted_process_goes_on() {
        let folder = tempfile::Builder::new()
            .prefix("lb-test-")
            .tempdir()
            .unwrap();
        for word in ["one", "two"] {
            let shell = Spawn::new("shell", "sh").args(["-c", &format!("echo {word}")]);
            let mut process = shell.log(folder.path()).start().unwrap();
            process.wait(Duration::from_secs(5)).unwrap();
            assert!(process.log().unwrap().ends_with("shell.log"));
        }
        let log = std::fs::read_to_string(folder.path().join("shell.log")).unwrap();
        assert_eq!(log, "one\ntwo\n");
    }
}
