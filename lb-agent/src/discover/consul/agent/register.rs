//! A registration as Consul takes it. Only fields that Consul 1.8 knows are sent: it refuses a registration with any other.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::Serialize;

use super::{DOCKER_TTL, Report, TaggedAddress, Weights};
use crate::registrar::{Check, CheckKind, CheckStatus, Registration, duration};

/// A registration as Consul takes it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Body<'r> {
    #[serde(rename = "ID")]
    id: &'r str,
    name: &'r str,
    address: String,
    port: u16,
    tags: &'r [String],
    meta: &'r BTreeMap<String, String>,
    weights: Weights,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: BTreeMap<&'r str, TaggedAddress>,
    checks: Vec<CheckBody<'r>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckBody<'r> {
    #[serde(rename = "CheckID")]
    id: &'r str,
    name: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    notes: &'r str,
    status: &'static str,
    #[serde(rename = "HTTP", skip_serializing_if = "str::is_empty")]
    http: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'r str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    args: &'r [String],
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "is_false")]
    grpc_use_tls: bool,
    #[serde(rename = "TLSSkipVerify", skip_serializing_if = "is_false")]
    tls_skip_verify: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    alias_service: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(
        rename = "DeregisterCriticalServiceAfter",
        skip_serializing_if = "Option::is_none"
    )]
    deregister_after: Option<String>,
}

/// What is sent to register `registration`.
pub(crate) fn body<'r>(
    registration: &'r Registration,
    reports: &'r BTreeMap<String, Report>,
) -> Body<'r> {
    let checks = registration.checks.iter();
    Body {
        id: &registration.id,
        name: &registration.name,
        address: registration.address.ip().to_string(),
        port: registration.address.port(),
        tags: &registration.tags,
        meta: &registration.meta,
        weights: weights(registration),
        tagged_addresses: tagged(&registration.tagged),
        checks: checks
            .map(|it| check_body(it, reports.get(&it.id)))
            .collect(),
    }
}

/// `addresses` as Consul writes them.
pub(crate) fn tagged(addresses: &BTreeMap<String, SocketAddr>) -> BTreeMap<&str, TaggedAddress> {
    let addresses = addresses.iter();
    let addresses = addresses.map(|(tag, address)| {
        let (address, port) = (address.ip().to_string(), address.port().into());
        (&**tag, TaggedAddress { address, port })
    });
    addresses.collect()
}

/// The weights that `registration` asks for.
pub(crate) fn weights(registration: &Registration) -> Weights {
    let passing = registration.weight.map(u32::from);
    Weights {
        passing: passing.unwrap_or(Weights::default().passing),
        ..Weights::default()
    }
}

fn check_body<'r>(check: &'r Check, report: Option<&'r Report>) -> CheckBody<'r> {
    let reported = report.map(|report| report.status);
    let status = reported.or(check.initial).unwrap_or(CheckStatus::Critical);
    let mut body = CheckBody {
        id: &check.id,
        name: &check.name,
        status: status.as_str(),
        deregister_after: check.deregister_after.map(duration::text),
        ..CheckBody::default()
    };
    // Consul refuses an interval beside a TTL.
    let interval = Some(duration::text(check.interval));
    let timeout = check.timeout.map(duration::text);
    match &check.kind {
        CheckKind::Http { url, method } => {
            body.http = url;
            body.method = method.as_deref();
            (body.interval, body.timeout) = (interval, timeout);
        }
        CheckKind::Command(arguments) => {
            body.args = arguments;
            (body.interval, body.timeout) = (interval, timeout);
        }
        CheckKind::Tcp(address) => {
            body.tcp = Some(address.to_string());
            (body.interval, body.timeout) = (interval, timeout);
        }
        CheckKind::Grpc {
            address,
            tls,
            skip_verify,
        } => {
            body.grpc = Some(address.to_string());
            (body.grpc_use_tls, body.tls_skip_verify) = (*tls, *skip_verify);
            (body.interval, body.timeout) = (interval, timeout);
        }
        CheckKind::Ttl(ttl) | CheckKind::Heartbeat(ttl) => body.ttl = Some(duration::text(*ttl)),
        // Consul refuses an interval or a TTL beside it.
        CheckKind::Alias(id) => body.alias_service = id,
        CheckKind::Docker => body.ttl = Some(duration::text(DOCKER_TTL)),
        CheckKind::Unusable(reason) => {
            body.ttl = Some(duration::text(FOR_EVER));
            body.notes = reason;
        }
    }
    body
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A check that nobody renews stays as it is for so long.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);
