//! What is written down of an address: in the state directory, and in Consul where all hosts see it.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::snapshot::ServiceName;

/// Before the address in the name of a key of Consul.
pub const PREFIX: &str = "lb-agent/vip/";

/// Whom an address is recorded for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Whose it is.
    pub name: ServiceName,
    /// Whether an operator chose the address; nothing else then does.
    pub pinned: bool,
    /// When that was recorded, since 1970; `None` if whoever recorded it did not say.
    pub since: Option<Duration>,
    /// The index of the first answer of Consul that had this record, which stays with this host. A later answer
    /// without it means that somebody released it; an earlier one, that Consul was restored or wiped.
    pub seen: Option<u64>,
}

/// An [`Owner`] as it is stored. Fields may be added: older agents pass over what they do not know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    service: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_unix: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<u64>,
}

/// An address that a name has or had, as it is stored in the state directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    service: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<Arc<str>>,
    /// When the service left, in milliseconds since 1970; absent while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_unix_ms: Option<u64>,
}

impl Owner {
    /// A name that has `address` because its own is taken.
    pub fn new(name: ServiceName, now: Duration) -> Self {
        Self {
            name,
            pinned: false,
            since: Some(now),
            seen: None,
        }
    }
}

impl Record {
    /// For this host.
    pub fn own(owner: &Owner) -> Self {
        Self {
            seen: owner.seen,
            ..Self::shared(owner)
        }
    }

    /// For all hosts.
    pub fn shared(owner: &Owner) -> Self {
        let ServiceName { service, tag } = owner.name.clone();
        Self {
            service,
            tag,
            pinned: owner.pinned,
            since_unix: owner.since.map(|since| since.as_secs()),
            seen: None,
        }
    }
}

impl From<Record> for Owner {
    fn from(record: Record) -> Self {
        let Record {
            service,
            tag,
            pinned,
            since_unix,
            seen,
        } = record;
        Self {
            name: ServiceName { service, tag },
            pinned,
            since: since_unix.map(Duration::from_secs),
            seen,
        }
    }
}

impl Known {
    /// Of an address that `name` has, or left since 1970 by so much.
    pub fn new(name: &ServiceName, left: Option<Duration>) -> Self {
        let ServiceName { service, tag } = name.clone();
        let milliseconds = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Self {
            service,
            tag,
            left_unix_ms: left.map(milliseconds),
        }
    }

    /// The name, and when it left.
    pub fn into_parts(self) -> (ServiceName, Option<Duration>) {
        let Self {
            service,
            tag,
            left_unix_ms,
        } = self;
        let name = ServiceName { service, tag };
        (name, left_unix_ms.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            name: ServiceName::part("www", "hello"),
            pinned: true,
            since: Some(Duration::from_secs(7)),
            seen: Some(9),
        }
    }

    #[test]
    fn what_the_store_told_when_is_written_down_for_this_host_alone() {
        let text = |record: &Record| serde_json::to_string(record).unwrap();
        let shared = Record::shared(&owner());
        let expected = r#"{"service":"www","tag":"hello","pinned":true,"since_unix":7}"#;
        assert_eq!(text(&shared), expected);
        let own = Record::own(&owner());
        let read: Record = serde_json::from_str(&text(&own)).unwrap();
        assert_eq!(Owner::from(read), owner());
        let unseen = Owner {
            seen: None,
            ..owner()
        };
        assert_eq!(Owner::from(shared), unseen);
    }

    #[test]
    fn what_is_not_said_is_not_written_and_may_be_missing() {
        let bare: Record = serde_json::from_str(r#"{"service":"www"}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&bare).unwrap(),
            r#"{"service":"www"}"#
        );
        let owner = Owner {
            name: ServiceName::whole("www"),
            pinned: false,
            since: None,
            seen: None,
        };
        assert_eq!(Owner::from(bare), owner);
    }

    #[test]
    fn an_address_that_was_left_is_known_by_the_millisecond() {
        for (left, text) in [
            (None, r#"{"service":"www","tag":"hello"}"#),
            (
                Some(Duration::from_millis(1_500)),
                r#"{"service":"www","tag":"hello","left_unix_ms":1500}"#,
            ),
        ] {
            let known = Known::new(&owner().name, left);
            assert_eq!(serde_json::to_string(&known).unwrap(), text);
            let read: Known = serde_json::from_str(text).unwrap();
            assert_eq!(read.into_parts(), (owner().name, left));
        }
    }
}
