//! The conversation with the kernel about the sockets of one network namespace.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::wire::{self, AF_INET, AF_INET6, Kind, Message, SocketId, TCP, UDP};

/// A netlink socket, which belongs to the namespace that it was opened in.
pub(super) struct Diag {
    socket: Socket,
    room: Vec<u8>,
}

/// What became of a socket that was to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is no more.
    Now,
    /// It ended by itself meanwhile.
    Before,
}

/// What the kernel does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Blind {
    /// UDP: it lacks the module for that.
    pub(super) udp: bool,
}

impl Blind {
    /// That it does not know such sockets. Over IPv6 there are then none of ours: either the kernel has no IPv6, or it is
    /// the same module as for IPv4.
    fn note(&mut self, kind: Kind) {
        self.udp |= kind.family == AF_INET && kind.protocol == UDP;
    }
}

impl Diag {
    /// In the namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        let (domain, protocol) = (Domain::from(AF_NETLINK), Protocol::from(NETLINK_SOCK_DIAG));
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        // The kernel answers within the call; this is only so that nothing can ever wait for good.
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            room: vec![0; ROOM],
        })
    }

    /// Tells every client's socket that has a record in the map `records` or may have one, and which kinds the kernel does not list.
    pub(super) fn list(
        &mut self,
        records: BorrowedFd<'_>,
        mut tell: impl FnMut(Message),
    ) -> io::Result<Blind> {
        let records = u32::try_from(records.as_raw_fd()).map_err(io::Error::other)?;
        let mut blind = Blind::default();
        for kind in KINDS {
            let listed = self.ask(&wire::list(kind, records), kind.protocol, &mut tell);
            match listed {
                Err(error) if error.kind() == io::ErrorKind::NotFound && kind != KINDS[0] => {
                    blind.note(kind);
                }
                listed => listed?,
            }
        }
        Ok(blind)
    }

    /// Ends one socket: its owner gets ECONNABORTED, its peer a reset.
    ///
    /// # Errors
    /// `Unsupported` if this kernel ends no sockets of this kind.
    pub(super) fn destroy(&mut self, id: &SocketId) -> io::Result<Ended> {
        match self.ask(&wire::destroy(id), id.kind.protocol, |_| {}) {
            Ok(()) => Ok(Ended::Now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ended::Before),
            Err(error) => Err(error),
        }
    }

    fn ask(
        &mut self,
        question: &[u8],
        protocol: u8,
        mut tell: impl FnMut(Message),
    ) -> io::Result<()> {
        self.socket.write_all(question)?;
        loop {
            let length = self.socket.read(&mut self.room)?;
            for message in wire::messages(&self.room[..length], protocol) {
                match message.map_err(io::Error::other)? {
                    Message::End(0) => return Ok(()),
                    Message::End(error) => return Err(io::Error::from_raw_os_error(error)),
                    socket => tell(socket),
                }
            }
        }
    }
}

/// TCP over IPv4 first: the kernel must have that.
const KINDS: [Kind; 4] = [
    Kind {
        family: AF_INET,
        protocol: TCP,
    },
    Kind {
        family: AF_INET6,
        protocol: TCP,
    },
    Kind {
        family: AF_INET,
        protocol: UDP,
    },
    Kind {
        family: AF_INET6,
        protocol: UDP,
    },
];

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;

/// Bytes of one datagram; the kernel makes none that is larger than what was read before, or 32 KiB.
const ROOM: usize = 64 * 1024;

const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_that_does_not_know_udp_over_ipv4_leaves_flows_unseen() {
        let unseen = KINDS.map(|kind| {
            let mut blind = Blind::default();
            blind.note(kind);
            blind.udp
        });
        assert_eq!(unseen, [false, false, true, false]);
    }
}
