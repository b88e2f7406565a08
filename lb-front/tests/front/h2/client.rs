//! A client of HTTP/2: one connection, whole requests and whole answers.

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use hyper::{HeaderMap, Request, Response, Version};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::kit::{PATIENCE, TestFront};

/// A connection and the task that drives it, which ends with it.
pub(crate) struct Connection {
    pub(crate) requests: SendRequest<Bytes>,
    pub(crate) driver: JoinHandle<Result<(), h2::Error>>,
}

pub(crate) struct Answer {
    pub(crate) response: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

pub(crate) async fn connect(front: &TestFront) -> Connection {
    connect_with(front, &Builder::new()).await
}

pub(crate) async fn connect_with(front: &TestFront, builder: &Builder) -> Connection {
    over(TcpStream::connect(front.address).await.unwrap(), builder).await
}

pub(crate) async fn over(stream: TcpStream, builder: &Builder) -> Connection {
    let (requests, connection) = builder.handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    Connection { requests, driver }
}

impl Connection {
    pub(crate) async fn ask(&mut self, request: Request<()>) -> Result<Answer, h2::Error> {
        self.send(request, None).await
    }

    /// Sends the whole of a request and takes the whole of its answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<()>,
        body: Option<&[u8]>,
    ) -> Result<Answer, h2::Error> {
        let mut ready = self.requests.clone().ready().await?;
        let (response, mut stream) = ready.send_request(request, body.is_none())?;
        if let Some(body) = body {
            stream.send_data(Bytes::copy_from_slice(body), true)?;
        }
        let (head, mut incoming) = response.await?.into_parts();
        let mut body = Vec::new();
        while let Some(data) = incoming.data().await {
            let data = data?;
            incoming.flow_control().release_capacity(data.len())?;
            body.extend_from_slice(&data);
        }
        Ok(Answer {
            response: Response::from_parts(head, ()),
            body,
            trailers: incoming.trailers().await?,
        })
    }
}

pub(crate) fn get(authority: &str) -> Request<()> {
    Request::get(format!("http://{authority}/a?b"))
        .version(Version::HTTP_2)
        .body(())
        .unwrap()
}

#[track_caller]
pub(crate) fn within<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { timeout(PATIENCE, what).await.expect("in time") })
}
