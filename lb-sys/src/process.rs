//! Other processes: one that stays the same whatever becomes of its number, and what it has open.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// A process, and never another one that is given its number later.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// The one whose number `pid` is now (kernel 5.3).
    ///
    /// # Errors
    /// When there is none, or no descriptor is left.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: a plain system call on integers.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(Self)
    }

    /// Asks it to end, by SIGTERM.
    ///
    /// # Errors
    /// When it has ended, or may not be asked by us.
    pub fn terminate(&self) -> io::Result<()> {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: without information about the signal, the null pointer, the kernel makes its own and reads no memory.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                libc::SIGTERM,
                nothing,
                0,
            )
        };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// A descriptor of our own for what the process `pid` has open as `number` (kernel 5.6).
///
/// # Errors
/// What the kernel answers: `PermissionDenied` for a process that may not be looked into, which takes CAP_SYS_PTRACE.
pub fn descriptor(pid: u32, number: RawFd) -> io::Result<OwnedFd> {
    let Process(process) = Process::open(pid)?;
    // SAFETY: a plain system call on integers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

fn owned(answer: libc::c_long) -> io::Result<OwnedFd> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = RawFd::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd};

    use super::{Process, descriptor};

    #[test]
    fn a_process_is_asked_to_end_and_once_it_has_nobody_else_is() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::open(child.id()).unwrap();
        process.terminate().unwrap();
        let status = child.wait().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(libc::SIGTERM));
        let error = process.terminate().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn what_a_process_has_open_is_the_same_here_and_what_it_has_not_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let copy = descriptor(std::process::id(), socket.as_raw_fd()).unwrap();
        assert_ne!(copy.as_raw_fd(), socket.as_raw_fd());
        let copy = UdpSocket::from(copy);
        assert_eq!(copy.local_addr().unwrap(), socket.local_addr().unwrap());
        assert!(descriptor(std::process::id(), -1).is_err());
        assert!(descriptor(u32::MAX, 0).is_err());
    }
}
