//! The figures of our own probes.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use lb_core::health::{Outcome, roster::States};

/// Counted by the health stage, read by whoever serves metrics.
#[derive(Debug)]
pub struct Metrics {
    probes: Family<ResultLabel, Counter>,
    seconds: Histogram,
    targets: Family<StateLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            probes: Family::default(),
            seconds: Histogram::new([
                0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0,
            ]),
            targets: Family::default(),
        }
    }
}

impl Metrics {
    /// Adds these figures to `registry`, whose prefix is `lb`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "probes",
            "Probes of backends by result; unable means that this host could not send one",
            self.probes.clone(),
        );
        registry.register(
            "probe_duration_seconds",
            "How long successful probes took",
            self.seconds.clone(),
        );
        registry.register(
            "probe_targets",
            "Addresses that are probed, by verdict",
            self.targets.clone(),
        );
    }

    pub(super) fn count(&self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Passed(took) => {
                self.seconds.observe(Duration::as_secs_f64(took));
                "passed"
            }
            Outcome::Failed(_) => "failed",
            Outcome::Unable(_) => "unable",
        };
        self.probes.get_or_create(&ResultLabel { result }).inc();
    }

    pub(super) fn show_targets(&self, states: States) {
        for (state, count) in [
            ("starting", states.starting),
            ("up", states.up),
            ("down", states.down),
            ("off", states.off),
        ] {
            let gauge = self.targets.get_or_create(&StateLabel { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}
