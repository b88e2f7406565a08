//! Records of VIPs in Consul's key-value store, where all hosts see them: followed, and added to by
//! compare-and-swap. One key for each address: whoever creates it first has decided.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::allocator::{Claims, Records};
use crate::{
    discover::consul::{
        backoff::Backoff,
        keys::{Cursor, Keys},
    },
    snapshot::ServiceName,
};

/// Before the address in the name of a key.
pub(super) const PREFIX: &str = "lb-agent/vip/";

/// Version of the value of a key.
const VERSION: u32 = 1;
/// A name that waits for its record has no VIP; after this it gets one that only this host knows.
const PATIENCE: Duration = Duration::from_secs(2);
const FOLLOW_BACKOFF: Duration = Duration::from_secs(2);
const CLAIM_BACKOFF: Duration = Duration::from_secs(30);

/// What became known of the shared records.
#[derive(Debug)]
pub(super) enum News {
    /// All of them.
    Records(Records),
    /// A claim of ours is recorded.
    Granted(Ipv4Addr, ServiceName),
    /// Claims cannot be recorded at the moment.
    Failed(String),
    /// The token may not read the records, so that nobody learns who was faster.
    Unreadable(String),
}

#[derive(Serialize, Deserialize)]
struct Value {
    version: u32,
    service: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<Arc<str>>,
}

/// Follows the records and files claims until nobody listens any more.
pub(super) async fn run(keys: Keys, claims: watch::Receiver<Claims>, news: mpsc::Sender<News>) {
    let (asked, asked_once) = watch::channel(false);
    tokio::select! {
        () = follow(&keys, &asked, &news) => {}
        () = claim(&keys, asked_once, claims, &news) => {}
    }
}

async fn follow(keys: &Keys, asked: &watch::Sender<bool>, news: &mpsc::Sender<News>) {
    let mut cursor = Cursor::default();
    let mut backoff = Backoff::up_to(FOLLOW_BACKOFF);
    loop {
        let mut wait = Duration::ZERO;
        match keys.next(&mut cursor).await {
            Ok(keys) => {
                backoff.succeeded();
                let records = keys
                    .iter()
                    .filter_map(|(key, value)| Some((key.parse().ok()?, owner(value))));
                if news.send(News::Records(records.collect())).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                wait = backoff.failed(fastrand::f64());
                // The consul source tells that Consul cannot be reached; here it matters only to claims.
                if error.is_forbidden() {
                    let why = format!("{error}; give the token key_prefix \"lb-agent/\" write");
                    if news.send(News::Unreadable(why)).await.is_err() {
                        return;
                    }
                }
            }
        }
        asked.send_replace(true);
        sleep(wait).await;
    }
}

async fn claim(
    keys: &Keys,
    mut asked_once: watch::Receiver<bool>,
    mut claims: watch::Receiver<Claims>,
    news: &mpsc::Sender<News>,
) {
    let mut backoff = Backoff::up_to(CLAIM_BACKOFF);
    loop {
        let open = claims.borrow_and_update().clone();
        // The record may exist already, at an address that we would not think of. Whether Consul answers is
        // seen by claiming.
        if !open.is_empty() {
            let _ = timeout(PATIENCE, asked_once.wait_for(|asked| *asked)).await;
        }
        let failed = file(keys, open, news).await;
        if let Some(why) = failed {
            if news.send(News::Failed(why)).await.is_err() {
                return;
            }
            let wait = backoff.failed(fastrand::f64());
            tokio::select! {
                () = sleep(wait) => {}
                changed = claims.changed() => if changed.is_err() { return },
            }
        } else {
            backoff.succeeded();
            if claims.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Files all claims; says why if one could not be filed.
async fn file(keys: &Keys, open: Claims, news: &mpsc::Sender<News>) -> Option<String> {
    for (address, name) in open {
        let value = serde_json::json!(Value {
            version: VERSION,
            service: name.service.clone(),
            tag: name.tag.clone(),
        });
        let key = address.to_string();
        let created = keys.create(&key, value.to_string().into_bytes());
        match timeout(PATIENCE, created).await {
            Ok(Ok(true)) => {
                let _ = news.send(News::Granted(address, name)).await;
            }
            // Another host was faster; the follower brings what it wrote.
            Ok(Ok(false)) => {}
            Ok(Err(error)) if error.is_forbidden() => {
                return Some(format!(
                    "{error}; give the token key_prefix \"lb-agent/\" write"
                ));
            }
            Ok(Err(error)) => return Some(error.explain()),
            Err(_) => {
                return Some("Consul does not answer; see whether it is overloaded".to_owned());
            }
        }
    }
    None
}

/// Whom the value of a key names.
fn owner(value: &[u8]) -> Option<ServiceName> {
    let value: Value = serde_json::from_slice(value).ok()?;
    (value.version == VERSION).then_some(ServiceName {
        service: value.service,
        tag: value.tag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_owner() {
        let part = ServiceName::part("www", "hello");
        let text = br#"{"version":1,"service":"www","tag":"hello"}"#;
        assert_eq!(owner(text), Some(part));
        assert_eq!(
            owner(br#"{"version":1,"service":"a"}"#),
            Some(ServiceName::whole("a"))
        );
    }

    #[test]
    fn a_value_that_cannot_be_read_names_nobody() {
        for text in ["", "{}", "x", r#"{"version":2,"service":"a"}"#] {
            assert_eq!(owner(text.as_bytes()), None, "{text}");
        }
    }
}
