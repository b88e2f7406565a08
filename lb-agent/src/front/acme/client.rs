//! Requests to the authority, by the HTTP client that the agent has.

use std::{path::Path, pin::Pin, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::discover::consul::Tls;

/// A client that trusts the system's authorities, or those in `ca_file`.
pub(super) fn client(ca_file: Option<&Path>) -> Result<Box<dyn HttpClient>, String> {
    let tls = Tls {
        ca_file: ca_file.map(Path::to_owned),
        ..Tls::default()
    };
    let tls = tls.load().map_err(|error| error.to_string())?;
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .timeout(Duration::from_secs(30))
        .build();
    Ok(Box::new(Client(http.map_err(|error| error.to_string())?)))
}

struct Client(reqwest::Client);

impl HttpClient for Client {
    fn request(
        &self,
        request: hyper::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.0.clone();
        Box::pin(async move {
            let other = |error: reqwest::Error| Error::Other(Box::new(error));
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let answer = http
                .request(parts.method, parts.uri.to_string())
                .headers(parts.headers)
                .body(body.to_bytes())
                .send()
                .await
                .map_err(other)?;
            let (mut head, ()) = hyper::Response::new(()).into_parts();
            head.status = answer.status();
            head.headers = answer.headers().clone();
            let body = answer.bytes().await.map_err(other)?;
            Ok(BytesResponse {
                parts: head,
                body: Box::new(body),
            })
        })
    }
}
