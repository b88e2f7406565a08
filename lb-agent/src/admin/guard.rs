//! Who may ask what: the rules of the admin interface, before any handler runs. Pure.
//!
//! Names under nip.io, `localhost` or our own DNS lead a browser to 127.0.0.1 on purpose, so a foreign
//! page can make it send requests here. The Host allow-list is the defence against reading by DNS
//! rebinding; the rules for changes are the defence against forged requests.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority};

use super::{report::ACTION_HEADER, token::Token};

/// Where a request came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    /// Over the unix socket; the kernel says who it is.
    Local {
        /// The user of the process at the other end.
        uid: u32,
        /// Whether that is root or the agent's own user.
        allowed: bool,
    },
    /// Over TCP.
    Remote {
        /// The other end.
        peer: SocketAddr,
        /// Our end.
        own: SocketAddr,
    },
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local { uid, .. } => write!(f, "uid {uid}"),
            Self::Remote { .. } => f.write_str("token admin"),
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("only root and the user that the agent runs as may use this socket")]
    ForeignUser,
    #[error("a request needs exactly one valid Host")]
    BadHost,
    #[error("this host name is not served here: use 127.0.0.1 or localhost")]
    ForeignHost,
    #[error(
        "nothing can be changed through a published page: run `lb-agent` on the host, or use the address that \
         the page listens on, such as 127.0.0.1:9180"
    )]
    Published,
    #[error("a change needs the header `Content-Type: application/json`")]
    NotJson,
    #[error("a change needs the header `X-LB-Action: 1`")]
    NoAction,
    #[error("a change from another site's page is refused")]
    CrossSite,
    #[error(
        "this needs the header `Authorization: Bearer <token>`; the token is in the agent's token file"
    )]
    NoToken,
    #[error("the token is wrong")]
    WrongToken,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadHost => StatusCode::BAD_REQUEST,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::ForeignUser | Self::Published | Self::NoAction | Self::CrossSite => {
                StatusCode::FORBIDDEN
            }
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
        }
    }
}

/// Who reads the page where it is published: under one of the configured names, or through a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Published {
    /// Who shows the token.
    #[default]
    Token,
    /// Everybody, if the page listens on loopback: whom the proxy lets in.
    Open,
}

/// The rules.
#[derive(Debug)]
pub(super) struct Guard {
    /// Host names that the configuration allows beside the built-in ones, in lower case.
    pub(super) names: Vec<String>,
    /// Who reads under these names.
    pub(super) published: Published,
    /// What a change over TCP, and everything on an address that is not loopback, must show.
    pub(super) token: Token,
}

impl Guard {
    /// Decides whether a request may reach its handler.
    pub(super) fn admit(
        &self,
        actor: &Actor,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let reads = method == Method::GET || method == Method::HEAD;
        match actor {
            Actor::Local { allowed: false, .. } => Err(Refusal::ForeignUser),
            // No browser reaches a unix socket, but a program that relays to it may be driven by one.
            Actor::Local { .. } if reads => Ok(()),
            Actor::Local { .. } => self.admit_change(headers),
            Actor::Remote { own, .. } => {
                let published = self.admit_host(*own, uri, headers)?;
                if !reads {
                    if published {
                        return Err(Refusal::Published);
                    }
                    self.admit_change(headers)?;
                }
                let probe = matches!(uri.path(), "/healthz" | "/ready");
                let local = own.ip().is_loopback();
                let open = local && (!published || self.published == Published::Open);
                if reads && (open || probe) {
                    Ok(())
                } else {
                    self.token.admit(headers)
                }
            }
        }
    }

    /// Whether the request is for the page where it is published. A front on this host connects from loopback, so an
    /// address does not tell; the name does, and the field that our front puts into whatever it passes on, for the service
    /// that has the page may have other names, `localhost` among them.
    fn is_published(&self, authorities: &[&Authority], headers: &HeaderMap) -> bool {
        let named = |it: &&Authority| self.names.contains(&host_of(it));
        authorities.iter().any(named) || headers.contains_key(FORWARDED_FOR)
    }

    /// Whether the page is asked for where it is published; an error if it is not served under that Host.
    fn admit_host(&self, own: SocketAddr, uri: &Uri, headers: &HeaderMap) -> Result<bool, Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Refusal::BadHost);
        };
        let host = Authority::try_from(host.as_bytes()).map_err(|_| Refusal::BadHost)?;
        // The parser takes anything behind the colon; a port is a number.
        if host.port_u16().is_none() && host.as_str() != host.host() {
            return Err(Refusal::BadHost);
        }
        // An absolute target speaks for itself, and must not hide behind an innocent Host.
        let both: Vec<&Authority> = uri.authority().into_iter().chain([&host]).collect();
        if !both.iter().all(|it| self.allows(own, it)) {
            return Err(Refusal::ForeignHost);
        }
        Ok(self.is_published(&both, headers))
    }

    fn allows(&self, own: SocketAddr, authority: &Authority) -> bool {
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host();
        let port = authority.port_u16().unwrap_or(HTTP_PORT);
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse::<IpAddr>() {
            // No name was resolved, so nobody can have rebound it.
            let ours = ip.is_loopback() || ip == own.ip() || !own.ip().is_loopback();
            return ours && port == own.port();
        }
        let host = host_of(authority);
        host == "localhost" || self.names.contains(&host)
    }

    fn admit_change(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().ok());
        let essence = text(header::CONTENT_TYPE).flatten().unwrap_or_default();
        let essence = essence.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::NotJson);
        }
        if headers.get(ACTION_HEADER).is_none_or(|value| value != "1") {
            return Err(Refusal::NoAction);
        }
        let host = text(header::HOST).flatten().unwrap_or_default();
        if let Some(origin) = text(header::ORIGIN) {
            let own = origin.and_then(|origin| origin.strip_prefix("http://"));
            if own.is_none_or(|own| !own.eq_ignore_ascii_case(host)) {
                return Err(Refusal::CrossSite);
            }
        }
        match headers.get("sec-fetch-site") {
            Some(site) if site != "same-origin" && site != "none" => Err(Refusal::CrossSite),
            _ => Ok(()),
        }
    }
}

/// The name in a Host, in lower case and without a dot at its end.
fn host_of(authority: &Authority) -> String {
    let host = authority.host();
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// What our front always says of a request that it passes on.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// The port of a Host without one.
const HTTP_PORT: u16 = 80;

/// Headers of every answer: no foreign asset, no frame, no cache.
pub(super) const ANSWER_HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
];

#[cfg(test)]
mod tests;
