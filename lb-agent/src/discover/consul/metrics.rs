//! What the Consul source counts.

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
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    /// `ok`, the status class such as `5xx`, or `error` without an answer.
    pub(crate) result: &'static str,
}

impl Metrics {
    /// Makes the numbers part of `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "consul_requests",
            "Requests to Consul by result",
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
    }
}
