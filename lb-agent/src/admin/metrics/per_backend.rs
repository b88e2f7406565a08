//! Metrics of single backends, for those who want them: four series for each, and a bound on how many. Pure.
//!
//! An instance is told of once, as one of its service: the parts of a service share it, and what it counted.

use super::{length, number};
use crate::admin::{
    figures::{Figure, Sample},
    report::{Backend, Report},
};

/// Those that have series of their own, and how many have none.
pub(super) struct Chosen<'r> {
    told: Vec<(&'r str, &'r Backend)>,
    left_out: usize,
}

impl<'r> Chosen<'r> {
    /// In the order of services and instances, so that it is the same ones each time.
    pub(super) fn of(report: &'r Report) -> Self {
        let services = report.services.iter().flatten();
        let whole = services.filter(|service| service.tag.is_none());
        let mut all = whole.flat_map(|service| {
            let backends = service.backends.iter();
            backends.map(|backend| (service.label.as_str(), backend))
        });
        Self {
            told: all.by_ref().take(BACKENDS).collect(),
            left_out: all.count(),
        }
    }

    /// What the kernel counts. What is not known has no sample.
    pub(super) fn flows(&self) -> Vec<Figure> {
        vec![
            self.counter(
                "lb_backend_flows",
                "Flows that were established at a backend over TCP.",
                |it| it.connects.as_ref().map(|connects| connects.count),
            ),
            self.counter(
                "lb_backend_failures",
                "Connects that failed at a backend.",
                |it| it.failed,
            ),
            self.counter(
                "lb_packet_backend_packets",
                "Packets that the packet path sent to a backend's address.",
                |it| Some(it.packets?.packets),
            ),
            self.counter(
                "lb_packet_backend_bytes",
                "Their bytes, without the link's head.",
                |it| Some(it.packets?.bytes),
            ),
            self.counter(
                "lb_packet_backend_flows",
                "Flows that the packet path began at a backend's address.",
                |it| Some(it.packets?.flows),
            ),
            Figure::gauge(
                "lb_backends_left_out",
                "Backends without series of their own, because there are too many.",
                vec![Sample::plain(length(self.left_out))],
            ),
        ]
    }

    /// What the front counts.
    pub(super) fn requests(&self) -> Vec<Figure> {
        vec![
            self.counter(
                "lb_backend_requests",
                "Requests of the front that a backend was the last one tried for.",
                |it| it.front.as_ref().map(|front| front.requests),
            ),
            self.counter(
                "lb_backend_request_errors",
                "Those of them that failed: the status was 500 or above, or there was none.",
                |it| it.front.as_ref().map(|front| front.errors),
            ),
        ]
    }

    fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        count: fn(&Backend) -> Option<u64>,
    ) -> Figure {
        let sample = |(service, backend): &(&str, &Backend)| {
            let key = backend.key.to_string();
            let labels = [("service", *service), ("backend", key.as_str())];
            Some(Sample::labelled(labels, number(count(backend)?)))
        };
        Figure::counter(name, help, self.told.iter().filter_map(sample).collect())
    }
}

/// Backends beyond these have no series.
const BACKENDS: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{
        compose::compose,
        report::{OnFront, Service},
        sample,
    };

    fn report() -> Report {
        let (snapshot, stats) = (sample::snapshot(), sample::stats());
        compose(sample::material(Some(&snapshot), Some(&stats)))
    }

    fn values(figure: &Figure) -> Vec<(&str, &str, f64)> {
        let samples = figure.samples.iter();
        samples
            .map(|it| (&*it.labels[0].1, &*it.labels[1].1, it.value))
            .collect()
    }

    #[test]
    fn each_backend_of_a_whole_service_has_its_counts_once() {
        let mut report = report();
        for service in report.services.iter_mut().flatten() {
            for (number, backend) in (1..).zip(&mut service.backends) {
                backend.failed = Some(number);
                backend.connects = Some(Default::default());
                backend.front = Some(OnFront {
                    in_flight: 0,
                    connections: 0,
                    failures: 0,
                    retries: 0,
                    requests: 10 * number,
                    errors: number,
                    received: 0,
                    sent: 0,
                    p50_microseconds: None,
                    p99_microseconds: None,
                    ejected: None,
                });
            }
        }
        let whole = report.services.iter().flatten();
        let whole = whole.filter(|it| it.tag.is_none());
        let all: usize = whole.map(|it| it.backends.len()).sum();
        let chosen = Chosen::of(&report);
        let (flows, requests) = (chosen.flows(), chosen.requests());
        for figure in [&flows[0], &flows[1], &requests[0], &requests[1]] {
            assert_eq!(figure.samples.len(), all, "{}", figure.name);
        }
        assert!(values(&flows[1]).contains(&("www_hello", "file/a", 1.0)));
        assert!(values(&requests[0]).contains(&("www_hello", "file/a", 10.0)));
        assert!(values(&requests[1]).contains(&("www_hello", "file/a", 1.0)));
        assert_eq!(flows.last().unwrap().samples, [Sample::plain(0.0)]);
        // The packet path sends nothing anywhere.
        assert!(flows[2].samples.is_empty());
    }

    #[test]
    fn there_are_bounds_and_it_is_told_how_many_are_beyond() {
        let mut report = report();
        let services = report.services.as_mut().unwrap();
        let one = services.iter().find(|it| it.label == "www_hello").unwrap();
        let backend = one.backends[0].clone();
        let of = |number: usize| Service {
            label: format!("s{number}"),
            backends: vec![
                Backend {
                    failed: Some(1),
                    ..backend.clone()
                };
                3
            ],
            ..one.clone()
        };
        *services = (0..1_000).map(of).collect();
        let chosen = Chosen::of(&report);
        let flows = chosen.flows();
        assert_eq!(flows[1].samples.len(), BACKENDS);
        assert_eq!(flows.last().unwrap().samples, [Sample::plain(1_000.0)]);
        // What nobody told has none, and is not zero.
        assert!(chosen.requests()[0].samples.is_empty());
    }
}
