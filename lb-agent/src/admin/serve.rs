//! Connections of the admin interface: bounded in number, in time to send a request, and at the end. Nobody who connects to
//! the unix socket can keep root and the agent's own user away from it.

use std::{future::pending, time::Duration};

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
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    guard::Actor,
    places::{Place, Places},
    refusals::refused,
};

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
    let places = Places::default();
    loop {
        let next = async {
            let (io, address) = listener.accept().await;
            // Before a place is looked for: it depends on who asks.
            let actor = actor(&io, address)?;
            let place = places.find(&actor).await?;
            Some((io, actor, place))
        };
        let next = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let Some((io, actor, place)) = next else {
            continue;
        };
        let router = match place.is_crowded() {
            true => Router::new().fallback(crowded),
            false => router.clone(),
        };
        let stop = stop.clone();
        connections.spawn(async move {
            let terms = Terms::of(&actor, &place);
            talk(io, router, (actor, terms), stop).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

/// For how long somebody is listened to.
struct Terms {
    /// Whether more than one request is answered.
    keeps_alive: bool,
    /// In all.
    longest: Option<Duration>,
    /// For what is in flight at the end.
    grace: Duration,
}

impl Terms {
    fn of(actor: &Actor, place: &Place) -> Self {
        let longest = match actor {
            Actor::Local { .. } => None,
            // Over the network nobody keeps a place for ever: a stream is opened anew, and who opens it is looked at again.
            Actor::Remote { .. } => Some(LONGEST),
        };
        match place {
            Place::Door { .. } => Self {
                keeps_alive: false,
                longest: Some(REFUSAL),
                grace: Duration::ZERO,
            },
            Place::Seat { .. } => Self {
                keeps_alive: true,
                longest,
                grace: GRACE,
            },
        }
    }
}

async fn talk<I>(io: I, router: Router, (actor, terms): (Actor, Terms), stop: CancellationToken)
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
        .keep_alive(terms.keeps_alive)
        .header_read_timeout(HEAD)
        .max_header_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let over = async {
        match terms.longest {
            Some(longest) => sleep(longest).await,
            None => pending().await,
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = stop.cancelled() => {}, () = over => {} } } => {
            connection.as_mut().graceful_shutdown();
            let deadline = tokio::time::Instant::now() + terms.grace;
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

async fn crowded() -> Response {
    let why = "the users of `[admin] allow_uids` hold all connections to this socket that they may: end some of their \
               commands, or run this one as root";
    refused(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
}

fn too_slow() -> Response {
    let close = [(header::CONNECTION, "close")];
    let text = "the request took too long\n";
    (StatusCode::REQUEST_TIMEOUT, close, text).into_response()
}

/// For who is told that there is no place for it.
const REFUSAL: Duration = Duration::from_secs(1);
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
