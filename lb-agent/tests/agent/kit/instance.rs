//! An instance of a service: a server on a loopback address of the namespace, that says its own id.
//!
//! It answers a request with a page, and every other line with a line, so that one instance serves tests of HTTP
//! and of plain flows.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use lb_testkit::Netns;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

/// A running instance. Dropping it closes its port and its connections, as a killed container does.
pub(crate) struct Instance {
    id: String,
    address: SocketAddrV4,
    broken: Arc<AtomicBool>,
    _runtime: Runtime,
}

impl Instance {
    /// Starts the instance `id` on `address`, at a port that the kernel chooses.
    pub(crate) fn start(netns: &Netns, id: &str, address: [u8; 4]) -> Self {
        Self::start_at(netns, id, SocketAddrV4::new(Ipv4Addr::from(address), 0))
    }

    /// Starts it at this very port.
    pub(crate) fn start_at(netns: &Netns, id: &str, address: SocketAddrV4) -> Self {
        let listener = netns
            .enter(|| std::net::TcpListener::bind(address))
            .unwrap()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_io()
            .build()
            .unwrap();
        let name = id.to_owned();
        let broken = Arc::<AtomicBool>::default();
        let seen = Arc::clone(&broken);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            // Whoever comes may leave before the accept: the next one is what matters.
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, name.clone(), Arc::clone(&seen)));
                }
            }
        });
        Self {
            id: id.to_owned(),
            address: SocketAddrV4::new(*address.ip(), port),
            broken,
            _runtime: runtime,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Lets its pages be answered with 502, or no more. Its port stays open.
    pub(crate) fn break_application(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }
}

/// Serves one connection to its end, however it ends.
async fn serve(stream: TcpStream, id: String, broken: Arc<AtomicBool>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let line = read_line(&mut stream).await?;
        if line.starts_with("GET ") {
            while !read_line(&mut stream).await?.trim().is_empty() {}
            let status = match broken.load(Ordering::Relaxed) {
                true => "502 Bad Gateway",
                false => "200 OK",
            };
            let page = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{id}",
                id.len()
            );
            stream.write_all(page.as_bytes()).await.ok()?;
        } else {
            stream.write_all(format!("{id}\n").as_bytes()).await.ok()?;
        }
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    (read > 0).then_some(line)
}
