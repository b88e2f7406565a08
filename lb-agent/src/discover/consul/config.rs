//! How Consul is reached, and how careful its answers are taken.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use reqwest::Url;

/// How Consul is reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// The agent or server that is asked.
    pub address: Address,
    /// What authorises us; `None` asks anonymously.
    pub token: Option<Token>,
    /// The datacenter asked about; `None` is the agent's own.
    pub datacenter: Option<String>,
    /// How long Consul may hold a blocking query. Short enough that the connections of a killed agent,
    /// which count against Consul's limit until their queries end, are soon gone.
    pub wait: Duration,
    /// Answers from servers that lost their leader longer ago than this are asked for again.
    pub max_stale: Duration,
    /// Services followed by a blocking query each; the others are polled. Consul allows 200 connections for
    /// an address, which we share with everybody on the host.
    pub max_watches: usize,
    /// How long the last known instances of a service are kept when Consul's state went back in time and
    /// no longer holds any: the cluster was wiped or restored, and agents need a while to register again.
    pub hold: Duration,
    /// Whether an instance that warns takes new flows.
    pub warning: Warning,
    /// Who this host is to the registrar: what that registered is local. Unset, the Consul node tells.
    pub host: Option<String>,
    /// Where the last good catalog is kept for an agent that starts while Consul is away.
    pub saved: Option<PathBuf>,
}

/// What becomes of an instance that has a warning check and no failing one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Warning {
    /// It takes no new flows.
    #[default]
    Exclude,
    /// It takes flows by `Weights.Warning`.
    Include,
}

impl Config {
    /// The defaults for the Consul at `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            token: None,
            datacenter: None,
            wait: Duration::from_secs(55),
            max_stale: Duration::from_secs(30),
            max_watches: 64,
            hold: Duration::from_secs(60),
            warning: Warning::default(),
            host: None,
            saved: None,
        }
    }
}

/// The base URL of Consul's HTTP API: `host:port` or `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Url);

/// Why a text is no [`Address`].
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// A way to reach Consul that we do not have.
    #[error("`{0}` uses {1}, which this version cannot; give host:port or http://host:port")]
    Unsupported(String, &'static str),
    /// Anything else.
    #[error(
        "`{0}` is no address of Consul; give host:port or http://host:port, such as 127.0.0.1:8500"
    )]
    Malformed(String),
}

impl Address {
    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        let full = match text.split_once("://") {
            None => format!("http://{text}"),
            Some(("http", _)) => text.to_owned(),
            Some(("https", _)) => return Err(AddressError::Unsupported(text.to_owned(), "TLS")),
            Some(("unix", _)) => {
                return Err(AddressError::Unsupported(text.to_owned(), "a unix socket"));
            }
            Some(_) => return Err(malformed()),
        };
        let url = Url::parse(&full).map_err(|_| malformed())?;
        // A URL without a port would mean 80, where Consul never is.
        let whole = url.port().is_some() || full.ends_with(":80") || full.ends_with(":80/");
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        (whole && plain && url.has_host())
            .then_some(Self(url))
            .ok_or_else(malformed)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// A Consul ACL token. It is never shown.
#[derive(Clone)]
pub enum Token {
    /// The token itself.
    Value(String),
    /// A file that holds it, read at every request so that a new token needs no restart.
    File(PathBuf),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port_with_or_without_scheme() {
        for (text, url) in [
            ("127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("http://consul.example:8500/", "http://consul.example:8500"),
            ("http://[::1]:8500", "http://[::1]:8500"),
            ("consul:80", "http://consul"),
            ("http://proxy:80/consul", ""),
        ] {
            let address = text.parse::<Address>();
            if url.is_empty() {
                assert!(address.is_err(), "{text}");
            } else {
                assert_eq!(address.unwrap().to_string(), url);
            }
        }
    }

    #[test]
    fn what_is_no_address_is_named_with_the_remedy() {
        for text in [
            "",
            "consul",
            "127.0.0.1",
            "ftp://x:1",
            "http://u:p@x:8500",
            "x:8500?token=t",
            "a b:1",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("give host:port"), "{text}: {error}");
        }
        let tls = "https://x:8501".parse::<Address>().unwrap_err().to_string();
        assert!(tls.contains("TLS"), "{tls}");
    }

    #[test]
    fn a_token_is_never_shown() {
        let config = Config {
            token: Some(Token::Value("s3cret".to_owned())),
            ..Config::new("127.0.0.1:8500".parse().unwrap())
        };
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
