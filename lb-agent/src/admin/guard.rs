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
            Self::ForeignUser | Self::NoAction | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
        }
    }
}

/// The rules.
#[derive(Debug)]
pub(super) struct Guard {
    /// Host names that the configuration allows beside the built-in ones, in lower case.
    pub(super) names: Vec<String>,
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
                self.admit_host(*own, uri, headers)?;
                if !reads {
                    self.admit_change(headers)?;
                }
                let probe = matches!(uri.path(), "/healthz" | "/ready");
                let open = if reads {
                    own.ip().is_loopback() || probe
                } else {
                    false
                };
                if open {
                    Ok(())
                } else {
                    self.token.admit(headers)
                }
            }
        }
    }

    fn admit_host(&self, own: SocketAddr, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
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
        let both = uri.authority().into_iter().chain([&host]);
        for authority in both {
            if !self.allows(own, authority) {
                return Err(Refusal::ForeignHost);
            }
        }
        Ok(())
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
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
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
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard {
            names: vec!["lb.example".to_owned()],
            token: Token::from_text("0123456789abcdef").unwrap(),
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn remote(own: &str) -> Actor {
        Actor::Remote {
            peer: "127.0.0.1:40000".parse().unwrap(),
            own: own.parse().unwrap(),
        }
    }

    #[track_caller]
    fn read(own: &str, host: &str, expect: Result<(), Refusal>) {
        let uri = Uri::from_static("/");
        let headers = headers(&[("host", host)]);
        let verdict = guard().admit(&remote(own), &Method::GET, &uri, &headers);
        assert_eq!(verdict, expect, "{host} at {own}");
    }

    #[test]
    fn only_hosts_on_the_list_are_served() {
        const OWN: &str = "127.0.0.1:9180";
        for host in [
            "127.0.0.1:9180",
            "[::1]:9180",
            "localhost:9180",
            "LOCALHOST:8000",
            "lb.example",
            "LB.example.:9180",
        ] {
            read(OWN, host, Ok(()));
        }
        for host in [
            "evil.example:9180",
            "127.0.0.1.nip.io:9180",
            "127.0.0.1:80",
            "10.0.0.1:9180",
            "u@localhost:9180",
            "localhost.evil.example",
        ] {
            read(OWN, host, Err(Refusal::ForeignHost));
        }
        for host in ["", "a b", "a/b", "localhost:x", "localhost:99999"] {
            read(OWN, host, Err(Refusal::BadHost));
        }
    }

    #[test]
    fn an_absolute_target_does_not_hide_behind_an_innocent_host() {
        let uri = Uri::from_static("http://evil.example/");
        let headers = headers(&[("host", "localhost")]);
        let verdict = guard().admit(&remote("127.0.0.1:9180"), &Method::GET, &uri, &headers);
        assert_eq!(verdict, Err(Refusal::ForeignHost));
    }

    #[test]
    fn two_hosts_are_none() {
        let headers = headers(&[("host", "localhost"), ("host", "localhost")]);
        let uri = Uri::from_static("/");
        let verdict = guard().admit(&remote("127.0.0.1:9180"), &Method::GET, &uri, &headers);
        assert_eq!(verdict, Err(Refusal::BadHost));
    }

    #[test]
    fn beyond_loopback_reading_needs_the_token_too_except_for_probes() {
        let own = "10.0.0.5:9180";
        read(own, "10.0.0.5:9180", Err(Refusal::NoToken));
        let headers = headers(&[("host", "10.0.0.5:9180")]);
        for path in ["/healthz", "/ready"] {
            let uri = Uri::from_static(path);
            let verdict = guard().admit(&remote(own), &Method::GET, &uri, &headers);
            assert_eq!(verdict, Ok(()), "{path}");
        }
    }

    #[track_caller]
    fn change(actor: &Actor, pairs: &[(&'static str, &str)], expect: Result<(), Refusal>) {
        let uri = Uri::from_static("/api/v1/drain");
        let verdict = guard().admit(actor, &Method::POST, &uri, &headers(pairs));
        assert_eq!(verdict, expect, "{pairs:?}");
    }

    const HOST: (&str, &str) = ("host", "localhost:9180");
    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
    const ACTION: (&str, &str) = ("x-lb-action", "1");
    const BEARER: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");

    #[test]
    fn a_change_over_tcp_needs_json_the_action_header_and_the_token() {
        let actor = remote("127.0.0.1:9180");
        change(&actor, &[HOST, JSON, ACTION, BEARER], Ok(()));
        change(&actor, &[HOST, ACTION, BEARER], Err(Refusal::NotJson));
        change(&actor, &[HOST, JSON, BEARER], Err(Refusal::NoAction));
        change(&actor, &[HOST, JSON, ACTION], Err(Refusal::NoToken));
        let form = ("content-type", "text/plain");
        change(&actor, &[HOST, form, ACTION, BEARER], Err(Refusal::NotJson));
        let wrong = ("authorization", "Bearer 0123456789abcdee");
        let pairs = [HOST, JSON, ACTION, wrong];
        change(&actor, &pairs, Err(Refusal::WrongToken));
    }

    #[test]
    fn a_change_from_another_origin_is_refused() {
        let actor = remote("127.0.0.1:9180");
        let with = |extra| [HOST, JSON, ACTION, BEARER, extra];
        change(&actor, &with(("origin", "http://localhost:9180")), Ok(()));
        change(&actor, &with(("sec-fetch-site", "same-origin")), Ok(()));
        for extra in [
            ("origin", "http://evil.example"),
            ("origin", "http://localhost:8080"),
            ("origin", "https://localhost:9180"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            change(&actor, &with(extra), Err(Refusal::CrossSite));
        }
    }

    #[test]
    fn on_the_socket_the_user_counts_and_not_the_token() {
        let own = Actor::Local {
            uid: 0,
            allowed: true,
        };
        change(&own, &[JSON, ACTION], Ok(()));
        change(&own, &[JSON], Err(Refusal::NoAction));
        let foreign = Actor::Local {
            uid: 1000,
            allowed: false,
        };
        change(&foreign, &[JSON, ACTION], Err(Refusal::ForeignUser));
    }
}
