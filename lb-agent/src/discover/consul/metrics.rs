//! What the Consul source counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Shared by everybody who talks to Consul; clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) requests: Family<Outcome, Counter>,
    pub(crate) watches: Gauge,
    pub(crate) polled: Gauge,
    pub(crate) index_resets: Counter,
    pub(crate) up: Gauge,
    pub(crate) filtered_by_acl: Counter,
    pub(crate) failovers: Counter,
    pub(crate) last_contact: Gauge<f64, AtomicU64>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    /// The first word of the path behind `/v1/`.
    pub(crate) endpoint: &'static str,
    /// `ok`, the status class such as `5xx`, or `error` without an answer.
    pub(crate) result: &'static str,
}

impl Outcome {
    /// That of a request for `path`.
    pub(crate) fn new(path: &[&str], result: &'static str) -> Self {
        let word = path.first().copied().unwrap_or_default();
        let known = ENDPOINTS.iter().find(|endpoint| **endpoint == word);
        let endpoint = known.copied().unwrap_or("other");
        Self { endpoint, result }
    }
}

/// What is asked for.
const ENDPOINTS: [&str; 7] = [
    "agent", "catalog", "health", "kv", "session", "status", "txn",
];

impl Metrics {
    /// Makes the numbers part of `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "consul_requests",
            "Requests to Consul by what was asked and the result",
            self.requests.clone(),
        );
        registry.register(
            "consul_watches",
            "Services followed by a blocking query",
            self.watches.clone(),
        );
        registry.register(
            "consul_polled",
            "Services polled because there are more of them than blocking queries",
            self.polled.clone(),
        );
        registry.register(
            "consul_index_resets",
            "Answers whose index was lower than the one before",
            self.index_resets.clone(),
        );
        registry.register(
            "consul_up",
            "Whether the last read of the list of services succeeded",
            self.up.clone(),
        );
        registry.register(
            "consul_filtered_by_acl",
            "Answers from which Consul left something out for want of a right",
            self.filtered_by_acl.clone(),
        );
        registry.register(
            "consul_failovers",
            "Requests for which another of the configured addresses was asked",
            self.failovers.clone(),
        );
        registry.register(
            "consul_last_contact_seconds",
            "How long the server that answered last had not heard of its leader, as it says",
            self.last_contact.clone(),
        );
    }
}
