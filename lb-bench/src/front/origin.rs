//! The server behind all proxies: one thread, fixed answers.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
};

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

use super::{
    reply::head_end,
    workload::{LARGE, SMALL, SWITCHED, answer},
};

/// Answers at `address`, in the namespace and on the core of the caller, as long as this process lives. Returns it with the
/// port that was free, if it named none.
///
/// # Errors
/// When it cannot listen.
pub(super) fn start(address: SocketAddrV4) -> Result<SocketAddrV4> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("cannot make an epoll")?;
    let origin = Origin {
        listener: socket.into(),
        epoll,
        peers: Vec::new(),
        small: answer(SMALL),
        large: answer(LARGE),
    };
    origin.watch(&origin.listener)?;
    let port = origin.listener.local_addr()?.port();
    thread::spawn(move || {
        if let Err(error) = origin.serve() {
            eprintln!("the server behind the proxies ended: {error}");
        }
    });
    Ok(SocketAddrV4::new(*address.ip(), port))
}

struct Origin {
    listener: TcpListener,
    epoll: Epoll,
    /// By descriptor.
    peers: Vec<Option<Peer>>,
    small: Vec<u8>,
    large: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    /// The part of a request that has come.
    request: Vec<u8>,
    /// What of the large answer is not sent yet.
    unsent: usize,
    /// Whether it waits for room for that.
    blocked: bool,
    echo: bool,
}

impl Origin {
    fn watch(&self, what: &(impl std::os::fd::AsFd + std::os::fd::AsRawFd)) -> io::Result<()> {
        let number = u64::try_from(what.as_raw_fd()).map_err(io::Error::other)?;
        Ok(self
            .epoll
            .add(what, EpollEvent::new(EpollFlags::EPOLLIN, number))?)
    }

    fn serve(mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        let mut buffer = vec![0; 64 << 10];
        let listener = usize::try_from(self.listener.as_raw_fd()).map_err(io::Error::other)?;
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                count => count?,
            };
            for event in &events[..count] {
                let number = usize::try_from(event.data()).map_err(io::Error::other)?;
                if number == listener {
                    self.accept()?;
                    continue;
                }
                let Some(peer) = self.peers.get_mut(number).and_then(Option::as_mut) else {
                    continue;
                };
                // A proxy that breaks off opens another connection.
                let lives = peer.go_on(&self.epoll, &mut buffer, &self.small, &self.large);
                if !lives.unwrap_or(false) {
                    self.peers[number] = None;
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        self.watch(&stream)?;
        let number = usize::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
        if self.peers.len() <= number {
            self.peers.resize_with(number + 1, || None);
        }
        self.peers[number] = Some(Peer {
            stream,
            request: Vec::new(),
            unsent: 0,
            blocked: false,
            echo: false,
        });
        Ok(())
    }
}

impl Peer {
    /// Whether the connection goes on.
    fn go_on(
        &mut self,
        epoll: &Epoll,
        buffer: &mut [u8],
        small: &[u8],
        large: &[u8],
    ) -> io::Result<bool> {
        if self.unsent > 0 {
            self.send_rest(epoll, large)?;
            return Ok(true);
        }
        let read = match self.stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            read => read?,
        };
        let bytes = &buffer[..read];
        if self.echo {
            self.stream.write_all(bytes)?;
            return Ok(read > 0);
        }
        self.request.extend_from_slice(bytes);
        if head_end(&self.request).is_none() {
            return Ok(read > 0);
        }
        if self.request.starts_with(b"GET /small") {
            self.stream.write_all(small)?;
        } else if self.request.starts_with(b"GET /large") {
            self.unsent = large.len();
            self.send_rest(epoll, large)?;
        } else {
            self.stream.write_all(SWITCHED)?;
            self.echo = true;
        }
        self.request.clear();
        Ok(true)
    }

    /// Sends what fits of the large answer, and comes back for the rest.
    fn send_rest(&mut self, epoll: &Epoll, large: &[u8]) -> io::Result<()> {
        let sent = match self.stream.write(&large[large.len() - self.unsent..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            sent => sent?,
        };
        self.unsent -= sent;
        let blocked = self.unsent > 0;
        if blocked != self.blocked {
            self.blocked = blocked;
            let flags = match blocked {
                true => EpollFlags::EPOLLOUT,
                false => EpollFlags::EPOLLIN,
            };
            let number = u64::try_from(self.stream.as_raw_fd()).map_err(io::Error::other)?;
            epoll.modify(&self.stream, &mut EpollEvent::new(flags, number))?;
        }
        Ok(())
    }
}
