//! What other processes have open.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// A descriptor of our own for what the process `pid` has open as `number` (kernel 5.6).
///
/// # Errors
/// What the kernel answers: `PermissionDenied` for a process that may not be looked into, which takes CAP_SYS_PTRACE.
pub fn descriptor(pid: u32, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call on integers.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: as above.
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

    use super::descriptor;

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
