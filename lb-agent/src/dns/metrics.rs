//! What the resolver counts.

use std::time::Duration;

use hickory_proto::{op::ResponseCode, rr::RecordType};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Queries by type and result, and how long they took. No client and no name is in a label: both are
/// outside input without a bound.
#[derive(Clone, Debug)]
pub struct Metrics {
    queries: Family<Labels, Counter>,
    duration: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            queries: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }
}

impl Metrics {
    /// Adds them to `registry`, which brings the prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "dns_queries",
            "DNS queries answered, by the type asked for and the result",
            self.queries.clone(),
        );
        registry.register_with_unit(
            "dns_query_duration",
            "Time from a DNS query to its answer, by the type asked for and the result",
            Unit::Seconds,
            self.duration.clone(),
        );
    }

    /// Queries answered so far with this type and result, such as `A` and `NOERROR`.
    pub fn queries(&self, r#type: &'static str, rcode: &'static str) -> u64 {
        self.queries
            .get(&Labels { r#type, rcode })
            .map_or(0, |counter| counter.get())
    }

    pub(super) fn answered(&self, kind: Option<RecordType>, code: ResponseCode, took: Duration) {
        let labels = Labels {
            r#type: kind.map_or("none", type_label),
            rcode: code_label(code),
        };
        self.queries.get_or_create(&labels).inc();
        self.duration
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    r#type: &'static str,
    rcode: &'static str,
}

fn type_label(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::ANY => "ANY",
        RecordType::CNAME => "CNAME",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::SVCB => "SVCB",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

fn code_label(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}

/// From our own answers (microseconds) to the time-outs of others, in seconds.
const BUCKETS: [f64; 8] = [0.0001, 0.0005, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_exported_by_type_and_result() {
        let metrics = Metrics::default();
        let mut registry = Registry::with_prefix("lb");
        metrics.register(&mut registry);
        let took = Duration::from_micros(30);
        metrics.answered(Some(RecordType::A), ResponseCode::NoError, took);
        metrics.answered(
            Some(RecordType::Unknown(4711)),
            ResponseCode::NXDomain,
            took,
        );
        metrics.answered(None, ResponseCode::FormErr, took);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "lb_dns_queries_total{type=\"A\",rcode=\"NOERROR\"} 1",
            "lb_dns_queries_total{type=\"other\",rcode=\"NXDOMAIN\"} 1",
            "lb_dns_queries_total{type=\"none\",rcode=\"FORMERR\"} 1",
            "lb_dns_query_duration_seconds_count{type=\"A\",rcode=\"NOERROR\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert_eq!(metrics.queries("A", "NOERROR"), 1);
        assert_eq!(metrics.queries("A", "SERVFAIL"), 0);
    }
}
