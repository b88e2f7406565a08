//! Where the engine is, and how patiently it is asked.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// How the engine is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub address: Address,
    /// How long one answer may take.
    pub timeout: Duration,
    /// The containers are listed again after this time, so that an event that was lost is made good.
    pub resync: Duration,
    /// The longest pause between two attempts to connect.
    pub longest_pause: Duration,
    /// After so long without the engine, [`run`](super::run) ends with an error: a socket that is mounted into a
    /// container stays dead when the engine makes a new one. `None`: never.
    pub give_up_after: Option<Duration>,
}

impl Config {
    /// The defaults for the engine at `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            timeout: Duration::from_secs(30),
            resync: Duration::from_secs(60),
            longest_pause: Duration::from_secs(5),
            give_up_after: None,
        }
    }
}

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Plain HTTP at `host:port`.
    Tcp(String),
}

impl Default for Address {
    fn default() -> Self {
        Self::Unix(PathBuf::from("/var/run/docker.sock"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(place) => write!(f, "tcp://{place}"),
        }
    }
}

/// What is no address of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write unix:///var/run/docker.sock, the path of a socket, or tcp://host:port")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    /// Reads what `DOCKER_HOST` may hold, and a path alone.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(path.into()));
        }
        let tcp = text.strip_prefix("tcp://");
        let place = tcp.or_else(|| text.strip_prefix("http://"));
        let place = place.map(|place| place.strip_suffix('/').unwrap_or(place));
        let good = place.filter(|place| {
            let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
            let parts = place.rsplit_once(':');
            !place.contains(odd)
                && parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        });
        good.map(|place| Self::Tcp(place.to_owned()))
            .ok_or(AddressError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_host_may_hold_is_read() {
        let unix = |path: &str| Ok(Address::Unix(path.into()));
        let tcp = |place: &str| Ok(Address::Tcp(place.into()));
        for (text, expected) in [
            ("unix:///run/docker.sock", unix("/run/docker.sock")),
            ("/run/docker.sock", unix("/run/docker.sock")),
            ("tcp://10.0.0.1:2375", tcp("10.0.0.1:2375")),
            ("http://localhost:2375/", tcp("localhost:2375")),
            ("tcp://[::1]:2375", tcp("[::1]:2375")),
            ("tcp://10.0.0.1", Err(AddressError)),
            ("ssh://host", Err(AddressError)),
            ("docker.sock", Err(AddressError)),
            ("", Err(AddressError)),
        ] {
            assert_eq!(text.parse::<Address>(), expected, "{text}");
        }
    }
}
