//! One request over the admin socket, and what comes back: at once, or line by line.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};

use super::{Client, ClientError};
use crate::admin::report::ACTION_HEADER;

impl Client {
    pub(super) async fn lines(&self, path: &str, patience: Duration) -> Result<Lines, ClientError> {
        let opened = timeout(patience, self.open(Method::GET, path, None)).await;
        let (answer, connection) = opened.unwrap_or_else(|_| Err(self.silent(patience)))?;
        let lines = Lines {
            body: answer,
            _connection: connection,
            read: Vec::new(),
        };
        if lines.body.status().is_success() {
            return Ok(lines);
        }
        let status = lines.body.status();
        let body = timeout(patience, lines.rest()).await;
        let body = body.unwrap_or_else(|_| Ok(Bytes::new()));
        let body = body.map_err(|error| self.broken(error))?;
        Err(self.refused(status, &body))
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        timeout(patience, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| Err(self.silent(patience)))
    }

    fn silent(&self, patience: Duration) -> ClientError {
        ClientError::Silent {
            socket: self.socket.clone(),
            patience,
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let (body, connection) = self.open(method, path, body).await?;
        let lines = Lines {
            body,
            _connection: connection,
            read: Vec::new(),
        };
        let status = lines.body.status();
        let body = lines.rest().await.map_err(|error| self.broken(error))?;
        Ok((status, body))
    }

    /// The head of an answer, its body to come, and the connection that it comes on.
    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(Response<Incoming>, Connection), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // It ends with the exchange; what goes wrong on it is seen there.
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost");
        if body.is_some() {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .header(ACTION_HEADER, "1");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.broken(error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))?;
        Ok((
            answer,
            Connection {
                task: connection,
                _sender: sender,
            },
        ))
    }

    fn unreachable(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotThere { socket }
            }
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket },
            _ => self.broken(error),
        }
    }
}

/// The task of a connection, which ends with this.
struct Connection {
    task: JoinHandle<hyper::Result<()>>,
    _sender: http1::SendRequest<Full<Bytes>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer that comes line by line.
pub(in crate::cli) struct Lines {
    body: Response<Incoming>,
    /// Held as long as lines are to come.
    _connection: Connection,
    read: Vec<u8>,
}

impl Lines {
    /// The next line without its end; `None` after the last.
    pub(in crate::cli) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.pop();
                return Some(line);
            }
            // An agent that ends, and one that breaks off, have no more to say.
            let frame = self.body.body_mut().frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }

    /// All of it at once.
    async fn rest(self) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        let body = Limited::new(self.body.into_body(), ANSWER_BYTES);
        Ok(body.collect().await?.to_bytes())
    }
}

/// Bytes of an answer: room for ten thousand services.
const ANSWER_BYTES: usize = 256 << 20;
