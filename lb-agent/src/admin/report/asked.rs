//! What is asked of the API by POST, and what it answers.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{catalog::InstanceKey, order::Mode};

/// The body of `POST /api/v1/instances/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StateOrder {
    /// The service concerned.
    pub service: String,
    /// One instance of it, as its id or as `node/id`; all of them if absent.
    #[serde(default)]
    pub backend: Option<String>,
    /// What they are to do.
    pub mode: Mode,
    /// How long their flows may go on, if not as long as usual: the time of `lb_drain`, none in maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StateAnswer {
    /// The service concerned.
    pub service: String,
    /// The instances concerned.
    pub matched: Vec<InstanceKey>,
    /// What is ordered of them now.
    pub mode: Mode,
    /// When their flows are cut, in seconds since 1970; `null` if no time was ordered.
    pub cut_unix: Option<u64>,
    /// Where that is ordered but not in force yet, and when it will be is not known: `the maps`, `the cutting of flows`, `the front`.
    pub not_yet_in: Vec<String>,
}

/// The body of `POST /api/v1/vips/pin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PinOrder {
    /// The service, or the part `service.tag`.
    pub service: String,
    /// The address that it is to have.
    pub address: Ipv4Addr,
}

/// The body of `POST /api/v1/vips/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReleaseOrder {
    /// The address, or the service that it is kept for.
    pub target: String,
}

/// The body of `POST /api/v1/session`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SessionOrder {
    /// The token.
    pub token: String,
}

/// The answer to all requests for `/api/v1/session`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SessionAnswer {
    /// Whether who asks may read the page and the API there.
    pub may_read: bool,
    /// Whether who asks may change anything there.
    pub may_change: bool,
    /// `uid 0`, `token` or `session 3`; `null` if nothing was shown that says so, or nothing that counts there.
    pub who: Option<String>,
    /// What a change must show in the header [`SESSION_HEADER`] beside the cookie; only in the answer that opened the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The body of every answer of the API that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Refused {
    /// What is wrong and what to do, as one sentence.
    pub error: String,
}

/// The header of a session's key.
pub const SESSION_HEADER: &str = "x-lb-session";

/// The path of the session.
pub const SESSION_PATH: &str = "/api/v1/session";

/// The path of what is ordered of instances.
pub const STATE_PATH: &str = "/api/v1/instances/state";

/// The path of pins.
pub const PIN_PATH: &str = "/api/v1/vips/pin";

/// The path of releases.
pub const RELEASE_PATH: &str = "/api/v1/vips/release";

/// The header that every change must carry with the value `1`: no plain form can send it.
pub const ACTION_HEADER: &str = "x-lb-action";
