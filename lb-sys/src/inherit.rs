//! Listeners that arrive as descriptors, by the LISTEN_FDS protocol (`sd_listen_fds(3)`), and the way to
//! pass them on to a child.
//!
//! Upgrade, systemd, the demo and the agent's own front use the same code. Environment variables are read
//! here and never changed: that is only sound in a process with one thread.

use std::{
    ffi::c_int,
    io,
    net::{TcpListener, UdpSocket},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixListener, process::CommandExt},
    },
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

/// The first passed descriptor, after standard input, output and error.
const FIRST: RawFd = 3;

/// More than anybody passes; a larger number is a mistake.
const MOST: usize = 1024;

/// The descriptors that this process was started with, by name.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(String, OwnedFd)>);

impl Inherited {
    /// Takes over what `LISTEN_FDS` and `LISTEN_FDNAMES` announce, and marks it close-on-exec. Nothing when
    /// `LISTEN_PID` names another process; its absence is fine, since a parent that does not exec in two
    /// steps cannot know the number. Only the first call finds anything. Call it before anything else
    /// opens descriptors.
    ///
    /// # Errors
    /// A variable that cannot be read as what it should be, or a descriptor that is not open.
    pub fn take() -> io::Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let variable = |name: &str| std::env::var(name).ok();
        let names = announced(
            variable("LISTEN_PID").as_deref(),
            variable("LISTEN_FDS").as_deref(),
            variable("LISTEN_FDNAMES").as_deref(),
        )?;
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::default());
        }
        let owned = (FIRST..).zip(names).map(|(fd, name)| {
            // Fails for a descriptor that is not open, so that none is made up.
            // SAFETY: F_SETFD on any number touches no memory of ours.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
                let error = io::Error::last_os_error();
                let message = format!("LISTEN_FDS announces descriptor {fd} ({name}): {error}");
                return Err(io::Error::new(error.kind(), message));
            }
            // SAFETY: it is open (above), by the protocol it was opened for us by the parent, and the flag
            // above lets nobody take it twice.
            Ok((name, unsafe { OwnedFd::from_raw_fd(fd) }))
        });
        owned.collect::<io::Result<_>>().map(Self)
    }

    /// Takes the TCP listeners called `name`.
    ///
    /// # Errors
    /// A descriptor that is not a socket, or one that does not listen.
    pub fn tcp(&mut self, name: &str) -> io::Result<Vec<TcpListener>> {
        let found = self.remove(name, |kind| {
            matches!(kind, (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM))
        })?;
        for fd in &found {
            listens(name, fd)?;
        }
        Ok(found.into_iter().map(TcpListener::from).collect())
    }

    /// Takes the UDP sockets called `name`.
    ///
    /// # Errors
    /// A descriptor that is not a socket.
    pub fn udp(&mut self, name: &str) -> io::Result<Vec<UdpSocket>> {
        let found = self.remove(name, |kind| {
            matches!(kind, (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM))
        })?;
        Ok(found.into_iter().map(UdpSocket::from).collect())
    }

    /// Takes the Unix stream listeners called `name`.
    ///
    /// # Errors
    /// A descriptor that is not a socket, or one that does not listen.
    pub fn unix(&mut self, name: &str) -> io::Result<Vec<UnixListener>> {
        let found = self.remove(name, |kind| kind == (libc::AF_UNIX, libc::SOCK_STREAM))?;
        for fd in &found {
            listens(name, fd)?;
        }
        Ok(found.into_iter().map(UnixListener::from).collect())
    }

    /// Names of what nobody has taken yet.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    fn remove(
        &mut self,
        wanted: &str,
        fits: impl Fn((c_int, c_int)) -> bool,
    ) -> io::Result<Vec<OwnedFd>> {
        let (mut found, mut rest) = (Vec::new(), Vec::new());
        for (name, fd) in std::mem::take(&mut self.0) {
            if name == wanted && fits(kind(&fd)?) {
                found.push(fd);
            } else {
                rest.push((name, fd));
            }
        }
        self.0 = rest;
        Ok(found)
    }
}

/// Lets the child of `command` find `descriptors` by [`Inherited::take`]. They stay open in this process
/// until `command` is dropped.
pub fn pass(command: &mut Command, descriptors: Vec<(&str, OwnedFd)>) {
    let (names, fds): (Vec<_>, Vec<_>) = descriptors.into_iter().unzip();
    command
        .env("LISTEN_FDS", fds.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .env_remove("LISTEN_PID");
    let mut raised = vec![-1; fds.len()];
    let behind = (FIRST..)
        .zip(&fds)
        .last()
        .map_or(FIRST, |(last, _)| last + 1);
    let place = move || {
        // In two steps: a source may lie where another one has to go.
        for (raised, fd) in raised.iter_mut().zip(&fds) {
            // SAFETY: duplicating an open descriptor touches no memory.
            *raised = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, behind) })?;
        }
        for (place, raised) in (FIRST..).zip(&raised) {
            // The copy is not close-on-exec: that is the point.
            // SAFETY: as above. What lay at `place` is not used between here and exec, except the standard
            // library's pipe for a failed exec, whose loss shows as an early end of the child.
            check(unsafe { libc::dup2(*raised, place) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only; its buffer was allocated before.
    unsafe { command.pre_exec(place) };
}

/// The names of the announced descriptors, in order.
fn announced(
    pid: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
) -> io::Result<Vec<String>> {
    let invalid = |what: &str, value: &str| {
        let message = format!("{what}={value} is not a number that can be meant; unset it");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    let Some(count) = count else {
        return Ok(Vec::new());
    };
    if let Some(pid) = pid {
        let meant: u32 = pid.parse().map_err(|_| invalid("LISTEN_PID", pid))?;
        if meant != std::process::id() {
            return Ok(Vec::new());
        }
    }
    let number: usize = count.parse().map_err(|_| invalid("LISTEN_FDS", count))?;
    if number > MOST {
        return Err(invalid("LISTEN_FDS", count));
    }
    // What systemd calls a descriptor without a name.
    let unnamed = std::iter::repeat("unknown");
    let names = names.into_iter().flat_map(|names| names.split(':'));
    Ok(names
        .chain(unnamed)
        .take(number)
        .map(str::to_owned)
        .collect())
}

/// Address family and type of a socket.
fn kind(fd: &OwnedFd) -> io::Result<(c_int, c_int)> {
    use std::os::fd::AsFd;
    let fd = fd.as_fd();
    Ok((option(fd, libc::SO_DOMAIN)?, option(fd, libc::SO_TYPE)?))
}

/// Accepting on anything else fails for good, once for each attempt.
fn listens(name: &str, fd: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsFd;
    if option(fd.as_fd(), libc::SO_ACCEPTCONN)? != 0 {
        return Ok(());
    }
    let message = format!(
        "the passed descriptor named {name} does not listen; pass a socket after listen(2)"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

fn option(fd: BorrowedFd<'_>, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length: libc::socklen_t = 4;
    const _: () = assert!(size_of::<c_int>() == 4);
    let (value_at, length_at) = (&raw mut value, &raw mut length);
    // SAFETY: both pointers are to live locals, and `length` is the size of the first.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value_at.cast(),
            length_at,
        )
    })?;
    Ok(value)
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn names(pid: Option<&str>, count: &str, names: Option<&str>) -> Vec<String> {
        announced(pid, Some(count), names).unwrap()
    }

    #[test]
    fn several_descriptors_may_share_a_name() {
        assert_eq!(
            names(None, "3", Some("front:front:dns")),
            ["front", "front", "dns"]
        );
    }

    #[test]
    fn a_descriptor_without_a_name_is_unknown() {
        assert_eq!(names(None, "2", Some("front")), ["front", "unknown"]);
        assert_eq!(names(None, "1", None), ["unknown"]);
    }

    #[test]
    fn descriptors_for_another_process_are_not_ours() {
        let own = std::process::id().to_string();
        assert_eq!(names(Some("1"), "1", Some("front")), Vec::<String>::new());
        assert_eq!(names(Some(&own), "1", Some("front")), ["front"]);
    }

    #[test]
    fn numbers_that_cannot_be_meant_are_errors_with_the_variable_in_them() {
        for count in ["", "x", "-1", "100000"] {
            let error = announced(None, Some(count), None).unwrap_err();
            assert!(error.to_string().contains("LISTEN_FDS"), "{error}");
        }
        assert!(announced(Some("x"), Some("1"), None).is_err());
    }

    #[test]
    fn a_child_finds_passed_sockets_from_descriptor_three_on() {
        let sockets = [
            TcpListener::bind("127.0.0.1:0").unwrap(),
            TcpListener::bind("127.0.0.1:0").unwrap(),
        ];
        // Backwards, so that sources lie where others have to go if the numbers are low.
        let passed = sockets
            .into_iter()
            .rev()
            .map(|socket| ("front", OwnedFd::from(socket)));
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "test -S /proc/self/fd/3 && test -S /proc/self/fd/4 && printf '%s %s' $LISTEN_FDS $LISTEN_FDNAMES",
        ]);
        pass(&mut command, passed.collect());
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2 front:front");
    }

    #[test]
    fn a_stream_that_does_not_listen_is_refused_by_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connected = std::net::TcpStream::connect(address).unwrap();
        let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut inherited = Inherited(vec![
            ("front".into(), connected.into()),
            ("control".into(), pair.into()),
        ]);
        let error = inherited.tcp("front").unwrap_err().to_string();
        assert!(
            error.contains("front") && error.contains("listen"),
            "{error}"
        );
        assert!(inherited.unix("control").is_err());
    }

    #[test]
    fn kinds_of_sockets_are_told_apart() {
        let tcp = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let udp = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let file = OwnedFd::from(std::fs::File::open("/proc/self/status").unwrap());
        let mut inherited = Inherited(vec![("dns".into(), tcp), ("dns".into(), udp)]);
        assert_eq!(inherited.udp("dns").unwrap().len(), 1);
        assert_eq!(inherited.tcp("front").unwrap().len(), 0);
        assert_eq!(inherited.tcp("dns").unwrap().len(), 1);
        assert_eq!(inherited.names().count(), 0);
        let mut inherited = Inherited(vec![("dns".into(), file)]);
        assert!(inherited.tcp("dns").is_err());
    }
}
