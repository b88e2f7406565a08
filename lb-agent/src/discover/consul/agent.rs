//! The Consul agent itself: what it has registered, and the requests that change that.
//!
//! Only fields that Consul 1.8 knows are sent: it refuses a registration with any other. It decides nothing; the
//! [`crate::registrar`] does.

mod register;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use reqwest::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Config, SetupError,
    client::{Answer, Client},
    error::RequestError,
};
use crate::registrar::{CheckStatus, Registration};

pub(crate) use register::{Body, body, tagged, weights};

/// One Consul agent.
#[derive(Debug)]
pub(crate) struct Agent {
    client: Client,
}

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Itself")]
pub(crate) struct Identity {
    /// The name of its node.
    pub(crate) node: String,
    /// The address at which its node is known.
    pub(crate) address: Option<IpAddr>,
}

/// A service that the agent has registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Service {
    #[serde(rename = "Service")]
    pub(crate) name: String,
    pub(crate) address: String,
    /// Any number: Consul looks at none, and others register here, too.
    pub(crate) port: i64,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) tags: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) weights: Weights,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) tagged_addresses: BTreeMap<String, TaggedAddress>,
}

/// One of several addresses of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TaggedAddress {
    pub(crate) address: String,
    /// Any number, as above.
    pub(crate) port: i64,
}

/// Shares of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Weights {
    pub(crate) passing: u32,
    pub(crate) warning: u32,
}

impl Default for Weights {
    // Consul's own.
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

/// A check that the agent runs, or waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HeldCheck {
    #[serde(rename = "ServiceID")]
    pub(crate) service_id: String,
    pub(crate) status: String,
    /// The reason, if the check is a maintenance.
    pub(crate) notes: String,
}

/// Everything that the agent has registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// By id.
    pub(crate) services: BTreeMap<String, Service>,
    /// By id.
    pub(crate) checks: BTreeMap<String, HeldCheck>,
}

impl Held {
    /// The reason of the maintenance that service `id` is in.
    pub(crate) fn maintenance(&self, id: &str) -> Option<&str> {
        let check = self.checks.get(&format!("{MAINTENANCE}{id}"))?;
        Some(&check.notes)
    }
}

/// The state that we report of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) status: CheckStatus,
    pub(crate) output: String,
}

impl Report {
    /// A failure, for this reason.
    pub(crate) fn critical(reason: &str) -> Self {
        Self {
            status: CheckStatus::Critical,
            output: reason.to_owned(),
        }
    }
}

/// The time within which a report of a HEALTHCHECK is renewed.
pub(crate) const DOCKER_TTL: Duration = Duration::from_secs(30);
/// Begins the id of the check that a maintenance is.
const MAINTENANCE: &str = "_service_maintenance:";
/// An agent answers from memory.
const LIMIT: Duration = Duration::from_secs(10);

impl Agent {
    /// The agent at the address of `config`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub(crate) fn new(config: Config) -> Result<Self, SetupError> {
        let client = Client::new(Config {
            purpose: "the registrar",
            ..config
        })?;
        Ok(Self { client })
    }

    /// Who it is.
    pub(crate) async fn identity(&self) -> Result<Identity, RequestError> {
        self.read(&["agent", "self"]).await
    }

    /// What it has registered.
    pub(crate) async fn held(&self) -> Result<Held, RequestError> {
        Ok(Held {
            services: self.read(&["agent", "services"]).await?,
            checks: self.read(&["agent", "checks"]).await?,
        })
    }

    /// Registers a service; checks that it no longer has are removed. `reports` are the states of checks that we
    /// report, by id. A maintenance may be lost by it.
    pub(crate) async fn register(
        &self,
        registration: &Registration,
        reports: &BTreeMap<String, Report>,
    ) -> Result<(), RequestError> {
        let body = serde_json::to_vec(&body(registration, reports));
        let path = ["agent", "service", "register"];
        let query = [("replace-existing-checks", "true")];
        // Strings, numbers and lists of them are always JSON.
        self.put(&path, &query, Some(body.unwrap_or_default()))
            .await
    }

    /// Removes a service; one that is unknown is removed already.
    pub(crate) async fn deregister(&self, id: &str) -> Result<(), RequestError> {
        match self
            .put(&["agent", "service", "deregister", id], &[], None)
            .await
        {
            Err(RequestError::Refused { status, .. })
                if status == reqwest::StatusCode::NOT_FOUND =>
            {
                Ok(())
            }
            done => done,
        }
    }

    /// Puts a service into maintenance, for a reason.
    pub(crate) async fn maintain(&self, id: &str, reason: &str) -> Result<(), RequestError> {
        let query = [("enable", "true"), ("reason", reason)];
        self.put(&["agent", "service", "maintenance", id], &query, None)
            .await
    }

    /// Ends the maintenance of a service.
    pub(crate) async fn resume(&self, id: &str) -> Result<(), RequestError> {
        let path = ["agent", "service", "maintenance", id];
        self.put(&path, &[("enable", "false")], None).await
    }

    /// Says how a check with a TTL is.
    pub(crate) async fn report(&self, check: &str, report: &Report) -> Result<(), RequestError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Update<'r> {
            status: &'static str,
            output: &'r str,
        }
        let update = Update {
            status: report.status.as_str(),
            output: &report.output,
        };
        let body = serde_json::to_vec(&update).unwrap_or_default();
        self.put(&["agent", "check", "update", check], &[], Some(body))
            .await
    }

    async fn read<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, RequestError> {
        let answer = self.client.request(Method::GET, path, &[], None, LIMIT);
        let answer = answer.await.and_then(Answer::successful)?;
        serde_json::from_slice(&answer.body).map_err(|error| answer.malformed(error))
    }

    async fn put(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<(), RequestError> {
        let answer = self.client.request(Method::PUT, path, query, body, LIMIT);
        answer.await.and_then(Answer::successful)?;
        Ok(())
    }
}

/// What the agent says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Itself {
    config: Settings,
    #[serde(default)]
    member: Member,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Member {
    addr: String,
}

impl From<Itself> for Identity {
    fn from(itself: Itself) -> Self {
        Self {
            node: itself.config.node_name,
            address: itself.member.addr.parse().ok(),
        }
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
