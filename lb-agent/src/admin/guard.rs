//! Who may ask what: the rules of the admin interface, before any handler runs. Pure, but for the sessions that are open.
//!
//! Names under nip.io, `localhost` or our own DNS lead a browser to 127.0.0.1 on purpose, so a foreign
//! page can make it send requests here. The Host allow-list is the defence against reading by DNS
//! rebinding; the rules for changes are the defence against forged requests.

mod refusal;
mod who;

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use axum::http::{HeaderMap, Method, Uri, header, uri::Authority};

use super::{
    guesses::Guesses,
    report::{ACTION_HEADER, SESSION_PATH},
    session::Sessions,
    token::Token,
};

pub(super) use refusal::Refusal;
pub(super) use who::{Access, Actor, Rank, Who};

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
    /// What stands for the token in browsers.
    pub(super) sessions: Sessions,
    /// Who showed a wrong one.
    pub(super) guesses: Guesses,
}

impl Guard {
    /// Decides whether a request may reach its handler, and what it may do there.
    pub(super) fn admit(
        &self,
        actor: &Actor,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Access, Refusal> {
        let reads = method == Method::GET || method == Method::HEAD;
        let (own, peer) = match *actor {
            Actor::Local {
                rank: Rank::Stranger,
                ..
            } => return Err(Refusal::ForeignUser),
            Actor::Local { uid, .. } => {
                // No browser reaches a unix socket, but a program that relays to it may be driven by one.
                if !reads {
                    admit_change(headers, false)?;
                }
                return Ok(Access {
                    may_read: true,
                    may_change: true,
                    who: Who::User(uid),
                    client: None,
                    published: false,
                    secure: false,
                    open: true,
                });
            }
            // A listener of both families has IPv4 addresses written as IPv6 ones.
            Actor::Remote { own, peer } => (canonical(own), peer),
        };
        let published = self.admit_host(own, uri, headers)?;
        let secure = published && is_secure(headers);
        // Whoever opens a session or ends one changes nothing but that.
        let session = uri.path() == SESSION_PATH;
        if !reads {
            if published && !session {
                return Err(Refusal::Published);
            }
            admit_change(headers, secure)?;
        }
        let probe = matches!(uri.path(), "/healthz" | "/ready");
        let local = own.ip().is_loopback();
        let open = local && (!published || self.published == Published::Open);
        let (who, good) = if probe {
            (Who::Nobody, false)
        } else if published && open {
            // Everybody may do all that the token allows, and what a proxy was shown is not for us.
            self.session(headers)
        } else {
            // A wrong token is always refused, or the answer would tell at no cost whether it was right.
            self.who(headers)?
        };
        let access = Access {
            may_read: open || who.known(),
            may_change: good && !published,
            who,
            client: Some(client(own, peer, headers)),
            published,
            secure,
            open,
        };
        let enough = if reads {
            access.may_read || probe
        } else {
            access.may_change
        };
        if enough || session {
            Ok(access)
        } else {
            Err(Refusal::NoToken)
        }
    }

    /// The address that a request comes from; `None` for the unix socket.
    pub(super) fn client_of(actor: &Actor, headers: &HeaderMap) -> Option<IpAddr> {
        match *actor {
            Actor::Local { .. } => None,
            Actor::Remote { own, peer } => Some(client(own, peer, headers)),
        }
    }

    /// Who shows the token, or the cookie of a session, and whether that is good for changes.
    fn who(&self, headers: &HeaderMap) -> Result<(Who, bool), Refusal> {
        match self.token.admit(headers) {
            Ok(()) => Ok((Who::Token, true)),
            Err(Refusal::NoToken) => Ok(self.session(headers)),
            Err(wrong) => Err(wrong),
        }
    }

    fn session(&self, headers: &HeaderMap) -> (Who, bool) {
        let session = self.sessions.find(headers, Instant::now());
        session.map_or((Who::Nobody, false), |it| {
            (Who::Session(it.number), it.may_change)
        })
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
        // An absolute target speaks for itself, and must not hide behind an innocent Host.
        let both: Vec<&Authority> = uri.authority().into_iter().chain([&host]).collect();
        if !both.iter().all(|it| is_name_and_port(it)) {
            return Err(Refusal::BadHost);
        }
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
            let ip = ip.to_canonical();
            // No name was resolved, so nobody can have rebound it.
            let ours = ip.is_loopback() || ip == own.ip() || !own.ip().is_loopback();
            return ours && port == own.port();
        }
        let host = host_of(authority);
        host == "localhost" || self.names.contains(&host)
    }
}

/// The rules for changes: what no form and no foreign page can send.
fn admit_change(headers: &HeaderMap, secure: bool) -> Result<(), Refusal> {
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
        let scheme = if secure { "https://" } else { "http://" };
        let own = origin.and_then(|origin| origin.strip_prefix(scheme));
        if own.is_none_or(|own| !own.eq_ignore_ascii_case(host)) {
            return Err(Refusal::CrossSite);
        }
    }
    match headers.get("sec-fetch-site") {
        Some(site) if site != "same-origin" && site != "none" => Err(Refusal::CrossSite),
        _ => Ok(()),
    }
}

/// Whether our front, or the proxy before it, says that the client speaks HTTPS.
fn is_secure(headers: &HeaderMap) -> bool {
    let told = headers.get(FORWARDED_PROTO);
    told.is_some_and(|told| told.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Whose request it is: the peer's or, behind a front of this host, the client's that it names last.
fn client(own: SocketAddr, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
    let peer = peer.ip().to_canonical();
    if !peer.is_loopback() && peer != own.ip().to_canonical() {
        return peer;
    }
    let last = headers.get_all(FORWARDED_FOR).iter().next_back();
    let last = last.and_then(|line| line.to_str().ok()?.rsplit(',').next());
    let told = last.and_then(|entry| entry.trim().parse().ok());
    told.unwrap_or(peer)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether nothing is in it but a name and a port, and whom it is for. The parser takes anything behind the colon, and behind
/// the brackets of an address.
fn is_name_and_port(authority: &Authority) -> bool {
    let whole = authority.as_str();
    let named = whole.rsplit_once('@').map_or(whole, |(_, named)| named);
    match named.strip_prefix(authority.host()) {
        Some("") => true,
        Some(rest) => {
            let digits = |it: &&str| it.bytes().all(|byte| byte.is_ascii_digit());
            let port = rest.strip_prefix(':').filter(digits);
            port.is_some_and(|port| port.parse::<u16>().is_ok())
        }
        None => false,
    }
}

/// The name in a Host, in lower case and without a dot at its end.
fn host_of(authority: &Authority) -> String {
    let host = authority.host();
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// What our front always says of a request that it passes on.
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
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
