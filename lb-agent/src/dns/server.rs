//! The wire side: sockets, time limits and bounds on what is under way. What an answer says is decided in
//! [`decide`](super::decide) and [`forward`](super::forward).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use hickory_proto::op::{Query, ResponseCode};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UdpSocket, tcp::OwnedWriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::{codec::LengthDelimitedCodec, sync::CancellationToken};
use tracing::{debug, error, warn};

use super::{
    Config, Error, Metrics,
    access::Access,
    decide::{Decision, Via, decide},
    exchange::framed,
    forward::Forwarder,
    message::{Reply, Request},
    names::Names,
};

/// What all sockets share.
pub(super) struct Server {
    names: ArcSwap<Names>,
    forwarder: Forwarder,
    consul: bool,
    access: Access,
    metrics: Arc<Metrics>,
    forwards: Arc<Semaphore>,
}

/// A request that others must answer, and the right to ask them.
struct Ask {
    request: Request,
    via: Via,
    started: Instant,
    _permit: OwnedSemaphorePermit,
}

/// What to do with one packet.
enum Step {
    Ignore,
    Answer(Reply),
    Ask(Ask),
}

impl Server {
    pub(super) fn new(
        config: Config,
        upstreams: Vec<SocketAddr>,
        names: Names,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            names: ArcSwap::from_pointee(names),
            consul: config.consul.is_some(),
            forwarder: Forwarder::new(upstreams, config.consul),
            access: Access::new(config.pools, config.neighbours, config.allow),
            metrics,
            forwards: Arc::new(Semaphore::new(FORWARD_LIMIT)),
        }
    }

    /// Answers from `names` from now on.
    pub(super) fn learn(&self, names: Names) {
        // Most snapshots differ in what does not concern a name, such as the health of a backend.
        if **self.names.load() == names {
            return;
        }
        self.names.store(Arc::new(names));
    }

    /// Passes questions on to these from now on; those under way are answered by whom they were passed on to.
    pub(super) fn ask_others(&self, upstreams: Vec<SocketAddr>) {
        self.forwarder.ask_others(upstreams);
    }

    /// Answers datagrams until `stop`, then finishes what is under way.
    pub(super) async fn datagrams(
        self: Arc<Self>,
        socket: UdpSocket,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let socket = Arc::new(socket);
        let mut asked = JoinSet::new();
        let mut buffer = [0; REQUEST_BYTES];
        let mut failures = 0;
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = asked.join_next() => {
                    log_panic(ended);
                    continue;
                }
                received = socket.recv_from(&mut buffer) => received,
            };
            let (bytes, client) = match received {
                Ok(received) => received,
                Err(source) if failures < RECEIVE_FAILURE_LIMIT => {
                    failures += 1;
                    debug!(
                        error = &source as &dyn std::error::Error,
                        "cannot receive a DNS query"
                    );
                    continue;
                }
                Err(source) => return Err(Error::Receive { source }),
            };
            failures = 0;
            // Nobody can be answered at port 0.
            if client.port() == 0 {
                continue;
            }
            match self.begin(&buffer[..bytes], client.ip()) {
                Step::Ignore => {}
                Step::Answer(reply) => send(&socket, client, &reply).await,
                Step::Ask(ask) => {
                    let (server, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    asked.spawn(async move {
                        let reply = server.finish(ask).await;
                        send(&socket, client, &reply).await;
                    });
                }
            }
        }
        while asked.join_next().await.is_some() {}
        Ok(())
    }

    /// Serves connections until `stop`, then finishes what is under way.
    pub(super) async fn streams(
        self: Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    log_panic(ended);
                    continue;
                }
                // The others wait in the backlog until one of these falls idle.
                accepted = listener.accept(), if connections.len() < CONNECTION_LIMIT => accepted,
            };
            match accepted {
                // Refused by a datagram, but not worth a place here.
                Ok((_, client)) if !self.access.allows(client.ip(), Instant::now()) => {
                    self.metrics
                        .answered(None, ResponseCode::Refused, Duration::ZERO);
                }
                Ok((stream, client)) => {
                    connections.spawn(Arc::clone(&self).stream(stream, client.ip(), stop.clone()));
                }
                Err(source) => {
                    warn!(
                        error = &source as &dyn std::error::Error,
                        "cannot accept a DNS connection"
                    );
                    // Out of descriptors: the connection stays in the backlog and accept fails at once again.
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }

    /// Serves one connection. Questions may be sent without waiting for answers, and answers come as they
    /// are ready (RFC 7766 section 6.2.1.1).
    async fn stream(self: Arc<Self>, stream: TcpStream, client: IpAddr, stop: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%client, error = &error as &dyn std::error::Error, "cannot set up a DNS connection");
            return;
        }
        let (read, mut write) = stream.into_split();
        let mut frames = LengthDelimitedCodec::builder()
            .length_field_type::<u16>()
            .new_read(read);
        let mut asked = JoinSet::new();
        let mut open = true;
        while open || !asked.is_empty() {
            let reply = tokio::select! {
                () = stop.cancelled(), if open => {
                    open = false;
                    continue;
                }
                Some(ended) = asked.join_next() => match ended {
                    Ok(reply) => reply,
                    Err(ended) => {
                        log_panic(Err(ended));
                        return;
                    }
                },
                frame = timeout(IDLE, frames.next()), if open && asked.len() < PIPELINE_LIMIT => {
                    let Ok(Some(Ok(packet))) = frame else {
                        // Closed, broken or idle. Who closed one side only still gets the answers.
                        open = false;
                        continue;
                    };
                    match self.begin(&packet, client) {
                        Step::Ignore => return,
                        Step::Answer(reply) => reply,
                        Step::Ask(ask) => {
                            let server = Arc::clone(&self);
                            asked.spawn(async move { server.finish(ask).await });
                            continue;
                        }
                    }
                }
            };
            if let Err(error) = write_frame(&mut write, &reply).await {
                debug!(%client, error = &error as &dyn std::error::Error, "cannot answer a DNS query");
                return;
            }
        }
    }

    /// Decides a packet as far as that needs nobody else.
    fn begin(&self, packet: &[u8], client: IpAddr) -> Step {
        let started = Instant::now();
        let names = self.names.load();
        let allowed = self.access.allows(client, started);
        match decide(packet, allowed, &names, self.consul) {
            Decision::Ignore => Step::Ignore,
            Decision::Answer(reply) => Step::Answer(self.count(reply, started)),
            Decision::Forward(request, via) => match Arc::clone(&self.forwards).try_acquire_owned()
            {
                Ok(permit) => Step::Ask(Ask {
                    request,
                    via,
                    started,
                    _permit: permit,
                }),
                // To say so at once is better than silence: the asker may have another resolver.
                Err(_) => Step::Answer(self.count(request.reply(ResponseCode::ServFail), started)),
            },
        }
    }

    async fn finish(&self, ask: Ask) -> Reply {
        let Ask {
            request,
            via,
            started,
            _permit,
        } = ask;
        let mut reply = self.forwarder.ask(&request, via).await;
        // The upstreams deny what they do not know. It may still turn out to be a service of ours, and
        // "no such name" would be remembered by the asker. Not while a source is away, which may be for long: a
        // name that does not look like ours hardly ever is.
        let denied = reply.message.metadata.response_code == ResponseCode::NXDomain;
        let names = self.names.load();
        if denied && via == Via::Upstreams && !names.answered() && !names.stopgap() {
            reply = request.reply(ResponseCode::ServFail);
        }
        self.count(reply, started)
    }

    fn count(&self, reply: Reply, started: Instant) -> Reply {
        let kind = reply.message.queries.first().map(Query::query_type);
        let code = reply.message.metadata.response_code;
        self.metrics.answered(kind, code, started.elapsed());
        reply
    }
}

async fn send(socket: &UdpSocket, client: SocketAddr, reply: &Reply) {
    let Some(packet) = reply.datagram() else {
        debug!(%client, "cannot write a DNS answer");
        return;
    };
    if let Err(error) = socket.send_to(&packet, client).await {
        debug!(%client, error = &error as &dyn std::error::Error, "cannot answer a DNS query");
    }
}

async fn write_frame(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let packet = reply.stream().ok_or(io::ErrorKind::InvalidData)?;
    timeout(IDLE, write.write_all(&framed(&packet))).await?
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(panic) = ended {
        error!(
            error = &panic as &dyn std::error::Error,
            "a DNS query was lost to a fault of the agent"
        );
    }
}

/// Questions to others under way at once: each holds a socket.
const FORWARD_LIMIT: usize = 512;

/// Connections at once, of one listener.
const CONNECTION_LIMIT: usize = 256;

/// Questions to others under way at once, of one connection.
const PIPELINE_LIMIT: usize = 32;

/// How long a connection may send nothing whole, or take nothing.
const IDLE: Duration = Duration::from_secs(10);

/// Larger than any sensible request.
const REQUEST_BYTES: usize = 4096;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Failures to receive in a row after which the socket is taken for broken.
const RECEIVE_FAILURE_LIMIT: u32 = 100;
