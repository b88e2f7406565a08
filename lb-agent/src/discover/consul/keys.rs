//! The keys below one prefix of Consul's key-value store: followed, and created by compare-and-swap.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{
    Config, Metrics,
    client::{Answer, Client},
    error::{RequestError, SetupError},
    index::Index,
    pace::Bucket,
};

/// One prefix of the store.
#[derive(Debug)]
pub(crate) struct Keys {
    client: Client,
    /// Ends in a slash.
    prefix: &'static str,
}

/// Where a follower of the keys stands.
#[derive(Debug)]
pub(crate) struct Cursor {
    index: Index,
    pace: Bucket,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            index: Index::default(),
            pace: Bucket::new(5, Duration::from_secs(1)),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    value: Option<String>,
}

impl Keys {
    pub(crate) fn new(config: Config, prefix: &'static str) -> Result<Self, SetupError> {
        let client = Client::new(config, Metrics::default())?;
        Ok(Self { client, prefix })
    }

    /// All keys, without the prefix, and their values: at once the first time and after a failure, else
    /// when one may have changed.
    pub(crate) async fn next(
        &self,
        cursor: &mut Cursor,
    ) -> Result<BTreeMap<String, Vec<u8>>, RequestError> {
        sleep(cursor.pace.take(Instant::now())).await;
        let answer = self.client.read_keys(self.prefix, cursor.index.ask()).await;
        let answer = match answer {
            // No key has the prefix.
            Ok(answer) if answer.status == reqwest::StatusCode::NOT_FOUND => {
                cursor.index.answered(answer.index);
                return Ok(BTreeMap::new());
            }
            other => other.and_then(Answer::successful),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                cursor.index.at_once();
                return Err(error);
            }
        };
        cursor.index.answered(answer.index);
        let entries: Vec<Entry> =
            serde_json::from_slice(&answer.body).map_err(|error| answer.malformed(error))?;
        let decoded = entries.into_iter().filter_map(|entry| {
            let key = entry.key.strip_prefix(self.prefix)?.to_owned();
            let value = BASE64_STANDARD
                .decode(entry.value.unwrap_or_default())
                .ok()?;
            Some((key, value))
        });
        Ok(decoded.collect())
    }

    /// Creates a key; false if it exists already.
    pub(crate) async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool, RequestError> {
        let key = format!("{}{key}", self.prefix);
        let answer = self.client.create_key(&key, value).await?.successful()?;
        Ok(answer.body.trim_ascii() == b"true")
    }
}
