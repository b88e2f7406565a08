//! Why Consul gave no usable answer, and what to do about it.

use std::time::Duration;

use reqwest::StatusCode;

use super::client::BODY_LIMIT;

/// Why there is no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody answered.
    #[error("cannot reach Consul at {address}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What the connection said.
        source: reqwest::Error,
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
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl RequestError {
    /// Whether asking again cannot help until somebody changes something: the question itself is refused,
    /// or the answer is no answer.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Token { .. } => false,
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

    /// Whether the token has not the right.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::FORBIDDEN)
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
            Self::Unreachable { source, .. } if source.is_timeout() => {
                format!(
                    "{self}: no answer in time; see whether it is overloaded, or correct --consul"
                )
            }
            Self::Unreachable { source, .. } if source.is_builder() => {
                format!(
                    "{self}: {}; correct the token, which cannot be sent",
                    root(source)
                )
            }
            Self::Unreachable { source, .. } => {
                format!("{self}: {}; start it or correct --consul", root(source))
            }
            Self::Refused { status, .. } if *status == StatusCode::FORBIDDEN => {
                format!("{self}; give a token with service_prefix \"\" and node_prefix \"\" read")
            }
            Self::Refused { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => {
                format!("{self}; raise limits.http_max_conns_per_client in Consul")
            }
            Self::Refused { status, .. } if status.is_server_error() => {
                format!("{self}; see Consul's own log")
            }
            Self::Refused { .. } => format!("{self}; correct the Consul settings"),
            Self::Malformed { source, .. } => {
                format!("{self}: {source}; see whether --consul really names a Consul")
            }
            Self::TooLarge { .. } => format!("{self}; it is not used"),
            Self::Token { source, .. } => format!("{self}: {source}; correct the token file"),
        }
    }
}

fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
