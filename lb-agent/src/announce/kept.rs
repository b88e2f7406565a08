//! The session of this host, in the state directory: an agent that follows one that was killed, or handed over, goes on with it.

use std::{fs, io, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::state_file;

/// Version of the file.
const VERSION: u32 = 1;

/// The file, and what its session must be for.
#[derive(Debug)]
pub(super) struct Kept {
    file: PathBuf,
    key: String,
    ttl_ms: u64,
}

/// What is in it. With another time to live, or for another lock, a session is of no use.
#[derive(Serialize, Deserialize)]
struct Value {
    session: String,
    key: String,
    ttl_ms: u64,
}

impl Kept {
    pub(super) fn new(file: PathBuf, key: String, ttl: Duration) -> Self {
        Self {
            file,
            key,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The session of an agent that did not end as it should.
    pub(super) async fn load(&self) -> Option<String> {
        let file = self.file.clone();
        let loaded = spawn_blocking(move || state_file::load::<Value>(&file, VERSION)).await;
        let value = match loaded.ok()? {
            Ok(value) => value?,
            Err(error) => {
                warn!(%error, "the session of the last agent is not known");
                return None;
            }
        };
        let is_same = value.key == self.key && value.ttl_ms == self.ttl_ms;
        is_same.then_some(value.session)
    }

    /// Remembers a session.
    pub(super) async fn save(&self, session: &str) {
        let file = self.file.clone();
        let value = Value {
            session: session.to_owned(),
            key: self.key.clone(),
            ttl_ms: self.ttl_ms,
        };
        let saved = spawn_blocking(move || state_file::save(&file, VERSION, &value));
        if let Ok(Err(error)) = saved.await {
            warn!(%error, "after a crash this host will wait until Consul ends its old session");
        }
    }

    /// Forgets it.
    pub(super) async fn remove(&self) {
        let file = self.file.clone();
        let removed = spawn_blocking(move || fs::remove_file(&file)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(file = %self.file.display(), %error, "the session of this host cannot be forgotten");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_is_found_again_for_the_same_lock_and_time_alone() {
        let folder = tempfile::tempdir().unwrap();
        let of = |key: &str, seconds| {
            let file = folder.path().join("announce.json");
            Kept::new(file, key.to_owned(), Duration::from_secs(seconds))
        };
        assert_eq!(of("a", 10).load().await, None);
        of("a", 10).save("s-1").await;
        assert_eq!(of("a", 10).load().await.as_deref(), Some("s-1"));
        assert_eq!(of("b", 10).load().await, None);
        assert_eq!(of("a", 15).load().await, None);
        of("a", 10).remove().await;
        of("a", 10).remove().await;
        assert_eq!(of("a", 10).load().await, None);
    }
}
