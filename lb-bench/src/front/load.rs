//! The clients: one thread, so many connections, and on each the next request as soon as the last is answered. Those of
//! HTTP/2 are in [`http2`].

use std::{
    io::{self, ErrorKind},
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{
    http2,
    reply::Reply,
    wire::{Trust, Wire},
    workload::{FRAME, Workload},
};

/// How many connections have a request under way.
const CONNECTIONS: usize = 32;

/// How long anything may take that only has to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What clients did for a moment.
#[derive(Debug, Default)]
pub(super) struct Slice {
    pub(super) elapsed: Duration,
    /// Of each request, in nanoseconds, from before it is sent (or its connection opened) until its answer is whole (or
    /// its connection closed).
    pub(super) latencies: Vec<u32>,
}

/// The clients of one proxy, which stay connected between two slices.
pub(super) enum Load {
    Http1(Http1),
    Http2(http2::Client),
}

impl Load {
    /// Connects, so that what follows meets a proxy that is connected to its backend. `trust` is for workloads with TLS.
    ///
    /// # Errors
    /// When the proxy does not answer as it should.
    pub(super) fn open(workload: Workload, proxy: SocketAddrV4, trust: &Trust) -> io::Result<Self> {
        Ok(match workload {
            Workload::Http2 => Self::Http2(http2::Client::open(proxy)?),
            _ => Self::Http1(Http1::open(workload, proxy, trust)?),
        })
    }

    /// Asks until `limit` is over, and waits for all answers.
    ///
    /// # Errors
    /// When an answer is not what it should be, or does not come.
    pub(super) fn run(&mut self, limit: Duration) -> io::Result<Slice> {
        match self {
            Self::Http1(clients) => clients.run(limit),
            Self::Http2(client) => client.run(limit),
        }
    }
}

/// Clients of HTTP/1.
pub(super) struct Http1 {
    workload: Workload,
    proxy: SocketAddrV4,
    trust: Trust,
    epoll: Epoll,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    /// How long no answer may come.
    patience: Duration,
}

struct Client {
    /// None between two requests where each has its own.
    wire: Option<Wire>,
    reply: Reply,
    asked: Instant,
    /// Whether the answer came; with a connection for each request, its end has to come, too.
    answered: bool,
}

impl Http1 {
    fn open(workload: Workload, proxy: SocketAddrV4, trust: &Trust) -> io::Result<Self> {
        let mut load = Self {
            workload,
            proxy,
            trust: trust.clone().filter(|_| workload.encrypted()),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            clients: Vec::new(),
            buffer: vec![0; 128 << 10],
            patience: PATIENCE,
        };
        for number in 0..CONNECTIONS {
            let wire = match workload.closes() {
                true => None,
                false => Some(connected(workload, proxy, &load.trust)?),
            };
            if let Some(wire) = &wire {
                load.watch(wire, number)?;
            }
            load.clients.push(Client {
                wire,
                reply: Reply::default(),
                asked: Instant::now(),
                answered: false,
            });
        }
        Ok(load)
    }

    fn watch(&self, wire: &Wire, number: usize) -> io::Result<()> {
        wire.socket().set_nonblocking(true)?;
        let number = u64::try_from(number).map_err(io::Error::other)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
        Ok(self.epoll.add(wire, event)?)
    }

    fn run(&mut self, limit: Duration) -> io::Result<Slice> {
        let mut latencies = Vec::with_capacity(32 << 10);
        let began = Instant::now();
        let mut now = began;
        for number in 0..CONNECTIONS {
            self.ask(number)?;
        }
        let mut under_way = CONNECTIONS;
        let mut events = [EpollEvent::empty(); CONNECTIONS];
        let patience = EpollTimeout::try_from(self.patience).map_err(io::Error::other)?;
        while under_way > 0 {
            let count = match self.epoll.wait(&mut events, patience) {
                Err(nix::Error::EINTR) => continue,
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                count => count?,
            };
            for event in &events[..count] {
                let number = usize::try_from(event.data()).map_err(io::Error::other)?;
                if !self.read(number)? {
                    continue;
                }
                now = Instant::now();
                let latency = (now - self.clients[number].asked).as_nanos();
                latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
                if now - began < limit {
                    self.ask(number)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(Slice {
            elapsed: now - began,
            latencies,
        })
    }

    fn ask(&mut self, number: usize) -> io::Result<()> {
        let asked = Instant::now();
        if self.workload.closes() {
            let wire = Wire::connect(self.proxy, &self.trust)?;
            self.watch(&wire, number)?;
            self.clients[number].wire = Some(wire);
        }
        let client = &mut self.clients[number];
        client.asked = asked;
        client.answered = false;
        let (reply, message) = match self.workload {
            Workload::Websocket => (Reply::of_bytes(FRAME.len()), &FRAME[..]),
            _ => (Reply::default(), self.workload.request()),
        };
        client.reply = reply;
        (client.wire.as_mut()).map_or(Ok(()), |wire| wire.send(message))
    }

    /// Reads what has come; whether the request is over.
    fn read(&mut self, number: usize) -> io::Result<bool> {
        let client = &mut self.clients[number];
        let closes = self.workload.closes();
        let Some(wire) = &mut client.wire else {
            return Ok(false);
        };
        loop {
            let read = match wire.receive(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                read => read?,
            };
            match read {
                0 if closes && client.answered => {
                    client.wire = None;
                    return Ok(true);
                }
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                _ => client.answered = client.reply.take(&self.buffer[..read])?,
            }
            // The end often comes with the answer, and nothing tells of what was deciphered but not read.
            let more = match client.answered {
                true => closes,
                false => self.trust.is_some(),
            };
            if !more {
                return Ok(client.answered);
            }
        }
    }
}

/// A connection on which one request of `workload` was answered.
///
/// # Errors
/// When the proxy does not answer as it should.
pub(super) fn connected(
    workload: Workload,
    proxy: SocketAddrV4,
    trust: &Trust,
) -> io::Result<Wire> {
    answered(workload, Wire::connect(proxy, trust)?)
}

/// The same on a connection that stands.
///
/// # Errors
/// When the proxy does not answer as it should.
pub(super) fn answered(workload: Workload, mut wire: Wire) -> io::Result<Wire> {
    wire.socket().set_read_timeout(Some(PATIENCE))?;
    wire.send(workload.request())?;
    let mut reply = Reply::default();
    let mut buffer = [0; 16 << 10];
    loop {
        match wire.receive(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read if reply.take(&buffer[..read])? => return Ok(wire),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::front::origin;

    #[test]
    fn clients_and_backend_understand_each_other() {
        let origin = origin::start(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        for workload in [
            Workload::KeepAlive,
            Workload::LargeBody,
            Workload::Websocket,
        ] {
            let mut load = Load::open(workload, origin, &None).unwrap();
            for limit in [Duration::ZERO, Duration::from_millis(20)] {
                let slice = load.run(limit).unwrap();
                assert!(slice.elapsed >= limit, "{workload:?}");
                // Each connection has asked once, and none is in the middle of an answer.
                assert!(slice.latencies.len() >= CONNECTIONS, "{workload:?}");
                let longest = slice.latencies.iter().max().copied().unwrap_or(0);
                assert!(
                    u128::from(longest) <= slice.elapsed.as_nanos(),
                    "{workload:?}"
                );
            }
        }
    }

    #[test]
    fn an_answer_is_not_enough_where_the_proxy_has_to_close() {
        let origin = origin::start(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut load = Http1::open(Workload::Connect, origin, &None).unwrap();
        // The backend does not.
        load.patience = Duration::from_millis(50);
        let error = load.run(Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
