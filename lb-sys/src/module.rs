//! Modules of the kernel.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Loads the module in `file`, which is not compressed, without parameters.
///
/// # Errors
/// What the kernel answers, for example `ENOENT` when it needs another one that is not loaded.
pub fn load(file: BorrowedFd<'_>) -> io::Result<()> {
    let (parameters, flags) = (c"".as_ptr(), 0);
    // SAFETY: the call reads the parameters, a constant that ends with a zero, and no other memory of this process.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn what_is_no_module_is_refused() {
        // Nobody but root may ask; whatever the kernel says, it is an answer to this call.
        let file = File::open("/dev/null").unwrap();
        assert!(load(file.as_fd()).is_err());
    }
}
