//! Which network namespace a socket lives in.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The cookie of the network namespace that `socket` was made in: the number that `bpf_get_netns_cookie` answers there.
/// It is never given to another namespace until the next boot (kernel 5.14).
///
/// # Errors
/// What the kernel answers.
pub fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes no more than `length` bytes to `cookie`, and both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd, os::unix::net::UnixDatagram};

    use super::cookie;

    #[test]
    fn every_socket_of_a_namespace_tells_the_same() {
        let one = cookie(UnixDatagram::unbound().unwrap().as_fd()).unwrap();
        let other = cookie(UdpSocket::bind("127.0.0.1:0").unwrap().as_fd()).unwrap();
        assert_ne!(one, 0);
        assert_eq!(one, other);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(cookie(file.as_fd()).is_err());
    }
}
