//! Records of VIPs in Consul's key-value store, where all hosts see them: followed, and added to by
//! compare-and-swap. One key for each address: whoever creates it first has decided.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    allocator::Records,
    record::{Owner, Record},
};
use crate::discover::consul::{
    RequestError,
    backoff::Backoff,
    keys::{self, Cursor, Keys},
};

/// Version of the value of a key.
const VERSION: u32 = 1;
/// A name that waits for its record has no VIP; after this it gets one that only this host knows.
const PATIENCE: Duration = Duration::from_secs(2);
const FOLLOW_BACKOFF: Duration = Duration::from_secs(2);
const CLAIM_BACKOFF: Duration = Duration::from_secs(30);

/// Records that other hosts should know.
pub(super) type Open = BTreeMap<Ipv4Addr, Owner>;

/// What became known of the shared records.
#[derive(Debug)]
pub(super) enum News {
    /// All of them, and the index of the answer.
    Records(Records, u64),
    /// A claim of ours is recorded.
    Granted(Ipv4Addr, Owner),
    /// Claims cannot be recorded at the moment.
    Failed(String),
    /// The token may not read the records, so that nobody learns who was faster.
    Unreadable(String),
}

#[derive(Serialize, Deserialize)]
struct Value {
    version: u32,
    #[serde(flatten)]
    record: Record,
}

/// Follows the records and files claims until nobody listens any more.
pub(super) async fn run(keys: &Keys, claims: watch::Receiver<Open>, news: mpsc::Sender<News>) {
    let (asked, asked_once) = watch::channel(false);
    tokio::select! {
        () = follow(keys, &asked, &news) => {}
        () = claim(keys, asked_once, claims, &news) => {}
    }
}

async fn follow(keys: &Keys, asked: &watch::Sender<bool>, news: &mpsc::Sender<News>) {
    let mut cursor = Cursor::default();
    let mut backoff = Backoff::up_to(FOLLOW_BACKOFF);
    loop {
        let mut wait = Duration::ZERO;
        match keys.next(&mut cursor).await {
            Ok((keys, index)) => {
                backoff.succeeded();
                let records = News::Records(records(&keys), index);
                if news.send(records).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                wait = backoff.failed(fastrand::f64());
                // The consul source tells that Consul cannot be reached; here it matters only to claims.
                if error.is_forbidden() {
                    let why = without_right(&error);
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
    mut claims: watch::Receiver<Open>,
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
        let again = match file(keys, open, news).await {
            Filed::All => {
                backoff.succeeded();
                None
            }
            // Mostly what the other host wrote makes for other claims. Where its record is gone before the follower sees
            // it, they stay the same, and nobody else would file them again.
            Filed::Lost => Some(backoff.failed(fastrand::f64())),
            Filed::Failed(why) => {
                if news.send(News::Failed(why)).await.is_err() {
                    return;
                }
                Some(backoff.failed(fastrand::f64()))
            }
        };
        tokio::select! {
            () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            changed = claims.changed() => if changed.is_err() { return },
        }
    }
}

/// How filing claims went.
enum Filed {
    /// All are recorded.
    All,
    /// There were records for some addresses already.
    Lost,
    /// Why one could not be filed.
    Failed(String),
}

/// Files all claims, until one cannot be filed.
async fn file(keys: &Keys, open: Open, news: &mpsc::Sender<News>) -> Filed {
    let mut filed = Filed::All;
    for (address, owner) in open {
        let key = address.to_string();
        match within(keys.create(&key, value(&owner))).await {
            Ok(true) => {
                let _ = news.send(News::Granted(address, owner)).await;
            }
            // Another host was faster; the follower brings what it wrote.
            Ok(false) => filed = Filed::Lost,
            Err(why) => return Filed::Failed(why),
        }
    }
    filed
}

/// Records that an operator gave `address` to `owner`, in the place of the records at `former`, which were its own.
///
/// # Errors
/// Why it is not recorded, as a sentence.
pub(super) async fn pin(
    keys: &Keys,
    address: Ipv4Addr,
    pin: &Owner,
    former: &[Ipv4Addr],
) -> Result<(), String> {
    let key = address.to_string();
    let known = within(keys.read(&key)).await?;
    // Zero means that there must be no such key yet.
    let index = match known {
        None => 0,
        Some((text, index)) => match owner(&text) {
            Some(owner) if owner.name == pin.name => index,
            Some(owner) => {
                return Err(format!(
                    "{address} is recorded for service {}: choose another one",
                    owner.name
                ));
            }
            None => return Err(format!("the record of {address} in Consul cannot be read")),
        },
    };
    if !within(keys.replace(&key, value(pin), index)).await? {
        return Err(format!(
            "another host recorded {address} at the same moment: see `lb-agent vip list` and try again"
        ));
    }
    for former in former.iter().filter(|it| **it != address) {
        release(keys, *former, Some(pin)).await?;
    }
    Ok(())
}

/// Deletes the record of `address`, if it still names whom `owner` says.
///
/// # Errors
/// Why it is still there, as a sentence.
pub(super) async fn release(
    keys: &Keys,
    address: Ipv4Addr,
    was: Option<&Owner>,
) -> Result<(), String> {
    let key = address.to_string();
    let Some((text, index)) = within(keys.read(&key)).await? else {
        return Ok(());
    };
    let now = owner(&text);
    let same = now.as_ref().map(|owner| &owner.name) == was.map(|owner| &owner.name);
    if !same || !within(keys.delete(&key, index)).await? {
        return Err(format!(
            "the record of {address} has changed meanwhile: see `lb-agent vip list` and try again"
        ));
    }
    Ok(())
}

async fn within<T>(asked: impl Future<Output = Result<T, RequestError>>) -> Result<T, String> {
    match timeout(keys::PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if error.is_forbidden() => Err(without_right(&error)),
        Ok(Err(error)) => Err(error.explain()),
        Err(_) => Err("Consul does not answer; see whether it is overloaded".to_owned()),
    }
}

fn without_right(error: &RequestError) -> String {
    format!("{error}; give the token key_prefix \"lb-agent/\" write")
}

/// What the keys below [`PREFIX`](super::record::PREFIX) say.
pub(super) fn records(keys: &BTreeMap<String, Vec<u8>>) -> Records {
    let records = keys.iter();
    let records = records.filter_map(|(key, value)| Some((key.parse().ok()?, owner(value))));
    records.collect()
}

/// The value of a key that names `owner`.
fn value(owner: &Owner) -> Vec<u8> {
    let value = serde_json::json!(Value {
        version: VERSION,
        record: Record::shared(owner),
    });
    value.to_string().into_bytes()
}

/// Whom the value of a key names.
fn owner(value: &[u8]) -> Option<Owner> {
    let value: Value = serde_json::from_slice(value).ok()?;
    (value.version == VERSION).then(|| value.record.into())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Router, http::Method};
    use tokio::net::TcpListener;

    use super::*;
    use crate::{discover::consul::Config, snapshot::ServiceName, vip::record::PREFIX};

    /// Another host was faster, and its record is gone before anybody here has seen it: the claim stays the same.
    #[tokio::test]
    async fn a_claim_that_was_lost_is_filed_again_although_it_is_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let asked: Arc<Mutex<Vec<Method>>> = Arc::default();
        let log = asked.clone();
        let consul = Router::new().fallback(move |method: Method| {
            let mut log = log.lock().unwrap();
            log.push(method);
            let answer = if log.len() < 3 { "false" } else { "true" };
            async move { answer }
        });
        let consul = tokio::spawn(async move { axum::serve(listener, consul).await.unwrap() });
        let keys = Keys::new(Config::new(address), PREFIX).unwrap();
        let (_asked, asked_once) = watch::channel(true);
        let owner = Owner::new(ServiceName::whole("a"), Duration::from_secs(7));
        let claimed = Ipv4Addr::new(10, 0, 0, 2);
        let (_open, claims) = watch::channel(Open::from([(claimed, owner.clone())]));
        let (news, mut heard) = mpsc::channel(4);
        let told = tokio::select! {
            () = claim(&keys, asked_once, claims, &news) => None,
            told = timeout(Duration::from_secs(20), heard.recv()) => told.unwrap(),
        };
        assert!(
            matches!(&told, Some(News::Granted(address, it)) if (address, it) == (&claimed, &owner)),
            "{told:?}"
        );
        assert_eq!(
            *asked.lock().unwrap(),
            [Method::PUT, Method::PUT, Method::PUT]
        );
        consul.abort();
    }

    #[test]
    fn a_value_names_its_owner() {
        let named = |text: &[u8]| owner(text).map(|owner| (owner.name, owner.pinned));
        let part = ServiceName::part("www", "hello");
        assert_eq!(
            named(br#"{"version":1,"service":"www","tag":"hello"}"#),
            Some((part, false))
        );
        assert_eq!(
            named(br#"{"version":1,"service":"a","pinned":true,"later":[]}"#),
            Some((ServiceName::whole("a"), true))
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let since = Some(Duration::from_secs(7));
        for (name, pinned) in [
            (ServiceName::whole("a"), false),
            (ServiceName::part("www", "hello"), true),
        ] {
            let written = Owner {
                name,
                pinned,
                since,
                seen: None,
            };
            assert_eq!(owner(&value(&written)), Some(written));
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_names_nobody() {
        for text in ["", "{}", "x", r#"{"version":2,"service":"a"}"#] {
            assert_eq!(owner(text.as_bytes()), None, "{text}");
        }
    }
}
