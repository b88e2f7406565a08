//! The doors of the fuzz targets to what only this module knows.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Warning,
    agent::{Held, Identity},
    checks::Checks,
    keep::{self, Saved},
    keys, lock,
    parse::{self, Standpoint},
    version::AgentInfo,
};
use crate::{
    catalog::{Instance, Problem},
    state_file,
};

/// What an answer of `/v1/health/service/fuzz` gives.
pub(crate) struct Listing {
    pub(crate) instances: Vec<Arc<Instance>>,
    /// Those that have a host name instead of an address yet, with it.
    pub(crate) named: Vec<(Arc<str>, Arc<Instance>)>,
    pub(crate) problems: Vec<Problem>,
}

/// Reads an answer of `/v1/health/service/fuzz` on the Consul node `node`, as the host that is `host` to the registrar,
/// about another datacenter if it is `foreign`; `None` if it is no answer.
pub(crate) fn listing(
    body: &[u8],
    node: Option<&str>,
    host: Option<&str>,
    foreign: bool,
    warning: Warning,
) -> Option<Listing> {
    let standpoint = Standpoint {
        node: node.map(str::to_owned),
        host: host.map(str::to_owned),
        foreign,
        warning,
    };
    let listing = parse::listing("fuzz", body, &standpoint).ok()?;
    let named = listing.named.into_iter();
    Some(Listing {
        instances: listing.instances,
        named: named.map(|it| (it.host, it.instance)).collect(),
        problems: listing.problems,
    })
}

/// What is wrong with the names in an answer of `/v1/catalog/services`; `None` if it is no answer.
pub(crate) fn names(body: &[u8]) -> Option<Vec<Problem>> {
    let names = parse::names(body).ok()?;
    let problems = names.iter().filter_map(|name| parse::name_problem(name));
    Some(problems.collect())
}

/// How many checks are in an answer of `/v1/health/state/any`; `None` if it is no answer.
pub(crate) fn checks(body: &[u8]) -> Option<usize> {
    Some(Checks::parse(body).ok()?.count)
}

/// Whether an answer of `/v1/health/state/any` says of `service` what an answer of `/v1/health/service/<service>` says;
/// `None` if one of them is no answer.
pub(crate) fn agree(checks: &[u8], service: &str, answer: &[u8]) -> Option<bool> {
    let checks = Checks::parse(checks).ok()?;
    let answer = parse::listing(service, answer, &Standpoint::default()).ok()?;
    Some(checks.agree(service, &answer.checks))
}

/// What answers of `/v1/agent/services` and `/v1/agent/checks` say is registered; `None` if one of them is no answer.
pub(crate) fn held(services: &[u8], checks: &[u8]) -> Option<Held> {
    Some(Held {
        services: serde_json::from_slice(services).ok()?,
        checks: serde_json::from_slice(checks).ok()?,
    })
}

/// Who an answer of `/v1/agent/self` says the agent is, to the source and to the registrar; `None` if it is no answer.
pub(crate) fn itself(body: &[u8]) -> (Option<AgentInfo>, Option<Identity>) {
    let info = AgentInfo::parse(body).ok();
    (info, serde_json::from_slice(body).ok())
}

/// The catalog that an earlier agent kept, as it would be kept again; `None` if the file is damaged.
pub(crate) fn kept(text: &[u8]) -> Option<Vec<u8>> {
    let saved = state_file::read::<Saved>(text, &(keep::VERSION..=keep::VERSION)).ok()?;
    state_file::written(keep::VERSION, &saved).ok()
}

/// Who holds a lock and what its holder wrote, by an answer of `/v1/kv/<key>`; `None` if it is no answer.
pub(crate) fn lock(body: &[u8]) -> Option<(Option<String>, Vec<u8>)> {
    let held = lock::held(body).ok()?;
    Some((held.session, held.value))
}

/// The keys below `prefix` and their values, by an answer of `/v1/kv/<prefix>`; `None` if it is no answer.
pub(crate) fn keys(prefix: &str, body: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    keys::below(prefix, body).ok()
}
