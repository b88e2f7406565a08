//! Connections of the admin interface: bounded in number, in time to send a request, and at the end.

use std::{future::pending, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    serve::Listener,
};
use hyper::{body::Incoming, server::conn::http1, service::Service as _, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::guard::Actor;

/// Serves `listener` until told to stop, then lets the requests in flight end.
///
/// `actor` says who is at the other end of a new connection; `None` drops it.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    actor: impl Fn(&L::Io, L::Addr) -> Option<Actor>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, (io, address)) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let Some(actor) = actor(&io, address) else {
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            talk(io, router, actor, stop).await;
            drop(slot);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn talk<I>(io: I, router: Router, actor: Actor, stop: CancellationToken)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(actor.clone());
        let answer = router.call(request);
        async move {
            match timeout(REQUEST, answer).await {
                Ok(answer) => answer,
                Err(_) => Ok(too_slow()),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    // Over the network nobody keeps a place for ever: a stream is opened anew, and who opens it is looked at again.
    let longest = match actor {
        Actor::Local { .. } => None,
        Actor::Remote { .. } => Some(LONGEST),
    };
    let over = async {
        match longest {
            Some(longest) => sleep(longest).await,
            None => pending().await,
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = stop.cancelled() => {}, () = over => {} } } => {
            connection.as_mut().graceful_shutdown();
            let deadline = tokio::time::Instant::now() + GRACE;
            match timeout_at(deadline, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an admin connection ended early");
    }
}

fn too_slow() -> Response {
    let close = [(header::CONNECTION, "close")];
    let text = "the request took too long\n";
    (StatusCode::REQUEST_TIMEOUT, close, text).into_response()
}

/// Connections of one listener at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// To send a head, idle time included.
const HEAD: Duration = Duration::from_secs(15);
/// Bytes of a head.
const HEAD_BYTES: usize = 16 * 1024;
/// To read a body and answer.
const REQUEST: Duration = Duration::from_secs(10);
/// For one connection over the network in all. The page opens its stream anew before.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// For what is in flight when the agent stops.
const GRACE: Duration = Duration::from_secs(2);
