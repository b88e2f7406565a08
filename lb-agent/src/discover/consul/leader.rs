//! Whether the leader answers. Without one a server takes seconds to say so, and everybody who needs it would
//! wait that long: one asks, and the others take its word for a while. Pure.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::error::RequestError;

/// What the last one heard who asked the leader.
#[derive(Debug, Default)]
pub(crate) struct Leader(Mutex<Option<Away>>);

#[derive(Debug)]
struct Away {
    /// Who comes later asks again.
    until: Instant,
    error: RequestError,
}

/// How long a failure counts for all.
const FAILED: Duration = Duration::from_secs(2);
/// How long the others wait for whoever asks again.
const ASKING: Duration = Duration::from_secs(10);

impl Leader {
    /// Why the leader need not be asked now. Whoever gets `None` asks it and says what came of it.
    pub(super) fn is_away(&self, now: Instant) -> Option<RequestError> {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let away = away.as_mut()?;
        if now < away.until {
            return copy(&away.error);
        }
        away.until = now + ASKING;
        None
    }

    /// Takes in what came of asking it.
    pub(super) fn asked(&self, now: Instant, error: Option<&RequestError>) {
        let until = now + FAILED;
        let away = error.and_then(copy).map(|error| Away { until, error });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = away;
    }
}

/// The error once more, if it says that there is no leader to be had.
fn copy(error: &RequestError) -> Option<RequestError> {
    match error {
        RequestError::Unreachable { address, fault } => Some(RequestError::Unreachable {
            address: address.clone(),
            fault: fault.clone(),
        }),
        RequestError::Refused {
            what,
            status,
            text,
            retry_after,
        } if status.is_server_error() => Some(RequestError::Refused {
            what: what.clone(),
            status: *status,
            text: text.clone(),
            retry_after: *retry_after,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    fn refused(status: StatusCode) -> RequestError {
        RequestError::Refused {
            what: "/v1/health/service/a".to_owned(),
            status,
            text: "No cluster leader".to_owned(),
            retry_after: None,
        }
    }

    #[test]
    fn one_asks_again_and_the_others_take_its_word() {
        let leader = Leader::default();
        let now = Instant::now();
        assert!(leader.is_away(now).is_none());
        leader.asked(now, Some(&refused(StatusCode::INTERNAL_SERVER_ERROR)));
        let told = leader.is_away(now).unwrap();
        assert!(told.to_string().contains("No cluster leader"), "{told}");
        let later = now + FAILED;
        assert!(leader.is_away(later).is_none());
        assert!(leader.is_away(later).is_some());
        // Whoever asked was stopped meanwhile.
        assert!(leader.is_away(later + ASKING).is_none());
        leader.asked(later, None);
        assert!(leader.is_away(later).is_none());
    }

    #[test]
    fn a_leader_that_refuses_one_question_is_there() {
        let leader = Leader::default();
        let now = Instant::now();
        leader.asked(now, Some(&refused(StatusCode::FORBIDDEN)));
        assert!(leader.is_away(now).is_none());
    }
}
