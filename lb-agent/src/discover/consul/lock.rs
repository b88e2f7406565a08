//! One lock of Consul: a key that at most one session holds, and the session of whoever wants it.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Config,
    client::{Answer, Client, Consistency},
    error::{RequestError, SetupError},
    index::Index,
    pace::Bucket,
};

/// The lock, and who asks.
#[derive(Debug)]
pub(crate) struct Lock {
    client: Client,
    key: String,
}

/// How the lock is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// The session that holds it.
    pub(crate) session: Option<String>,
    /// What its holder wrote, or the one before.
    pub(crate) value: Vec<u8>,
}

/// Where a follower of the lock stands.
#[derive(Debug)]
pub(crate) struct Cursor {
    index: Index,
    pace: Bucket,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            index: Index::default(),
            pace: Bucket::new(10, Duration::from_millis(500)),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    value: Option<String>,
    session: Option<String>,
}

#[derive(Deserialize)]
struct Made {
    #[serde(rename = "ID")]
    id: String,
}

impl Lock {
    /// The lock that is `key`.
    ///
    /// # Errors
    /// When the files of TLS cannot be used.
    pub(crate) fn new(config: Config, key: String) -> Result<Self, SetupError> {
        let client = Client::new(Config {
            purpose: "announcing VIPs",
            ..config
        })?;
        Ok(Self { client, key })
    }

    /// Makes a session that Consul ends when it was not renewed for `time_to_live`, and whose locks nobody has for `delay`
    /// after that. Nothing else ends it by itself: by default the check of its node would, which may fail long before the
    /// holder can know.
    pub(crate) async fn open(
        &self,
        time_to_live: Duration,
        delay: Duration,
        limit: Duration,
    ) -> Result<String, RequestError> {
        let milliseconds = |it: Duration| format!("{}ms", it.as_millis());
        let body = json!({
            "Name": "lb-agent announces VIPs",
            "TTL": milliseconds(time_to_live),
            "LockDelay": milliseconds(delay),
            "Behavior": "release",
            "NodeChecks": [],
            // The name of the same before Consul 1.7.
            "Checks": [],
        });
        let answer = self
            .put(&["session", "create"], &[], body.to_string().into(), limit)
            .await?
            .successful()?;
        let made: Made =
            serde_json::from_slice(&answer.body).map_err(|error| answer.malformed(error))?;
        Ok(made.id)
    }

    /// Renews a session; false if there is no such session any more.
    pub(crate) async fn renew(&self, session: &str, limit: Duration) -> Result<bool, RequestError> {
        let path = ["session", "renew", session];
        let answer = self.put(&path, &[], Vec::new(), limit).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        answer.successful().map(|_| true)
    }

    /// Ends a session.
    pub(crate) async fn close(&self, session: &str, limit: Duration) -> Result<(), RequestError> {
        let path = ["session", "destroy", session];
        let answer = self.put(&path, &[], Vec::new(), limit).await?;
        answer.successful().map(drop)
    }

    /// Takes the lock for a session and writes `value`; false if another one has it, or had it a moment ago.
    pub(crate) async fn acquire(
        &self,
        session: &str,
        value: Vec<u8>,
        limit: Duration,
    ) -> Result<bool, RequestError> {
        self.change("acquire", session, value, limit).await
    }

    /// Gives it back; false if the session has it not.
    pub(crate) async fn release(
        &self,
        session: &str,
        limit: Duration,
    ) -> Result<bool, RequestError> {
        self.change("release", session, Vec::new(), limit).await
    }

    /// How the lock is: at once the first time and after a failure, else when it may have changed.
    pub(crate) async fn next(&self, cursor: &mut Cursor) -> Result<Held, RequestError> {
        sleep(cursor.pace.take(Instant::now())).await;
        let read = self.read(&mut cursor.index).await;
        if read.is_err() {
            cursor.index.at_once();
        }
        read
    }

    async fn read(&self, index: &mut Index) -> Result<Held, RequestError> {
        let answer = self
            .client
            .read(&self.path(), index.ask(), Consistency::Leader)
            .await?;
        // Consul says the same of a key that the token may not read. Who may not take it either learns that there.
        if answer.status == StatusCode::NOT_FOUND {
            index.answered(answer.index);
            return Ok(Held::default());
        }
        let answer = answer.successful()?;
        let held = held(&answer.body).map_err(|error| answer.malformed(error))?;
        index.answered(answer.index);
        Ok(held)
    }

    async fn change(
        &self,
        verb: &str,
        session: &str,
        value: Vec<u8>,
        limit: Duration,
    ) -> Result<bool, RequestError> {
        let query = [(verb, session)];
        let answer = self.put(&self.path(), &query, value, limit).await?;
        Ok(answer.successful()?.body.trim_ascii() == b"true")
    }

    async fn put(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Answer, RequestError> {
        let limit = self.client.share_of(limit);
        self.client
            .request(Method::PUT, path, query, Some(body), limit)
            .await
    }

    /// The slashes of a key are part of the path.
    fn path(&self) -> Vec<&str> {
        std::iter::once("kv").chain(self.key.split('/')).collect()
    }
}

/// Reads `/v1/kv/<key>`.
pub(super) fn held(body: &[u8]) -> Result<Held, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_slice(body)?;
    let held = entries.into_iter().next().map(|entry| Held {
        session: entry.session.filter(|it| !it.is_empty()),
        // What cannot be read names nobody.
        value: BASE64_STANDARD
            .decode(entry.value.unwrap_or_default())
            .unwrap_or_default(),
    });
    Ok(held.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_who_holds_it_and_what_it_wrote() {
        let read = |text: &str| held(text.as_bytes()).unwrap();
        let held = read(r#"[{"LockIndex":1,"Key":"a/owner","Value":"aGk=","Session":"s-1"}]"#);
        assert_eq!(held.session.as_deref(), Some("s-1"));
        assert_eq!(held.value, b"hi");
        for free in [
            r#"[{"Key":"a/owner","Value":null}]"#,
            r#"[{"Key":"a/owner","Value":"%","Session":""}]"#,
            "[]",
        ] {
            assert_eq!(read(free), Held::default(), "{free}");
        }
    }
}
