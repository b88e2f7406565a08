//! Why Consul gave no usable answer, and what to do about it.

use std::{error::Error, fmt, path::PathBuf, time::Duration};

use reqwest::StatusCode;

use super::{
    answer::{self, BODY_LIMIT},
    tls::TlsError,
};

/// Why there is no client at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The settings of TLS.
    #[error("cannot speak with Consul over TLS")]
    Tls(#[from] TlsError),
    /// The HTTP library, which no configuration causes.
    #[error("cannot make an HTTP client")]
    Http(#[from] reqwest::Error),
}

/// Why there is no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody answered, or not to the end.
    #[error("cannot reach Consul at {address}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What the connection said.
        fault: Fault,
    },
    /// The answer is an error.
    #[error("Consul answered {status} to {what}: {text}")]
    Refused {
        /// What was asked.
        what: String,
        /// The status code.
        status: StatusCode,
        /// The beginning of the body.
        text: String,
        /// When Consul wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Something that is there cannot be seen.
    #[error("Consul does not show {what} to this token")]
    Hidden {
        /// What was asked.
        what: String,
    },
    /// The answer makes no sense.
    #[error("Consul's answer to {what} cannot be read")]
    Malformed {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The answer is larger than we are willing to hold.
    #[error("Consul's answer to {what} is larger than {} MiB", BODY_LIMIT >> 20)]
    TooLarge {
        /// What was asked.
        what: String,
    },
    /// The token cannot be had.
    #[error("cannot read the Consul token from {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token has bytes that no header can carry, or none at all.
    #[error("the Consul token {0}")]
    TokenText(&'static str),
    /// This Consul does not know the namespace or partition, and would answer about something else.
    #[error("Consul at {address} {reason}")]
    Scope {
        /// Which.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// What a connection said when it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, for too long.
    Silent,
    /// It cannot be made.
    Connect(String),
    /// One of the two does not trust the other.
    Certificate(String),
    /// It ended before the answer.
    Closed(String),
    /// A new one over TLS ended before its first answer. Who refuses a client's certificate often says no more.
    Dropped(String),
}

impl Fault {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let text = root(error);
        if error.is_timeout() {
            Self::Silent
        } else if is_of_tls(error) {
            Self::Certificate(text)
        } else if error.is_connect() {
            Self::Connect(text)
        } else {
            Self::Closed(text)
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str(
                "no answer in time; see whether it is overloaded, or correct its address",
            ),
            Self::Connect(text) => write!(f, "{text}; start it or correct its address"),
            Self::Certificate(text) => write!(
                f,
                "{text}; correct ca_file, tls_server_name, or cert_file and key_file"
            ),
            Self::Closed(text) => write!(
                f,
                "the connection ended before the answer ({text}); if it stays so, raise \
                 limits.http_max_conns_per_client in Consul"
            ),
            Self::Dropped(text) => write!(
                f,
                "the new connection was ended ({text}): see whether Consul wants another client certificate \
                 (cert_file and key_file), or raise its limits.http_max_conns_per_client"
            ),
        }
    }
}

impl RequestError {
    /// Whether asking again cannot help until somebody changes something: the question itself is refused,
    /// or the answer is no answer.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            // A Consul may be replaced by one that knows the scope.
            Self::Unreachable { .. }
            | Self::Token { .. }
            | Self::TokenText(_)
            | Self::Hidden { .. }
            | Self::Scope { .. } => false,
            Self::Malformed { .. } | Self::TooLarge { .. } => true,
            // 403 comes with an unknown token, 429 with too many requests: both concern us, not the
            // question.
            Self::Refused { status, .. } => {
                !status.is_server_error()
                    && *status != StatusCode::FORBIDDEN
                    && *status != StatusCode::TOO_MANY_REQUESTS
            }
        }
    }

    /// Whether the server that was asked cannot answer at the moment, while another may.
    pub(super) fn is_for_another(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if answer::is_for_another(*status))
    }

    /// Whether Consul is well, and refuses us.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if !status.is_server_error())
    }

    /// Whether the token has not the right.
    pub(crate) fn is_forbidden(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status == StatusCode::FORBIDDEN,
            Self::Hidden { .. } => true,
            _ => false,
        }
    }

    /// When Consul wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The whole story in one line, with the remedy.
    pub(crate) fn explain(&self) -> String {
        match self {
            Self::Unreachable { fault, .. } => format!("{self}: {fault}"),
            // Rights do not help a token that Consul does not know.
            Self::Refused { status, text, .. }
                if *status == StatusCode::FORBIDDEN && text.contains("ACL not found") =>
            {
                format!(
                    "{self}; Consul does not know this token: correct it, or see whether it was deleted or belongs \
                     to another datacenter"
                )
            }
            Self::Refused { status, what, .. } if *status == StatusCode::FORBIDDEN => {
                format!("{self}; give a token with {}", right(what))
            }
            Self::Refused { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => {
                format!("{self}; raise limits.http_max_conns_per_client in Consul")
            }
            Self::Refused { status, .. } if status.is_server_error() => {
                format!("{self}; see Consul's own log")
            }
            Self::Refused { status, .. } if status.is_redirection() => {
                format!("{self}; it is not followed: correct the address of Consul")
            }
            Self::Refused { .. } => format!("{self}; correct the Consul settings"),
            Self::Hidden { what } => format!("{self}; give a token with {}", right(what)),
            Self::Malformed { source, .. } => {
                format!("{self}: {source}; see whether a Consul really is at that address")
            }
            Self::TooLarge { .. } => format!("{self}; it is not used"),
            Self::Token { source, .. } => format!("{self}: {source}; correct the token file"),
            Self::TokenText(_) => format!("{self}; correct it"),
            Self::Scope { .. } => self.to_string(),
        }
    }
}

/// What a token needs to ask for `what`.
fn right(what: &str) -> &'static str {
    match what.strip_prefix("/v1/").unwrap_or(what) {
        "agent/self" => "agent_prefix \"\" read",
        what if what.starts_with("agent/") => "service_prefix \"\" write",
        what if what.starts_with("kv/") => "key_prefix \"lb-agent/\" write",
        what if what.starts_with("session/") => "session_prefix \"\" write",
        _ => "service_prefix \"\" and node_prefix \"\" read",
    }
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn root(error: &reqwest::Error) -> String {
    chain(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn is_of_tls(error: &reqwest::Error) -> bool {
    chain(error).any(|error| {
        // An I/O error hides what it holds from `source`, and may hold another one.
        let mut inner = Some(error);
        while let Some(error) = inner {
            if error.is::<rustls::Error>() {
                return true;
            }
            inner = error
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .map(|inner| -> &(dyn Error + 'static) { inner });
        }
        false
    })
}
