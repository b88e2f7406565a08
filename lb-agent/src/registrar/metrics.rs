//! What the registrar counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) requests: Family<Request, Counter>,
    pub(super) services: Gauge,
    pub(super) up: Gauge,
}

/// One kind of request and its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Request {
    pub(super) kind: &'static str,
    pub(super) result: &'static str,
}

impl Metrics {
    /// Makes the numbers part of `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "registrar_requests",
            "Changes that were asked of the Consul agent, by kind and result",
            self.requests.clone(),
        );
        registry.register(
            "registrar_services",
            "Services that the containers of this host ask for",
            self.services.clone(),
        );
        registry.register(
            "registrar_up",
            "Whether Consul holds what the containers of this host ask for",
            self.up.clone(),
        );
    }
}
