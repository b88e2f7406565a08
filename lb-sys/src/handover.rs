//! Descriptors on their way from one process to another, beside the bytes of a unix stream.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        ControlMessage, MsgFlags, UnixAddr, UnixCredentials, cmsg_space, recvmsg, sendmsg,
    },
};

/// As many as the kernel takes in one message (SCM_MAX_FD).
pub const MOST: usize = 253;

/// What one read of a unix stream has brought.
#[derive(Debug, Default)]
pub struct Received {
    /// How many bytes; 0 at the end of the stream.
    pub length: usize,
    /// What came beside them, closed at exec.
    pub descriptors: Vec<OwnedFd>,
    /// The process that sent them, as the kernel says it, in the numbers of our own namespace; only if SO_PASSCRED was
    /// set before they were sent, and if that process has a number there.
    pub sender: Option<i32>,
}

/// Sends some of `bytes`, and says how many, with copies of all `descriptors` beside the first. No more than [`MOST`].
///
/// # Errors
/// What the kernel answers; then nothing was sent.
pub fn send(
    stream: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let beside = if numbers.is_empty() { &[][..] } else { &rights };
    let pieces = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<UnixAddr>(
        stream.as_raw_fd(),
        &pieces,
        beside,
        flags,
        None,
    )?)
}

/// Reads into `buffer`, and takes what was sent beside the bytes.
///
/// # Errors
/// What the kernel answers; `ENOBUFS` when something beside the bytes did not arrive, for want of descriptors for
/// example. Then what did is closed.
pub fn receive(stream: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let room = cmsg_space::<[RawFd; MOST]>() + cmsg_space::<UnixCredentials>();
    receive_within(stream, buffer, room)
}

fn receive_within(stream: BorrowedFd<'_>, buffer: &mut [u8], room: usize) -> io::Result<Received> {
    let mut room = vec![0; room];
    let mut pieces = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut pieces, Some(&mut room), flags)?;
    let (length, flags) = (message.bytes, message.flags);
    let mut received = Received {
        length,
        ..Received::default()
    };
    // nix gives none of them when some are missing, which then stay open for ever. rustix reads a process without a
    // number here, 0, as one with a number, which is undefined.
    for Beside { kind, content } in all_beside(&room) {
        let numbers = content.chunks_exact(size_of::<RawFd>());
        let mut numbers = numbers.filter_map(|it| Some(i32::from_ne_bytes(it.try_into().ok()?)));
        match kind {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                // SAFETY: the kernel has just opened these descriptors in this process for the receiver of this message,
                // which is this call alone, and gives each once.
                let owned = |number| unsafe { OwnedFd::from_raw_fd(number) };
                received.descriptors.extend(numbers.map(owned));
            }
            // The process is the first of three.
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                received.sender = numbers.next().filter(|&pid| pid > 0);
            }
            _ => {}
        }
    }
    if flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(Errno::ENOBUFS.into());
    }
    Ok(received)
}

/// One thing that came beside the bytes.
struct Beside<'a> {
    /// Level and type.
    kind: (i32, i32),
    content: &'a [u8],
}

/// What the kernel wrote into `room`, which was all zeroes before: a length, a kind and a content each (`cmsg(3)`).
fn all_beside(mut room: &[u8]) -> impl Iterator<Item = Beside<'_>> {
    std::iter::from_fn(move || {
        let (length, rest) = room.split_first_chunk()?;
        let length = usize::from_ne_bytes(*length);
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let content = room.get(size_of::<libc::cmsghdr>()..length)?;
        let next = length.next_multiple_of(size_of::<usize>());
        room = room.get(next..).unwrap_or_default();
        Some(Beside {
            kind: (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind)),
            content,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        os::{
            fd::AsFd as _,
            unix::net::{UnixListener, UnixStream},
        },
        time::{Duration, Instant},
    };

    use nix::sys::socket::{setsockopt, sockopt::PassCred};

    use super::*;

    #[test]
    fn descriptors_arrive_with_the_bytes_that_they_were_sent_with() {
        let (here, there) = UnixStream::pair().unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let sent = listeners.each_ref().map(|it| it.as_fd());
        assert_eq!(send(here.as_fd(), b"ab", &sent).unwrap(), 2);
        assert_eq!(send(here.as_fd(), b"c", &[]).unwrap(), 1);
        let mut buffer = [0; 8];
        let first = receive(there.as_fd(), &mut buffer).unwrap();
        let received: Vec<_> = first
            .descriptors
            .into_iter()
            .map(|it| TcpListener::from(it).local_addr().unwrap())
            .collect();
        let addresses = listeners.map(|it| it.local_addr().unwrap());
        assert_eq!(received, addresses);
        let rest = receive(there.as_fd(), &mut buffer[first.length..]).unwrap();
        assert!(rest.descriptors.is_empty() && rest.sender.is_none());
        assert_eq!(&buffer[..first.length + rest.length], b"abc");
        drop(here);
        assert_eq!(receive(there.as_fd(), &mut buffer).unwrap().length, 0);
    }

    #[test]
    fn as_many_as_the_kernel_takes_fit_and_one_more_is_refused_before_anything_is_sent() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let one = here.as_fd();
        assert!(send(one, b"a", &vec![one; MOST + 1]).is_err());
        assert_eq!(send(one, b"b", &vec![one; MOST]).unwrap(), 1);
        let mut buffer = [0; 8];
        let received = receive(there.as_fd(), &mut buffer).unwrap();
        assert_eq!((received.descriptors.len(), buffer[0]), (MOST, b'b'));
        drop((here, received));
        assert_eq!(there.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn what_arrives_of_too_much_is_closed() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        assert_eq!(send(here.as_fd(), b"a", &[write.as_fd(); 5]).unwrap(), 1);
        drop(write);
        let room = cmsg_space::<[RawFd; 3]>();
        let error = receive_within(there.as_fd(), &mut [0; 8], room).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
        // The end is seen only once every copy is closed.
        let end = std::thread::spawn(move || read.read(&mut [0; 8]).unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !end.is_finished() {
            assert!(Instant::now() < deadline, "a descriptor is still open");
            std::thread::yield_now();
        }
        assert_eq!(end.join().unwrap(), 0);
    }

    #[test]
    fn the_kernel_says_who_sent_the_bytes() {
        let folder = std::env::temp_dir().join(format!("lb-handover-{}", std::process::id()));
        let listener = UnixListener::bind(&folder).unwrap();
        let here = UnixStream::connect(&folder).unwrap();
        std::fs::remove_file(&folder).unwrap();
        setsockopt(&here, PassCred, &true).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        there.write_all(b"a").unwrap();
        let received = receive(here.as_fd(), &mut [0; 8]).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(received.sender, Some(own));
    }
}
