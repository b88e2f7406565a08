//! What the standard library cannot do to a socket.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// `connect(AF_UNSPEC)`: dissolves a socket's association and leaves it usable.
///
/// # Errors
/// What the kernel answers.
pub fn disconnect(socket: impl AsFd) -> io::Result<()> {
    let family = u16::try_from(libc::AF_UNSPEC).map_err(io::Error::other)?;
    let address = libc::sockaddr {
        sa_family: family,
        sa_data: [0; 14],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the address is a live, initialised `sockaddr` of the length we state, and the descriptor is open.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const address, length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
