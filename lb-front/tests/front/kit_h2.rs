//! A backend and a client that speak HTTP/2, by the h2 crate.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use h2::{
    RecvStream,
    client::SendRequest,
    server::{Builder, SendResponse},
};
use hyper::{HeaderMap, Request, Response, Version};
use lb_front::{
    Limits, Settings,
    routes::{RouteService, RoutesChange},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::kit::{PATIENCE, TestFront, routes};

/// The service `web` of [`routes`] with backends that speak HTTP/2.
pub(crate) fn h2c_routes(addresses: &[SocketAddr]) -> RoutesChange {
    let mut routes = routes(addresses);
    let web = routes.services[0].1.as_ref().unwrap();
    let web = RouteService {
        h2c: true,
        ..RouteService::clone(web)
    };
    routes.services[0].1 = Some(Arc::new(web));
    routes
}

/// One worker with this service.
pub(crate) fn front(limits: Limits, addresses: &[SocketAddr]) -> TestFront {
    let front = TestFront::start(limits, 1);
    let routes = h2c_routes(addresses);
    front.front.publish(&routes, &Settings::default());
    front
}

/// A request as a backend saw it.
pub(crate) struct Call {
    pub(crate) request: Request<RecvStream>,
    pub(crate) answer: SendResponse<Bytes>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A backend that remembers the heads of requests.
#[derive(Clone)]
pub(crate) struct H2Backend {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<Request<()>>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl H2Backend {
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        work: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Builder::new(), work)
    }

    pub(crate) fn start_with<F: Future<Output = ()> + Send + 'static>(
        builder: Builder,
        work: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            heads: Arc::default(),
            connections: Arc::default(),
            open: Arc::default(),
        };
        let shared = backend.clone();
        let work = move |call| -> Work { Box::pin(work(call)) };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(shared.serve(listener, builder, Arc::new(work)));
        });
        backend
    }

    /// Answers everything with its name.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::start(move |call| answer(call, name))
    }

    async fn serve(
        self,
        listener: std::net::TcpListener,
        builder: Builder,
        work: Arc<dyn Fn(Call) -> Work + Send + Sync>,
    ) {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            self.connections.fetch_add(1, Ordering::Relaxed);
            self.open.fetch_add(1, Ordering::Relaxed);
            let (shared, builder, work) = (self.clone(), builder.clone(), work.clone());
            tokio::spawn(async move {
                if let Ok(mut requests) = builder.handshake(stream).await {
                    while let Some(Ok((request, answer))) = requests.accept().await {
                        shared.heads.lock().unwrap().push(head(&request));
                        tokio::spawn(work(Call { request, answer }));
                    }
                }
                shared.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    pub(crate) fn seen(&self) -> Vec<Request<()>> {
        let heads = self.heads.lock().unwrap();
        heads.iter().map(head).collect()
    }

    /// All connections that there ever were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

fn head<T>(request: &Request<T>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}

/// Takes the whole request and answers with `text`.
pub(crate) async fn answer(mut call: Call, text: &'static str) {
    // It may have been taken back.
    let _ = whole(call.request.body_mut()).await;
    if let Ok(mut body) = call.answer.send_response(Response::new(()), false) {
        let _ = body.send_data(Bytes::from_static(text.as_bytes()), true);
    }
}

/// All of a body.
pub(crate) async fn whole(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// A client's connection and the task that drives it.
pub(crate) struct H2Client {
    pub(crate) requests: SendRequest<Bytes>,
    /// Ends with the connection.
    _driver: JoinHandle<Result<(), h2::Error>>,
}

/// What a client got.
pub(crate) struct H2Answer {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl H2Client {
    pub(crate) async fn connect(front: &TestFront) -> Self {
        let stream = TcpStream::connect(front.address).await.unwrap();
        // As clients do: their windows would wait for acknowledgements.
        stream.set_nodelay(true).unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        Self {
            requests,
            _driver: driver,
        }
    }

    /// Begins a request with a body to come.
    pub(crate) async fn begin(
        &self,
        request: Request<()>,
    ) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let mut ready = self.requests.clone().ready().await.unwrap();
        ready.send_request(request, false).unwrap()
    }

    /// Sends a whole request, and trailers if there are any, and takes the whole answer.
    pub(crate) async fn ask(
        &self,
        request: Request<()>,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> Result<H2Answer, h2::Error> {
        let (answer, mut stream) = self.begin(request).await;
        stream.send_data(Bytes::copy_from_slice(body), trailers.is_none())?;
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers)?;
        }
        take(answer.await?).await
    }

    pub(crate) async fn get(&self) -> Result<H2Answer, h2::Error> {
        let mut ready = self.requests.clone().ready().await?;
        let (answer, _) = ready.send_request(get(), true)?;
        take(answer.await?).await
    }
}

/// The whole of an answer.
pub(crate) async fn take(response: Response<RecvStream>) -> Result<H2Answer, h2::Error> {
    let (head, mut body) = response.into_parts();
    Ok(H2Answer {
        head: Response::from_parts(head, ()),
        body: whole(&mut body).await?,
        trailers: body.trailers().await?,
    })
}

pub(crate) fn get() -> Request<()> {
    let get = Request::get("http://web/").version(Version::HTTP_2);
    get.body(()).unwrap()
}

pub(crate) fn post() -> hyper::http::request::Builder {
    Request::post("http://web/say").version(Version::HTTP_2)
}

/// Runs a test's part that waits, within its time.
#[track_caller]
pub(crate) fn within<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, what).await.expect("in time") })
}
