//! Where a Consul is: over TCP, over TLS, or behind a unix socket.

use std::{fmt, path::PathBuf, str::FromStr};

use reqwest::Url;

/// Where a Consul is: `host:port`, `http://host:port`, `https://host:port` or `unix:///path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: Url,
    /// The unix socket that is connected to, whatever host the URL names.
    socket: Option<PathBuf>,
}

/// Why a text is no [`Address`].
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no address of Consul: write {FORMS}")]
pub struct AddressError(String);

/// What can be written, for messages.
pub const FORMS: &str =
    "host:port, http://host:port, https://host:port or unix:///path, such as 127.0.0.1:8500";

impl Address {
    /// The same place over TLS, where only `host:port` was written.
    #[must_use]
    pub fn with_tls(text: &str) -> Option<Self> {
        if text.contains("://") {
            return text.parse().ok();
        }
        format!("https://{text}").parse().ok()
    }

    /// Whether TLS protects it.
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// `text` without what may be a password or a token: all before `@`, and all after `?`.
    pub(crate) fn redacted(text: &str) -> String {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), text),
        };
        let seen = match (rest.rsplit_once('@'), rest.split_once(['?', '#'])) {
            (None, None) => rest.to_owned(),
            (Some((_, place)), None) => format!("…@{place}"),
            (None, Some((place, _))) => format!("{place}?…"),
            // Either may be part of the other.
            (Some(_), Some(_)) => "…".to_owned(),
        };
        scheme + &seen
    }

    /// Whether nothing that is sent there leaves this host.
    pub(super) fn is_of_this_host(&self) -> bool {
        let host = self.host();
        self.socket.is_some()
            || host == "localhost"
            || host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }

    /// The host as the resolver takes it.
    pub(super) fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        host.trim_matches(['[', ']']).to_owned()
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn socket(&self) -> Option<&PathBuf> {
        self.socket.as_ref()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError(Self::redacted(text));
        let full = match text.split_once("://") {
            None => format!("http://{text}"),
            Some(("http" | "https", _)) => text.to_owned(),
            Some(("unix", path)) if path.starts_with('/') && path.len() > 1 => {
                // The host is only a header there.
                let url = Url::parse("http://localhost").map_err(|_| malformed())?;
                let socket = Some(PathBuf::from(path));
                return Ok(Self { url, socket });
            }
            Some(_) => return Err(malformed()),
        };
        let url = Url::parse(&full).map_err(|_| malformed())?;
        // A URL without a port would mean 80 or 443, where Consul never is by itself.
        let named = full.trim_end_matches('/');
        let whole = url.port().is_some() || named.ends_with(":80") || named.ends_with(":443");
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        let somebody = url.has_host() && url.port() != Some(0);
        (whole && plain && somebody)
            .then_some(Self { url, socket: None })
            .ok_or_else(malformed)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => write!(f, "unix://{}", path.display()),
            None => f.write_str(self.url.as_str().trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn an_address_is_a_place_with_or_without_a_scheme() {
        for (text, url) in [
            ("127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("[::1]:8500", "http://[::1]:8500"),
            ("http://consul.example:8500/", "http://consul.example:8500"),
            ("http://[::1]:8500", "http://[::1]:8500"),
            ("https://[::1]:8501", "https://[::1]:8501"),
            ("https://consul.example:443", "https://consul.example"),
            ("consul:80", "http://consul"),
            ("unix:///run/consul.sock", "unix:///run/consul.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn a_bare_place_may_be_meant_to_be_reached_over_tls() {
        for (text, is_tls) in [
            ("c:8501", true),
            ("http://c:8500", false),
            ("unix:///s", false),
        ] {
            let address = Address::with_tls(text).unwrap();
            assert_eq!(address.is_tls(), is_tls, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_named_with_the_remedy() {
        for text in [
            "",
            "consul",
            "127.0.0.1",
            "::1",
            ":8500",
            "x:0",
            "x:99999",
            "ftp://x:1",
            "unix://",
            "unix://relative",
            "https://x",
            "http://u:p@x:8500",
            "http://proxy:80/consul",
            "x:8500?token=t",
            "a b:1",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("write host:port"), "{text}: {error}");
        }
    }

    #[test]
    fn what_authorises_is_not_in_the_message() {
        for text in [
            "http://u:s3cret@x:8500",
            "u:s3cret@x:8500",
            "http://u:p@s3cret@x:8500",
            "x:8500?token=s3cret",
            "http://u:s3cret?s3cret@x:8500",
            "x:8500#s3cret",
        ] {
            let message = text.parse::<Address>().unwrap_err().to_string();
            assert!(!message.contains("s3cret"), "{message}");
            assert!(message.contains('…'), "{message}");
        }
    }

    #[test]
    fn loopback_and_sockets_are_of_this_host() {
        for (text, is_own) in [
            ("127.0.0.1:8500", true),
            ("https://[::1]:8501", true),
            ("localhost:8500", true),
            ("unix:///run/consul.sock", true),
            ("10.0.0.1:8500", false),
            ("[2001:db8::1]:8500", false),
            ("consul.example:8500", false),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.is_of_this_host(), is_own, "{text}");
        }
    }
}
