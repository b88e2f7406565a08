//! The keys below one prefix of Consul's key-value store: followed, and created by compare-and-swap.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Config,
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
    #[serde(deserialize_with = "decoded")]
    value: Vec<u8>,
    modify_index: u64,
}

/// Who writes, or reads one key, waits for so long at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// A key below the prefix that tells an empty store from one that the token may not read: Consul answers 404 to both.
/// It also keeps the index of all keys from going back.
const MARK: &str = "readable";

fn decoded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let value = BASE64_STANDARD.decode(text.unwrap_or_default());
    value.map_err(D::Error::custom)
}

impl Keys {
    pub(crate) fn new(config: Config, prefix: &'static str) -> Result<Self, SetupError> {
        let client = Client::new(Config {
            purpose: "the records of VIPs",
            ..config
        })?;
        Ok(Self { client, prefix })
    }

    /// All keys, without the prefix, and their values: at once the first time and after a failure, else
    /// when one may have changed. Beside them stands the index of the answer, 0 if it has none.
    pub(crate) async fn next(
        &self,
        cursor: &mut Cursor,
    ) -> Result<(BTreeMap<String, Vec<u8>>, u64), RequestError> {
        sleep(cursor.pace.take(Instant::now())).await;
        let read = self.read_all(cursor).await;
        if read.is_err() {
            cursor.index.at_once();
        }
        read
    }

    async fn read_all(
        &self,
        cursor: &mut Cursor,
    ) -> Result<(BTreeMap<String, Vec<u8>>, u64), RequestError> {
        let mut answer = self
            .client
            .read_keys(self.prefix, cursor.index.ask())
            .await?;
        if answer.status == StatusCode::NOT_FOUND {
            self.mark().await?;
            answer = self.client.read_keys(self.prefix, None).await?;
        }
        let answer = visible(answer)?;
        let keys = below(self.prefix, &answer.body).map_err(|error| answer.malformed(error))?;
        cursor.index.answered(answer.index);
        Ok((keys, answer.index.unwrap_or(0)))
    }

    /// Writes the mark, if it is not there.
    async fn mark(&self) -> Result<(), RequestError> {
        self.create(MARK, Vec::new()).await.map(drop)
    }

    /// One key's value, and the index that [`Self::replace`] and [`Self::delete`] want; `None` if there is no such key.
    pub(crate) async fn read(&self, key: &str) -> Result<Option<(Vec<u8>, u64)>, RequestError> {
        let path = self.path(key);
        let answer = self.get(&path).await?;
        if answer.status == StatusCode::NOT_FOUND {
            self.mark().await?;
            visible(self.get(&self.path(MARK)).await?)?;
            return Ok(None);
        }
        let answer = answer.successful()?;
        let entries: Vec<Entry> =
            serde_json::from_slice(&answer.body).map_err(|error| answer.malformed(error))?;
        let entry = entries.into_iter().next();
        Ok(entry.map(|entry| (entry.value, entry.modify_index)))
    }

    async fn get(&self, path: &[&str]) -> Result<Answer, RequestError> {
        let query = &[];
        self.client
            .request(Method::GET, path, query, None, self.limit())
            .await
    }

    /// Writes a key that has `index`, 0 for one that must not exist; false if it has another one.
    pub(crate) async fn replace(
        &self,
        key: &str,
        value: Vec<u8>,
        index: u64,
    ) -> Result<bool, RequestError> {
        let (path, index) = (self.path(key), index.to_string());
        let query = [("cas", &*index)];
        let written = self
            .client
            .request(Method::PUT, &path, &query, Some(value), self.limit())
            .await?
            .successful()?;
        Ok(written.body.trim_ascii() == b"true")
    }

    /// Deletes a key that has `index`; false if it has another one.
    ///
    /// The index of all keys is that of the newest one, and of what was deleted for a while only. So the mark is
    /// written with each deletion: an index that goes back is then a store that was restored or wiped.
    pub(crate) async fn delete(&self, key: &str, index: u64) -> Result<bool, RequestError> {
        // Consul takes a write of the same value for none.
        let news = BASE64_STANDARD.encode(format!("without {key} of {index}"));
        let operations = json!([
            self.operation(json!({"Verb": "delete-cas", "Key": self.whole(key), "Index": index})),
            self.operation(json!({"Verb": "set", "Key": self.whole(MARK), "Value": news})),
        ]);
        let body = Some(operations.to_string().into_bytes());
        let mut answer = self
            .client
            .request(Method::PUT, &["txn"], &[], body, self.limit())
            .await?;
        if answer.status == StatusCode::CONFLICT {
            let is_forbidden = String::from_utf8_lossy(&answer.body).contains("Permission denied");
            if !is_forbidden {
                return Ok(false);
            }
            answer.status = StatusCode::FORBIDDEN;
        }
        answer.successful()?;
        Ok(true)
    }

    /// One operation of a transaction, where all else is asked for.
    fn operation(&self, mut operation: Value) -> Value {
        let config = self.client.config();
        for (key, scope) in [
            ("Namespace", &config.namespace),
            ("Partition", &config.partition),
        ] {
            if let Some(scope) = scope {
                operation[key] = json!(scope);
            }
        }
        json!({"KV": operation})
    }

    /// For one server.
    fn limit(&self) -> Duration {
        self.client.share_of(PATIENCE)
    }

    fn whole(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The slashes of a key are part of the path.
    fn path<'k>(&self, key: &'k str) -> Vec<&'k str> {
        let prefix = self.prefix.split('/').filter(|part| !part.is_empty());
        std::iter::once("kv").chain(prefix).chain([key]).collect()
    }

    /// Creates a key; false if it exists already.
    pub(crate) async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool, RequestError> {
        let answer = self
            .client
            .create_key(&self.whole(key), value, self.limit())
            .await?
            .successful()?;
        Ok(answer.body.trim_ascii() == b"true")
    }
}

/// The answer, if the mark is in it.
fn visible(answer: Answer) -> Result<Answer, RequestError> {
    if answer.status == StatusCode::NOT_FOUND {
        return Err(answer.hidden());
    }
    answer.successful()
}

/// Reads `/v1/kv/<prefix>`: the keys without the prefix, and their values.
pub(super) fn below(
    prefix: &str,
    body: &[u8],
) -> Result<BTreeMap<String, Vec<u8>>, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_slice(body)?;
    let others = entries.into_iter().filter_map(|entry| {
        let key = entry.key.strip_prefix(prefix)?.to_owned();
        (key != MARK).then_some((key, entry.value))
    });
    Ok(others.collect())
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
