//! Why the engine did not answer as it should, and what to do about that.

use std::{io, time::Duration};

use super::{Address, events::LONGEST_EVENT};

/// Why the engine did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens, or we may not talk to it.
    #[error(
        "cannot connect to the Docker Engine at {address}: {source}{}",
        remedy(source)
    )]
    Connect {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or carried something that is no HTTP.
    #[error("the Docker Engine broke off its answer to {path}: {source}")]
    Http {
        /// What was asked.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer did not come in time.
    #[error("the Docker Engine has not answered {path} within {} s", limit.as_secs())]
    Late {
        /// What was asked.
        path: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The engine refused.
    #[error("the Docker Engine answers {path} with {code}: {message}")]
    Refused {
        /// What was asked.
        path: String,
        /// The status code.
        code: u16,
        /// What it says.
        message: String,
    },
    /// The answer is not what it should be.
    #[error("the Docker Engine answers {path} with something that is not understood: {source}")]
    Garbage {
        /// What was asked.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The stream of events is over: the engine ends.
    #[error("the Docker Engine has closed its stream of events")]
    EventsEnded,
    /// An event is longer than any should be.
    #[error("the Docker Engine sent an event of more than {LONGEST_EVENT} bytes")]
    EventTooLong,
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; run as root or as a member of its group",
        io::ErrorKind::NotFound => "; start it, or name its socket in [sources.docker] socket",
        _ => "",
    }
}
