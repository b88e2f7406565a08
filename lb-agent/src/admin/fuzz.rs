//! The doors of the fuzz targets to who may ask what, and to what is asked.

use std::{net::SocketAddr, time::Instant};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::{
    action,
    guard::{Access, Actor, Guard, Published, Rank, Refusal, Who},
    guesses::Guesses,
    process,
    report::StateOrder,
    session::Sessions,
    token::Token,
};

/// The token.
pub(crate) const TOKEN: &str = "0123456789abcdef";

/// The host name that the page is published under.
pub(crate) const NAME: &str = "lb.example";

/// What a request over TCP may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct May {
    pub(crate) read: bool,
    pub(crate) change: bool,
    pub(crate) see_clients: bool,
    /// Whether it is known who sent it.
    pub(crate) is_known: bool,
    pub(crate) published: bool,
}

/// What a request may do that `peer` sent to `own`, or why it is refused. In what its fields say `ID` and `KEY` are those of
/// an open session; `open` lets everybody read where the page is published.
pub(crate) fn admit(
    (own, peer): (SocketAddr, SocketAddr),
    open: bool,
    (method, uri): (&Method, &Uri),
    fields: &HeaderMap,
) -> Result<May, (StatusCode, String)> {
    let guard = guard(open);
    let (id, key) = guard.sessions.opened(Instant::now());
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let said = value
            .to_str()
            .map(|it| it.replace("ID", &id).replace("KEY", &key));
        let said = said.ok().and_then(|it| HeaderValue::from_str(&it).ok());
        headers.append(name, said.unwrap_or_else(|| value.clone()));
    }
    may(guard.admit(&Actor::Remote { peer, own }, method, uri, &headers))
}

/// The same over the unix socket, of a stranger or of root.
pub(crate) fn admit_here(
    stranger: bool,
    (method, uri): (&Method, &Uri),
    headers: &HeaderMap,
) -> Result<May, (StatusCode, String)> {
    let rank = match stranger {
        true => Rank::Stranger,
        false => Rank::Owner,
    };
    may(guard(false).admit(&Actor::Local { uid: 0, rank }, method, uri, headers))
}

fn guard(open: bool) -> Guard {
    let Some(token) = Token::from_text(TOKEN) else {
        panic!("{TOKEN} is no token");
    };
    Guard {
        names: vec![NAME.to_owned()],
        published: match open {
            true => Published::Open,
            false => Published::Token,
        },
        token,
        sessions: Sessions::default(),
        guesses: Guesses::default(),
    }
}

fn may(verdict: Result<Access, Refusal>) -> Result<May, (StatusCode, String)> {
    match verdict {
        Ok(access) => Ok(May {
            read: access.may_read,
            change: access.may_change,
            see_clients: access.sees_clients(),
            is_known: access.who != Who::Nobody,
            published: access.published,
        }),
        Err(refusal) => Err((refusal.status(), refusal.to_string())),
    }
}

/// An order for instances as it is sent, or what is wrong with it; `None` if it is none.
pub(crate) fn state_order(body: &[u8]) -> Option<Result<StateOrder, String>> {
    let order: StateOrder = serde_json::from_slice(body).ok()?;
    Some(action::judge(&order).map(|()| order))
}

/// Processor time and start of a process, by `/proc/PID/stat` and `/proc/stat`.
pub(crate) fn of_stat(stat: &str, boot: &str) -> (Option<f64>, Option<f64>) {
    (process::cpu_seconds(stat), process::started(stat, boot))
}
