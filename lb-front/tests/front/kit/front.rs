//! A front with its threads in this process, and what it is told.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use lb_front::{
    Front, FrontStats, Limits, Listeners, Settings, Workers,
    routes::{RouteBackend, RouteService, RoutesChange},
};
use tokio::runtime::Runtime;

use super::{
    PATIENCE,
    backend::Backend,
    client::{Answer, Client},
};

/// A front with its threads in this process.
pub(crate) struct TestFront {
    pub(crate) address: SocketAddr,
    tls: Option<SocketAddr>,
    pub(crate) front: Arc<Front>,
    workers: Option<Workers>,
    runtime: Runtime,
}

impl TestFront {
    pub(crate) fn start(limits: Limits, workers: usize) -> Self {
        Self::start_for(limits, workers, PATIENCE)
    }

    /// Requests in flight have `grace` when it drains.
    pub(crate) fn start_for(limits: Limits, workers: usize, grace: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, limits, workers, grace)
    }

    pub(crate) fn on(
        listener: TcpListener,
        limits: Limits,
        workers: usize,
        grace: Duration,
    ) -> Self {
        Self::on_all(vec![listener].into(), limits, workers, grace)
    }

    /// One worker that also speaks TLS, with the service `web` on `backends`.
    pub(crate) fn with_tls(limits: Limits, backends: &[&Backend]) -> Self {
        let bind = || vec![TcpListener::bind("127.0.0.1:0").unwrap()];
        let listeners = Listeners {
            plain: bind(),
            tls: bind(),
        };
        let front = Self::on_all(listeners, limits, 1, PATIENCE);
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        front.publish(&addresses);
        front
    }

    fn on_all(listeners: Listeners, limits: Limits, workers: usize, grace: Duration) -> Self {
        let address = |listeners: &[TcpListener]| Some(listeners.first()?.local_addr().unwrap());
        let (plain, tls) = (address(&listeners.plain), address(&listeners.tls));
        for listener in listeners.all() {
            // As the agent makes them.
            let socket = socket2::SockRef::from(listener);
            socket.set_tcp_nodelay(true).unwrap();
        }
        let front = Front::new(limits);
        let workers = Workers::start(&front, &listeners, workers, grace).unwrap();
        Self {
            address: plain.unwrap(),
            tls,
            front,
            workers: Some(workers),
            runtime: Runtime::new().unwrap(),
        }
    }

    /// Where it speaks TLS.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.tls.expect("a front that speaks TLS")
    }

    /// One worker with the usual limits and the service `web` on `backends`.
    pub(crate) fn with(backends: &[&Backend]) -> Self {
        Self::limited(Limits::default(), backends)
    }

    pub(crate) fn limited(limits: Limits, backends: &[&Backend]) -> Self {
        let front = Self::start(limits, 1);
        front.publish(
            &backends
                .iter()
                .map(|backend| backend.address)
                .collect::<Vec<_>>(),
        );
        front
    }

    pub(crate) fn publish(&self, backends: &[SocketAddr]) {
        self.front.publish(&routes(backends), &Settings::default());
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// The answer to `request` on a connection of its own.
    #[track_caller]
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        self.client().send(request).answer()
    }

    pub(crate) fn stats(&self) -> FrontStats {
        self.runtime
            .block_on(self.workers.as_ref().unwrap().stats())
    }

    /// Begins to drain; the handle ends when the front has, with its last figures.
    pub(crate) fn drain(&mut self) -> thread::JoinHandle<FrontStats> {
        let workers = self.workers.take().unwrap();
        thread::spawn(move || Runtime::new().unwrap().block_on(workers.drain()))
    }
}

/// The service `web` with usable backends at `addresses`, and `down` without any.
pub(crate) fn routes(addresses: &[SocketAddr]) -> RoutesChange {
    let service = |label: &str, addresses: &[SocketAddr]| {
        let backend = |&address| RouteBackend {
            address,
            usable: true,
            weight: 1,
            canary: false,
            cut: None,
        };
        Some(Arc::new(RouteService {
            label: label.into(),
            backends: addresses.iter().map(backend).collect(),
            access: None,
            h2c: false,
            rules: None,
        }))
    };
    let hosts = [
        ("web", 1),
        ("web.localhost", 1),
        ("alias.example", 1),
        ("down", 2),
        ("down.localhost", 2),
    ];
    RoutesChange {
        hosts: hosts
            .map(|(host, place)| (host.to_owned(), Some(place)))
            .into(),
        services: vec![(1, service("web", addresses)), (2, service("down", &[]))],
        paths: Vec::new(),
        host_addresses: Some([].into()),
        users: Vec::new(),
    }
}
